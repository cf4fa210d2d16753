"""The commands about altered images and what they buy: words → calls. No logic lives here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from featstore import show
from featstore.arguments import open_data, open_store, print_json, requests
from featstore.command import Group, with_option_bags
from featstore.options import Data, DatasetFlags, Devices, GraphFlags, Json, StorePath
from featstore.progress import for_stream
from featstore.whole import write_whole
from featstore.wording import visible

app = typer.Typer(cls=Group)


@app.command()
def augment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="One image file.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The contact sheet, a PNG file.")] = Path(
        "augment.png"
    ),
    policy: Annotated[
        str, typer.Option("--augment", metavar="POLICY", help="tutorial, flip, keras-guide or NAME=VALUE,…")
    ] = "tutorial",
    image_size: Annotated[str, typer.Option(metavar="N|HxW", help="Pixels of each picture.")] = "224",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """See what an augmentation does: one image under the whole policy, and under each of its ranges alone.

    These are the very views that `extract --views` stores and that live training sees.

    Examples:
      featstore augment photos/cats/1.jpg

      featstore augment photos/cats/1.jpg --augment rotation_range=20,horizontal_flip=true --to turned.png
    """
    from featstore.job import parse_image_size
    from heads.augmented import contact_sheet_of
    from heads.report import sheets

    if to.suffix.lower() != ".png":
        raise typer.BadParameter(f"a contact sheet is a PNG file: {visible(to.stem)}.png?", param_hint=f"--to {to}")
    sheets.check_target(to, force=force)
    sheets.write_file(contact_sheet_of(image, policy, size=parse_image_size(image_size) or 224), to, force=force)
    show.say(f"{to}: a contact sheet of {image}")
    if as_json:
        print_json({"file": str(to)})


@app.command()
@with_option_bags
def live(
    data: Data,
    dataset: DatasetFlags,
    graph: GraphFlags,
    way: Annotated[
        Literal["scratch", "frozen", "finetune"],
        typer.Option(help="A small network from nothing; a head on a frozen base; then the base's last layers, too."),
    ] = "finetune",
    backbone: Annotated[str, typer.Option("--backbone", "-b", metavar="NAME", help="vgg16, xception, …")] = "vgg16",
    tune_from: Annotated[
        str | None,
        typer.Option("--from", metavar="LAYER", help="First layer to tune, or all (default: last block)."),
    ] = None,
    augment: Annotated[
        str,
        typer.Option(
            metavar="POLICY", help="Views: tutorial, flip, keras-guide, NAME=VALUE,… or none; new each epoch."
        ),
    ] = "tutorial",
    views: Annotated[
        int,
        typer.Option(metavar="K", min=0, help="Train on stored maps of K views: the frozen part runs K times."),
    ] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the head, or of a network from scratch.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="In these epochs.")] = 1e-4,
    tuning_epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning, afterwards.")] = 10,
    tuning_rate: Annotated[float, typer.Option(help="In these epochs.")] = 1e-5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after N epochs without a better validation loss, keep the best (0: never).")
    ] = 0,
    class_weight: Annotated[
        Literal["none", "balanced"], typer.Option(help="balanced: rare classes weigh as much as frequent ones.")
    ] = "none",
    devices: Devices = None,
    tensorboard: Annotated[Path | None, typer.Option(metavar="DIR", help="Write TensorBoard's logs there.")] = None,
    store: StorePath = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For the head, its base and checkpoints.")] = Path("live"),
    as_json: Json = False,
) -> None:
    """Train a network end to end on the pictures, to see what that buys over a cached head. Interrupted, it goes on.

    The head is a bundle like any other: predict, evaluate and export take it. A base that was trained is saved beside
    it, and is a backbone of your own (-b DIR/bases/NAME.keras). The learning curves are a picture in DIR.

    Examples:
      featstore live photos/ --image-size 150 --from block5_conv1

      featstore live photos/ --image-size 150 --views 4     # the same on stored maps: much faster

      featstore live photos/ --way scratch --image-size 150 --epochs 30 --learning-rate 1e-3

      featstore live photos/ --image-size 150 --devices all --batch-size 64     # 64 images a step, shared by all GPUs
    """
    from featstore import machine
    from featstore.job import on_gpus
    from heads.live.plan import LiveOptions, LivePlan
    from heads.live.run import train_live
    from heads.report import plots, terminal

    images = open_data(data, dataset)
    show.notes(images)
    on_maps = views > 0
    [request] = requests([backbone], graph)
    gpus = () if devices is None else tuple(f"GPU:{number}" for number in machine.gpus_named(devices))
    if gpus:
        request = on_gpus(request)
    policy = None if augment == "none" else augment
    if on_maps and policy is None and views > 1:
        raise typer.BadParameter("several views of an image need a policy", param_hint="--augment none")
    plan = LivePlan(
        way,
        replace(request, views=max(views, 1), augment=policy or request.augment),
        augment=None if on_maps else policy,
        on_maps=on_maps,
        layer=tune_from,
        epochs=epochs,
        learning_rate=learning_rate,
        tuning_epochs=tuning_epochs,
        tuning_rate=tuning_rate,
        options=LiveOptions(
            batch_size, patience, class_weight == "balanced", dataset.seed, tensorboard=tensorboard, devices=gpus
        ),
    )
    found = train_live(images, plan, store=open_store(store), out=out, progress=for_stream())
    show.console().print(terminal.live(found))
    picture = out / f"{found.bundle.name}.png"
    write_whole(picture, "draw the learning curves", plots.learning_curves(found.curve, "validation"))
    show.sentences([*found.notes, f"learning curves: {picture}"])
    show.say(f"featstore predict {quote(str(found.bundle))} IMAGES…")
    if as_json:
        print_json({**found.to_json(), "picture": str(picture)})


@app.command()
@with_option_bags
def compare(
    data: Data,
    dataset: DatasetFlags,
    graph: GraphFlags,
    backbone: Annotated[str, typer.Option("--backbone", "-b", metavar="NAME", help="vgg16, xception, …")] = "vgg16",
    views: Annotated[int, typer.Option(metavar="K", min=1, help="Cached views of each training image, at most.")] = 4,
    augment: Annotated[
        str, typer.Option(metavar="POLICY", help="tutorial, flip, keras-guide or NAME=VALUE,…")
    ] = "tutorial",
    tune_from: Annotated[
        str | None, typer.Option("--from", metavar="LAYER", help="First layer to tune (default: last block).")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="What does not fit is cut short or left out.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=4, help="A quick look: N images to train on, half as many to judge and test."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each way is run.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a head, and again of fine-tuning.")] = 10,
    scratch_epochs: Annotated[int, typer.Option(min=1, help="Epochs of a network from scratch.")] = 30,
    store: StorePath = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For the page, networks and checkpoints.")] = Path("compare"),
    as_json: Json = False,
) -> None:
    """Is a cached head enough? Cached heads, cached views, augmentation, fine-tuning and scratch, by accuracy and cost.

    All are judged on the same validation images and tested against the cheapest; the best alone is scored on the test
    split, once. The page is DIR/compare.html. Interrupted, it goes on.

    Examples:
      featstore compare photos/ --image-size 150 --budget 30

      featstore compare photos/ --limit 200 --budget 5
    """
    import featstore
    from heads.contest import show as contest_show
    from heads.contest.plan import Contest
    from heads.contest.run import compare_ways

    show.notes(open_data(data, dataset))
    [request] = requests([backbone], graph)
    contest = Contest(
        data,
        featstore.DatasetOptions(**vars(dataset)),
        request,
        layer=tune_from,
        views=views,
        augment=augment,
        epochs=epochs,
        scratch_epochs=scratch_epochs,
        seeds=seeds,
        minutes=budget,
        limit=limit,
    )
    standing = compare_ways(contest, store=open_store(store), out=out, progress=for_stream())
    page = contest_show.write_page(out, standing)
    show.console().print(contest_show.terminal(standing, show.console().width))
    show.sentences([*standing.notes, f"everything on one page: {page}"])
    if bundle := standing.best.outcomes[0].bundle:
        show.say(f"the best: featstore predict {quote(str(bundle))} IMAGES…")
    if as_json:
        print_json({**standing.to_json(), "page": str(page)})

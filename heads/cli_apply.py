"""The commands that use trained heads: words → calls. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from featstore import show
from featstore.arguments import open_data, open_store, print_json, results
from featstore.command import Group, with_option_bags
from featstore.options import Data, DatasetFlags, Json, StorePath
from featstore.progress import for_stream
from featstore.wording import counted

app = typer.Typer(cls=Group)


@app.command()
@with_option_bags
def evaluate(
    data: Data,
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE…", help="Folders that `featstore train` saved.")],
    dataset: DatasetFlags,
    split: Annotated[
        Literal["test", "validation", "train", "all"] | None,
        typer.Option(help="Images to score on (default: test where there is one, else validation, else all)."),
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """How good heads are on labelled images: scores with intervals, confusion, what leaks, and which heads differ.

    Every head is given the same images. Images that it was fitted on, or on copies of, are told, and the score without
    them.

    Examples:
      featstore evaluate photos/ bundles/vgg16-avg-logreg-1a2b3c4d5e6f

      featstore evaluate new-photos/ bundles/* --split all
    """
    from heads.evaluate import evaluate_on
    from heads.report import terminal

    images = open_data(data, dataset)
    show.notes(images)
    found = evaluate_on(images, bundles, split=split, store=open_store(store), progress=for_stream())
    out = results(as_json)
    for part in terminal.evaluation(found):
        out.print(part)
    show.sentences(found.notes)
    if as_json:
        print_json(found.to_json())


_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `featstore train` saved.")]
_Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGES…", help="Image files, folders, zips, manifests, patterns ('photos/**/*.jpg')."),
]
_Force = Annotated[bool, typer.Option("--force", help="Write over a file that is there.")]


@app.command()
def predict(
    bundle: _Bundle,
    images: _Images,
    store: StorePath = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each image.")] = 3,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV file instead of a table; - is stdout.")
    ] = None,
    force: _Force = False,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask `featstore serve` there, for its head of BUNDLE's name."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Classes and probabilities of images; an image that the store knows is answered without running the base.

    Examples:
      featstore predict bundles/vgg16-avg-logreg-1a2b3c4d5e6f holiday/*.jpg

      featstore predict bundles/vgg16-avg-logreg-1a2b3c4d5e6f 'photos/**/*.jpg' --top 5 --csv found.csv

      featstore predict vgg16-avg-logreg-1a2b3c4d5e6f holiday/*.jpg --url http://127.0.0.1:8080
    """
    from heads import apply
    from heads.report import sheets, terminal
    from heads.service.client import predict_at

    to_stdout = csv is not None and str(csv) == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("stdout can take one of --json and --csv -", param_hint="--csv")
    if url is not None and store is not None:
        raise typer.BadParameter("the service at --url has a store of its own", param_hint="--store")
    if csv is not None and not to_stdout:
        sheets.check_target(csv, force=force)
    if url is not None:
        found = predict_at(url, bundle.name, images, progress=for_stream())
    else:
        found = apply.predict_files(bundle, images, store=open_store(store), progress=for_stream())
    if csv is not None and not to_stdout:
        sheets.write_sheet(sheets.predictions_csv(found, top), csv, force=force)
        show.say(f"{csv}: {counted(len(found), 'image')}")
    elif to_stdout:
        print(sheets.predictions_csv(found, top), end="")
    elif not as_json:
        show.console(stderr=False).print(terminal.predictions(found, top))
    if as_json:
        print_json({"predictions": [prediction.to_json() for prediction in found]})


@app.command()
def submit(
    bundle: _Bundle,
    images: _Images,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The submission, a CSV file.")],
    positive: Annotated[
        str | None, typer.Option(metavar="NAME", help="The class whose probability is written (default: 2nd of two).")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="A column for every class, not one label.")] = False,
    clip: Annotated[
        float | None,
        typer.Option(metavar="BOUND", help="Keep this far from 0 and 1 (default: as fitted on held-out log loss)."),
    ] = None,
    force: _Force = False,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """A submission for Kaggle: id and label of every image, in natural order, clipped for the log loss.

    An id is the file's name without its ending. The label is the probability of the second of two classes; with more
    classes it is the name of the likeliest, unless --positive or --per-class ask for probabilities.

    Example: featstore submit bundles/vgg16-avg-logreg-1a2b3c4d5e6f test1/ --to submission.csv
    """
    from heads.report import sheets
    from heads.submit import SubmitOptions, submit_files

    sheets.check_target(to, force=force)
    options = SubmitOptions(positive, per_class, clip)
    done = submit_files(bundle, images, store=open_store(store), options=options, progress=for_stream())
    sheets.write_sheet(done.to_csv(), to, force=force)
    show.say(done.summary(to))
    show.sentences(done.notes)
    if as_json:
        print_json({"file": str(to), **done.to_json()})

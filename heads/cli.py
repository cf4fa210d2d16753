"""The commands from features to predictions: words → calls. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import featstore
import heads
from featstore import show
from featstore.arguments import open_data, open_store, print_json, requests, results
from featstore.command import Group, with_option_bags
from featstore.folders import cache_folder
from featstore.options import (
    Backbones,
    Data,
    DatasetFlags,
    GraphFlags,
    HeadFlags,
    Heads,
    Json,
    Poolings,
    Preprocessings,
    SpecFlags,
    StorePath,
    ViewFlags,
)
from featstore.progress import for_stream
from featstore.wording import counted, visible
from heads import cli_bundles, cli_live

app = typer.Typer(cls=Group)
app.add_typer(cli_bundles.app, name="heads")
app.add_typer(cli_live.app)


@app.command()
@with_option_bags
def train(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    views: ViewFlags,
    fitting: HeadFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006 - Typer copies it
    head: Heads = ["logreg", "linear-svm"],  # noqa: B006
    store: StorePath = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the bundles are saved.")] = Path("bundles"),
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write a page that shows it all.")] = None,
    as_json: Json = False,
) -> None:
    """Extract what is missing, then train heads on the cached features, in seconds.

    Settings are chosen on the validation split (by 5 folds of train where there is none); the best head alone is
    scored on the test split, once.

    Examples:
      featstore train photos/ -b vgg16 -b xception --head logreg

      featstore train photos/ -b vgg16+xception --head stacking --class-weight balanced

      featstore train photos/ --views 4   # heads see three augmented versions of each training image as well

      featstore train photos/ --head dense --grid dense.hidden=64,256x64 --grid dense.dropout=0.5
    """
    from heads import compose

    images = open_data(data, dataset)
    show.notes(images)
    done, compared = compose.train_on(
        images,
        requests(backbone, spec, views),
        head,
        store=open_store(store),
        bundles=out,
        report=report,
        options=_train_options(fitting, dataset.seed),
        progress=for_stream(),
    )
    _show_compared(images, done, compared, as_json)


@app.command()
@with_option_bags
def sweep(
    data: Data,
    dataset: DatasetFlags,
    graph: GraphFlags,
    views: ViewFlags,
    fitting: HeadFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006
    preprocessing: Preprocessings = ["keras"],  # noqa: B006
    pooling: Poolings = ["avg", "max", "flatten"],  # noqa: B006
    head: Annotated[list[str], typer.Option("--head", metavar="NAME", help="May repeat (default: every head).")] = [],  # noqa: B006
    store: StorePath = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For choices, the best bundle and the report.")] = Path(
        "sweep"
    ),
    as_json: Json = False,
) -> None:
    """Compare whole grids: backbones x preprocessings x poolings x heads x settings. Interrupted, it goes on.

    Everything is chosen on the validation split (by 5 folds of train where there is none); the best head alone is
    fitted again, saved, and scored on the test split, once.

    The page with everything in it is DIR/report.html.

    Examples:
      featstore sweep photos/ -b vgg16 -b xception

      featstore sweep photos/ --preprocessing keras --preprocessing rescale --head logreg --head chollet
    """
    from heads import compose

    images = open_data(data, dataset)
    show.notes(images)
    done, compared = compose.sweep_on(
        images,
        compose.Grid(
            tuple(backbone), requests(backbone, graph, views)[0], tuple(preprocessing), tuple(pooling), tuple(head)
        ),
        store=open_store(store),
        out=out,
        options=_train_options(fitting, dataset.seed),
        progress=for_stream(),
    )
    _show_compared(images, done, compared, as_json)


def _train_options(flags: HeadFlags, seed: int) -> heads.TrainOptions:
    return heads.TrainOptions(
        balanced=flags.class_weight == "balanced",
        calibrate=None if flags.calibrate == "auto" else flags.calibrate,
        refit_on=flags.refit,
        seed=seed,
        grids=tuple(flags.grid),
    )


def _show_compared(
    images: featstore.Dataset, done: featstore.Extraction, compared: heads.Comparison, as_json: bool
) -> None:
    from heads import notes
    from heads.report import terminal

    show.extraction(done.report)
    show.sentences(notes.reading_notes(images, done))
    show.console().print(terminal.leaderboard(compared, show.console().width))
    show.sentences([*compared.notes, *terminal.where_saved(compared)])
    if as_json:
        print_json(compared.to_json())


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
    as_json: Json = False,
) -> None:
    """Classes and probabilities of images; an image that the store knows is answered without running the base.

    Examples:
      featstore predict bundles/vgg16-avg-logreg-1a2b3c4d5e6f holiday/*.jpg

      featstore predict bundles/vgg16-avg-logreg-1a2b3c4d5e6f 'photos/**/*.jpg' --top 5 --csv found.csv
    """
    from heads import apply
    from heads.report import sheets, terminal

    to_stdout = csv is not None and str(csv) == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("stdout can take one of --json and --csv -", param_hint="--csv")
    if csv is not None and not to_stdout:
        sheets.check_target(csv, force=force)
    found = apply.predict_files(bundle, images, store=open_store(store), progress=for_stream())
    if csv is not None and not to_stdout:
        sheets.write_sheet(sheets.predictions_csv(found, top), csv, force=force)
        show.say(f"{visible(str(csv))}: {counted(len(found), 'image')}")
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


@app.command("demo")
def run_demo(
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its images and heads go (default: the user cache).")
    ] = None,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Two real bases on 1,020 patches of real photographs: extract, train, compare, and compute nothing twice.

    Example: featstore demo
    """
    from heads import demo
    from heads.report import terminal

    folder = folder or cache_folder() / "demo"
    done = demo.run_demo(
        folder / "images",
        folder / "bundles",
        demo.featstore_extract(open_store(store), for_stream()),
        say=show.say,
        show=lambda trained: show.console().print(terminal.leaderboard(trained, show.console().width)),
        progress=for_stream(),
    )
    if as_json:
        print_json(done.to_json())

"""The commands that train heads on cached features: words → calls. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import featstore
import heads
from featstore import show
from featstore.arguments import open_data, open_store, print_json, requests
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
from heads import cli_apply, cli_bundles, cli_live, cli_serve

app = typer.Typer(cls=Group)
app.add_typer(cli_bundles.app, name="heads")
app.add_typer(cli_apply.app)
app.add_typer(cli_live.app)
app.add_typer(cli_serve.app)


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

      featstore train photos/ --pooling map --stream   # the rows are read from the store, batch by batch

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
        stream=flags.stream,
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

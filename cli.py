"""The command line: a thin adapter from words to calls. No logic lives here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

import featstore
import heads
from featstore import show
from featstore.command import Group, with_option_bags
from featstore.folders import cache_folder, default_store
from featstore.options import (
    Backbones,
    Data,
    DatasetFlags,
    GraphFlags,
    HeadFlags,
    Heads,
    Json,
    Poolings,
    SpecFlags,
    StorePath,
)
from featstore.progress import for_stream

app = typer.Typer(cls=Group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
store_app = typer.Typer(cls=Group, no_args_is_help=True, help="Look after a store: list, verify, export.")
weights_app = typer.Typer(cls=Group, no_args_is_help=True, help="Look after the cached ImageNet weights.")
app.add_typer(store_app, name="store")
app.add_typer(weights_app, name="weights")


def _requests(backbones: list[str], flags: GraphFlags) -> list[featstore.Request]:
    from featstore.job import parse_image_size

    given = {**vars(flags), "image_size": parse_image_size(flags.image_size)}
    return [featstore.Request(backbone=name, **given) for name in backbones]


def _dataset(data: str, flags: DatasetFlags) -> featstore.Dataset:
    return featstore.open_dataset(data, featstore.DatasetOptions(seed=flags.seed, label_pattern=flags.label_pattern))


def _open_store(path: Path | None) -> featstore.Store:
    return featstore.Store.open(path or default_store())


def _results(as_json: bool) -> Console:
    """Where a table goes that is the result: stdout, unless that is for JSON alone."""
    return show.console(stderr=as_json)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"featstore {featstore.__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["FEATSTORE_DEBUG"] = "1"


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", callback=_debug, help="Show tracebacks.")] = False,
) -> None:
    """Extract image features once, keep them for ever, train classifiers on them in seconds.

    Start with: [bold]featstore demo[/bold]
    """


@app.command()
@with_option_bags
def extract(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006 - Typer copies it
    store: StorePath = None,
    on_error: Annotated[Literal["skip", "fail"], typer.Option(help="What a broken image does to the run.")] = "skip",
    retry_rejected: Annotated[bool, typer.Option("--retry-rejected", help="Try rejected images again.")] = False,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every file, trusting no time stamp.")] = False,
    ledger: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to list rejected images.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Reading threads (default: one a core).")] = None,
    as_json: Json = False,
) -> None:
    """Run frozen bases once over the images that the store does not know yet.

    Examples:
      featstore extract photos/ --backbone vgg16

      featstore extract photos.zip -b vgg16 -b xception --image-size 150
    """
    options = featstore.ExtractOptions(on_error, rehash, retry_rejected, workers)
    images = _dataset(data, dataset)
    show.notes(images)
    done = featstore.extract(
        images,
        _requests(backbone, spec),
        store=_open_store(store),
        options=options,
        ledger=ledger,
        progress=for_stream(),
    )
    show.extraction(done.report)
    if as_json:
        _print_json(done.report.to_json())


@app.command()
@with_option_bags
def plan(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006
    store: StorePath = None,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every file, trusting no time stamp.")] = False,
    as_json: Json = False,
) -> None:
    """Say what extract would do, and why: hits, misses with their reason, bytes, time.

    Example: featstore plan photos/ -b vgg16 --image-size 224
    """
    images = _dataset(data, dataset)
    show.notes(images)
    result = featstore.plan(
        images, _requests(backbone, spec), store=_open_store(store), rehash=rehash, progress=for_stream()
    )
    show.plan(result, _results(as_json))
    if as_json:
        _print_json(result.to_json())


@app.command()
@with_option_bags
def train(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    fitting: HeadFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006 - Typer copies it
    head: Heads = ["logreg", "linear-svm"],  # noqa: B006
    store: StorePath = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the bundles are saved.")] = Path("bundles"),
    as_json: Json = False,
) -> None:
    """Extract what is missing, then train heads on the cached features, in seconds.

    Settings are chosen on the validation split (by 5 folds of train where there is none); the best head alone is
    scored on the test split, once.

    Examples:
      featstore train photos/ -b vgg16 -b xception --head logreg

      featstore train photos/ -b vgg16+xception --head stacking --class-weight balanced
    """
    from heads import compose

    images = _dataset(data, dataset)
    show.notes(images)
    done, compared = compose.train_on(
        images,
        _requests(backbone, spec),
        head,
        store=_open_store(store),
        bundles=out,
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
    fitting: HeadFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006
    pooling: Poolings = ["avg", "max", "flatten"],  # noqa: B006
    head: Annotated[list[str], typer.Option("--head", metavar="NAME", help="May repeat (default: every head).")] = [],  # noqa: B006
    store: StorePath = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="For choices, the best bundle and the report.")] = Path(
        "sweep"
    ),
    as_json: Json = False,
) -> None:
    """Compare whole grids: backbones x poolings x heads x settings. Interrupted, it goes on where it stopped.

    Everything is chosen on the validation split (by 5 folds of train where there is none); the best head alone is
    fitted again, saved, and scored on the test split, once.

    Example: featstore sweep photos/ -b vgg16 -b xception
    """
    from heads import compose

    images = _dataset(data, dataset)
    show.notes(images)
    done, compared = compose.sweep_on(
        images,
        _requests(backbone, graph),
        head,
        poolings=pooling,
        store=_open_store(store),
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
    )


def _show_compared(
    images: featstore.Dataset, done: featstore.Extraction, compared: heads.Comparison, as_json: bool
) -> None:
    from heads import notes, report

    show.extraction(done.report)
    show.sentences(notes.reading_notes(images, done))
    show.console().print(report.leaderboard(compared, show.console().width))
    show.sentences([*compared.notes, *report.where_saved(compared)])
    if as_json:
        _print_json(compared.to_json())


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `featstore train` saved.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Image files or folders of them.")],
    store: StorePath = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each image.")] = 3,
    as_json: Json = False,
) -> None:
    """Classes and probabilities of images; an image that the store knows is answered without running the base.

    Example: featstore predict bundles/vgg16-avg-logreg-1a2b3c4d5e6f holiday/*.jpg
    """
    from heads import apply, report

    predictions = apply.predict_files(bundle, images, store=_open_store(store), progress=for_stream())
    if as_json:
        _print_json({"predictions": [prediction.to_json() for prediction in predictions]})
    else:
        show.console(stderr=False).print(report.predictions(predictions, top))


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
    from heads import demo, report

    folder = folder or cache_folder() / "demo"
    done = demo.run_demo(
        folder / "images",
        folder / "bundles",
        demo.featstore_extract(_open_store(store), for_stream()),
        say=show.say,
        show=lambda trained: show.console().print(report.leaderboard(trained, show.console().width)),
        progress=for_stream(),
    )
    if as_json:
        _print_json(done.to_json())


@app.command()
def doctor(store: StorePath = None, as_json: Json = False) -> None:
    """What this machine will use, and what would make it faster.

    Example: featstore doctor
    """
    from featstore.doctor import examine

    result = examine(_open_store(store))
    show.examination(result, _results(as_json))
    if as_json:
        _print_json(result.to_json())


@store_app.command("ls")
def store_ls(store: StorePath = None, as_json: Json = False) -> None:
    """The namespaces of a store: which features, how many rows, how many bytes.

    Example: featstore store ls
    """
    found = [namespace.summary() for namespace in _open_store(store).namespaces()]
    show.namespaces(found, _results(as_json))
    if as_json:
        _print_json({"namespaces": [summary.to_json() for summary in found]})


@store_app.command("verify")
def store_verify(
    store: StorePath = None,
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and check every byte.")] = False,
    recompute: Annotated[int, typer.Option(metavar="N", min=0, help="Compute N rows of each namespace again.")] = 0,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Its images, if they have moved since.")] = None,
    as_json: Json = False,
) -> None:
    """Check a store: names and sizes, every byte (--read-data), or the numbers themselves (--recompute).

    Exit code 1 if something is damaged.

    Example: featstore store verify --read-data
    """
    from featstore.recompute import verify_store

    place = _open_store(store)
    result = verify_store(place, read_data=read_data, recompute=recompute, data=data, progress=for_stream())
    show.verification(result, _results(as_json))
    if as_json:
        _print_json(result.to_json())
    if not result.sound:
        raise typer.Exit(1)


@store_app.command("export")
@with_option_bags
def store_export(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    to: Annotated[Path, typer.Option(metavar="FILE", help="A .h5, .npz or .parquet file.")],
    backbone: Annotated[str, typer.Option("--backbone", "-b", metavar="NAME")] = "vgg16",
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Write the cached features of DATA to one portable file: features, labels, ids, paths, classes, the spec.

    Example: featstore store export photos/ -b vgg16 --to vgg16.h5
    """
    from featstore.store.export import export

    [request] = _requests([backbone], spec)
    tables = featstore.load_tables(_dataset(data, dataset), request, store=_open_store(store))
    export(tables, to)
    show.exported(tables, to)
    if as_json:
        _print_json({"file": str(to), "splits": {name: len(table) for name, table in tables.items()}})


@weights_app.command("ls")
def weights_ls(as_json: Json = False) -> None:
    """The weights that are cached here.

    Example: featstore weights ls
    """
    from featstore.weights import list_weights

    found = list_weights()
    show.weights(found, _results(as_json))
    if as_json:
        _print_json({"weights": [base.to_json() for base in found]})


@weights_app.command("pull")
def weights_pull(
    backbones: Annotated[list[str], typer.Argument(metavar="BACKBONE…", help="vgg16, xception, resnet50, …")],
    weights: Annotated[str, typer.Option(metavar="imagenet|random:SEED|PATH")] = "imagenet",
    as_json: Json = False,
) -> None:
    """Fetch weights into the user's cache folder, so that later runs need no network.

    Example: featstore weights pull vgg16 xception
    """
    from featstore.weights import pull

    found = [pull(name, weights, progress=for_stream()) for name in backbones]
    show.weights(found, _results(as_json))
    if as_json:
        _print_json({"weights": [base.to_json() for base in found]})


@weights_app.command("verify")
def weights_verify(as_json: Json = False) -> None:
    """Compute the digest of every cached tensor again. Exit code 1: damage.

    Example: featstore weights verify
    """
    from featstore.weights import verify_weights

    result = verify_weights()
    show.verdicts(result, _results(as_json))
    if as_json:
        _print_json({"weights": [verdict.to_json() for verdict in result]})
    if any(verdict.problem for verdict in result):
        raise typer.Exit(1)

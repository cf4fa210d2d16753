"""The commands from files to features: words → calls. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import featstore
from featstore import show, show_scale
from featstore.arguments import open_data, open_store, print_json, requests, results
from featstore.command import Group, with_option_bags
from featstore.options import Backbones, Data, DatasetFlags, Devices, Json, SpecFlags, StorePath, ViewFlags
from featstore.progress import for_stream
from featstore.wording import counted

app = typer.Typer(cls=Group)
store_app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Look after a store: list, check, compact, clean, export."
)
weights_app = typer.Typer(cls=Group, no_args_is_help=True, help="Look after the cached ImageNet weights.")
app.add_typer(store_app, name="store")
app.add_typer(weights_app, name="weights")


@app.command()
@with_option_bags
def extract(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    views: ViewFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006 - Typer copies it
    store: StorePath = None,
    on_error: Annotated[Literal["skip", "fail"], typer.Option(help="What a broken image does to the run.")] = "skip",
    retry_rejected: Annotated[bool, typer.Option("--retry-rejected", help="Try rejected images again.")] = False,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every file, trusting no time stamp.")] = False,
    ledger: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to list rejected images.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Reading threads (default: one a core).")] = None,
    devices: Devices = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="What computes: this machine, or a Ray cluster that sees the files.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of the cluster (default: $RAY_ADDRESS, or one of this machine)."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time went, and what would help.")] = False,
    as_json: Json = False,
) -> None:
    """Run frozen bases once over the images that the store does not know yet.

    Examples:
      featstore extract photos/ --backbone vgg16

      featstore extract photos.zip -b vgg16 -b xception --image-size 150

      featstore extract photos/ --views 4 --augment rotation_range=20,horizontal_flip=true

      featstore extract photos/ --devices all     # a process on every GPU of this machine

      featstore extract /shared/photos --store /shared/store --engine ray --address head:6379
    """
    options = featstore.ExtractOptions(on_error, rehash, retry_rejected, workers)
    images = open_data(data, dataset)
    show.notes(images)
    done = featstore.extract(
        images,
        requests(backbone, spec, views),
        store=open_store(store),
        options=options,
        ledger=ledger,
        engine=engine,
        address=address,
        devices=devices,
        progress=for_stream(),
    )
    show.extraction(done.report)
    printed = done.report.to_json()
    if profile:
        from featstore import machine
        from featstore.extraction import profile as profile_of

        found = profile_of(done.report, machine.describe())
        show.profile(found)
        printed["profile"] = found.to_json()
    if as_json:
        print_json(printed)


@app.command()
@with_option_bags
def plan(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    views: ViewFlags,
    backbone: Backbones = ["vgg16"],  # noqa: B006
    store: StorePath = None,
    rehash: Annotated[bool, typer.Option("--rehash", help="Read every file, trusting no time stamp.")] = False,
    scale: Annotated[
        str | None, typer.Option(metavar="N", help="What N images like these would need: 1000000, 100M, 1B.")
    ] = None,
    per_hour: Annotated[
        float | None, typer.Option(metavar="PRICE", min=0, help="Of an hour of a machine like this one, for --scale.")
    ] = None,
    per_gib_month: Annotated[
        float | None, typer.Option(metavar="PRICE", min=0, help="Of a GiB kept for a month, for --scale.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what extract would do, and why: hits, misses with their reason, bytes, time.

    Examples:
      featstore plan photos/ -b vgg16 --image-size 224

      featstore plan photos/ -b vgg16 -b xception --scale 100M --per-hour 1.006 --per-gib-month 0.023
    """
    from featstore.scale import Prices, parse_count

    images = open_data(data, dataset)
    show.notes(images)
    result = featstore.plan(
        images,
        requests(backbone, spec, views),
        store=open_store(store),
        rehash=rehash,
        scale=None if scale is None else parse_count(scale),
        prices=Prices(per_hour, per_gib_month),
        progress=for_stream(),
    )
    show.plan(result, results(as_json))
    if result.scale:
        show_scale.needs(result.scale, results(as_json))
    if as_json:
        print_json(result.to_json())


@app.command()
def top5(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Image files.")],
    backbone: Annotated[str, typer.Option("--backbone", "-b", metavar="NAME")] = "vgg16",
    weights: Annotated[
        str, typer.Option(metavar="imagenet|random:SEED|PATH", help="Of the whole network, with its top.")
    ] = "imagenet",
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each image.")] = 5,
    as_json: Json = False,
) -> None:
    """What a whole ImageNet classifier sees in pictures, its 1,000 classes named. Nothing is trained or stored.

    Example: featstore top5 holiday/*.jpg -b resnet50
    """
    from featstore.top5 import top5 as look

    found = look(featstore.open_dataset(images), backbone, weights, count=top, progress=for_stream())
    show.seen(found.images, results(as_json))
    show.sentences(found.notes)
    if as_json:
        print_json(found.to_json())


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cats-vs-dogs")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Where it goes (default: ./NAME).")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a published dataset: the 3,000 photographs of the well-known tutorials. Broken off, it goes on.

    Example: featstore fetch cats-vs-dogs
    """
    from featstore.fetch import fetch as get

    done = get(name, to, progress=for_stream())
    known = "its archive is the one that was fetched before" if done.known else "its archive's hash is noted"
    show.say(f"{done.folder}: {counted(done.images, 'image')}; {known}")
    if as_json:
        print_json({"folder": str(done.folder), "images": done.images, "sha256": done.sha256, "known": done.known})


@app.command()
def doctor(store: StorePath = None, as_json: Json = False) -> None:
    """What this machine will use, and what would make it faster.

    Example: featstore doctor
    """
    from featstore.doctor import examine

    result = examine(open_store(store))
    show.examination(result, results(as_json))
    if as_json:
        print_json(result.to_json())


@store_app.command("ls")
def store_ls(store: StorePath = None, as_json: Json = False) -> None:
    """The namespaces of a store: which features, how many rows, how many bytes.

    Example: featstore store ls
    """
    found = [namespace.summary() for namespace in open_store(store).namespaces()]
    show.namespaces(found, results(as_json))
    if as_json:
        print_json({"namespaces": [summary.to_json() for summary in found]})


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

    place = open_store(store)
    result = verify_store(place, read_data=read_data, recompute=recompute, data=data, progress=for_stream())
    show.verification(result, results(as_json))
    if as_json:
        print_json(result.to_json())
    if not result.sound:
        raise typer.Exit(1)


@store_app.command("compact")
def store_compact(store: StorePath = None, as_json: Json = False) -> None:
    """Join many small segments into few large ones: the same rows, sooner opened; rows that are there twice go.

    It may run beside anything else.

    Example: featstore store compact
    """
    from featstore.store import compact

    done = compact(open_store(store), progress=for_stream())
    show.compaction(done, results(as_json))
    if as_json:
        print_json(done.to_json())


@store_app.command("gc")
@with_option_bags
def store_gc(
    dataset: DatasetFlags,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="DATA", help="Drop the rows of all other images; may repeat."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Remove what serves no row: damaged segments set aside, leftovers of killed runs, caches of folders that are gone.

    With --keep also the rows of images that are in none of the named datasets. It may run beside anything else.

    Examples:
      featstore store gc

      featstore store gc --keep photos/ --keep more-photos.zip --dry-run
    """
    from featstore.garbage import collect

    kept = [open_data(data, dataset) for data in keep or []]
    for one in kept:
        show.sentences(one.notes)
    done = collect(open_store(store), kept, dry_run=dry_run, progress=for_stream())
    show.garbage(done, results(as_json))
    if as_json:
        print_json(done.to_json())


@store_app.command("export")
@with_option_bags
def store_export(
    data: Data,
    dataset: DatasetFlags,
    spec: SpecFlags,
    to: Annotated[
        str,
        typer.Option(metavar="FILE|FOLDER/", help="A .h5, .npz or .parquet file, or a folder for many Parquet files."),
    ],
    backbone: Annotated[str, typer.Option("--backbone", "-b", metavar="NAME")] = "vgg16",
    store: StorePath = None,
    as_json: Json = False,
) -> None:
    """Write the cached features of DATA to one portable file: features, labels, ids, paths, classes, the spec.

    A name without an ending, or one that ends in /, is a folder of Parquet files by split
    (split=train/part-00000.parquet …), which DuckDB, pandas and Ray read as one table.

    Examples:
      featstore store export photos/ -b vgg16 --to vgg16.h5

      featstore store export photos/ -b vgg16 --to parquet/
    """
    from featstore.store.export import export

    [request] = requests([backbone], spec)
    tables = featstore.load_tables(open_data(data, dataset), request, store=open_store(store), stored=True)
    path = export(tables, to)
    show.exported(tables, path)
    if as_json:
        print_json({"file": str(path), "splits": {name: len(table) for name, table in tables.items()}})


@weights_app.command("ls")
def weights_ls(as_json: Json = False) -> None:
    """The weights that are cached here.

    Example: featstore weights ls
    """
    from featstore.weights import list_weights

    found = list_weights()
    show.weights(found, results(as_json))
    if as_json:
        print_json({"weights": [base.to_json() for base in found]})


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
    show.weights(found, results(as_json))
    if as_json:
        print_json({"weights": [base.to_json() for base in found]})


@weights_app.command("verify")
def weights_verify(as_json: Json = False) -> None:
    """Compute the digest of every cached tensor again. Exit code 1: damage.

    Example: featstore weights verify
    """
    from featstore.weights import verify_weights

    result = verify_weights()
    show.verdicts(result, results(as_json))
    if as_json:
        print_json({"weights": [verdict.to_json() for verdict in result]})
    if any(verdict.problem for verdict in result):
        raise typer.Exit(1)

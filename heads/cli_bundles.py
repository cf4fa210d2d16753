"""The commands on trained heads, `featstore heads …`: words → calls. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import heads
from featstore.arguments import open_data, print_json, results
from featstore.command import Group
from featstore.options import DatasetFlags, Json
from featstore.progress import for_stream

app = typer.Typer(cls=Group, no_args_is_help=True, help="Look after trained heads: list, show, export.")

_Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `featstore train` or `sweep` saved.")]


@app.command("ls")
def heads_ls(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER…]", help="Where to look (default: ./bundles and ./sweep/bundles)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """The heads in some folders: what each is, how good, and whether every byte is as it was written.

    Exit code 1 if one cannot be used.

    Example: featstore heads ls bundles/
    """
    from heads.bundles.inventory import find_bundles
    from heads.report.heads import inventory

    found = find_bundles(folders or ())
    out = results(as_json)
    out.print(inventory(found, out.width))
    if as_json:
        print_json({"bundles": [one.to_json() for one in found]})
    if any(one.problem for one in found):
        raise typer.Exit(1)


@app.command("show")
def heads_show(bundle: _Bundle, as_json: Json = False) -> None:
    """All that a head says of itself: features, classes, scores, what was chosen on what, and on which images.

    Example: featstore heads show bundles/vgg16-avg-logreg-1a2b3c4d5e6f
    """
    from heads.bundles.inventory import describe
    from heads.report.heads import card

    found = heads.read_bundle(bundle)
    for part in card(found):
        results(as_json).print(part)
    if as_json:
        print_json(describe(found))


@app.command("export")
def heads_export(
    bundle: _Bundle,
    to: Annotated[
        str, typer.Option(metavar="FILE", help="FILE.keras, FILE.onnx, FILE.xml (OpenVINO), or a folder (SavedModel).")
    ],
    check: Annotated[
        str | None, typer.Option(metavar="DATA", help="Images to check it on (default: drawn ones).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write base and head as one model file, from image to probabilities, and check that it predicts the same.

    The file is opened again by its own library. Exit code 1, and no file, if it says something else than the bundle.

    Examples:
      featstore heads export bundles/vgg16-avg-logreg-1a2b3c4d5e6f --to pets.onnx

      featstore heads export bundles/vgg16-avg-logreg-1a2b3c4d5e6f --to pets.keras --check photos/
    """
    from heads.export.files import export_bundle
    from heads.report.heads import exported

    images = None if check is None else open_data(check, DatasetFlags())
    done = export_bundle(bundle, to, check=images, force=force, progress=for_stream())
    for part in exported(done):
        results(as_json).print(part)
    if as_json:
        print_json(done.to_json())

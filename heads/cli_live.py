"""The commands about altered images and what they buy: words → calls. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from featstore import show
from featstore.arguments import print_json
from featstore.command import Group
from featstore.options import Json
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

    sheets.check_target(to, force=force)
    sheets.write_file(contact_sheet_of(image, policy, size=parse_image_size(image_size) or 224), to, force=force)
    show.say(f"{visible(str(to))}: a contact sheet of {visible(str(image))}")
    if as_json:
        print_json({"file": str(to)})

"""What our pages share: templates, and how they are shown. The owner of jinja2.

A page is one file: styles, script and pictures are inside, and its content security policy forbids everything else.
Names of files and classes are anyone's: jinja2 escapes them, and what a screen would obey or hide is written out.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from featstore.wording import counted, visible
from heads.report.terminal import setting, with_interval


@cache
def template(path: Path) -> Template:
    """The page in this file of ours."""
    environment = Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    environment.filters |= {
        "counted": counted,
        "interval": lambda found: with_interval(found).partition(" ")[2],
        "measure": with_interval,
        "setting": setting,
        "share": lambda value: f"{value:.3f}",
        "svg": lambda data: "data:image/svg+xml;base64," + base64.b64encode(data).decode("ascii"),
    }
    return environment.get_template(path.name)


def part(path: Path) -> tuple[str, str]:
    """A style or script of ours, to be put into a page as it is, and how a content security policy allows just that."""
    text = path.read_text(encoding="utf-8")
    return text, "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _shown(value: Any) -> Any:
    """What is put into a page, before it is escaped: our own markup as it is, all else as visible text."""
    return value if hasattr(value, "__html__") else visible(str(value))

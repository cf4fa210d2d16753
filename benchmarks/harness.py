"""What the benchmarks share: rows of two sides' measurements, the report of them, and their tables in the docs."""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import statistics
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from featstore import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "SCALE.md")
"""Where tables are shown."""
_FIGURES = "<!-- figures -->\n"


def row(
    case: str, ours: Sequence[float], baseline: Sequence[float], unit: str, same_result: bool, **more: Any
) -> dict[str, Any]:
    """One row: the medians of both sides, their spread, and a ratio above 1 where ours is better.

    unit : "s" or "MiB", where less is better, or something of which more is.
    """
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return {
        "case": case,
        "ours": mine,
        "baseline": theirs,
        "unit": unit,
        "ratio": theirs / mine if unit in ("s", "MiB") else mine / theirs,
        "same_result": same_result,
        "repeats": len(ours),
        "spread": {"ours": [min(ours), max(ours)], "baseline": [min(baseline), max(baseline)]},
        **more,
    }


def linear(unit: str, last: float, before: float) -> bool:
    """Whether what was measured is no more than half as much again as ``before``, which linear growth would make of the
    step before; of what is below 10 s or 32 MiB nothing is said.
    """
    return last <= 1.5 * before or last < {"s": 10.0, "MiB": 32.0}[unit]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every benchmark."""
    parser.add_argument("--json", action="store_true", help="print the rows and the machine as JSON")
    parser.add_argument("--save", action="store_true", help="keep them, and write their table into the docs")


def report(
    benchmark: str, rows: Sequence[dict[str, Any]], libraries: Sequence[str], *, as_json: bool, save: bool = False
) -> None:
    """Print the rows, for people or as JSON with the machine and the versions of the ``libraries``; keep them."""
    where = machine_of(libraries)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # on Linux, where it is in KiB
    peak = max(machine.peak_memory(), children)  # of the process that held most
    found = {"benchmark": benchmark, "machine": where, "peak_bytes": peak, "rows": list(rows)}
    if save:
        (RESULTS / f"{benchmark}.json").write_text(json.dumps(found, indent=2) + "\n")
        for page in PAGES:
            page.write_text(with_tables(page.read_text()))
    if not as_json:
        for one in rows:
            same = "the same result" if one["same_result"] else "ANOTHER RESULT"
            print(f"{one['case']}: {_number(one['ours'])} against {_number(one['baseline'])} {one['unit']}, ", end="")
            print(f"x {one['ratio']:.2f}, {same}")
        return
    print(json.dumps(found, indent=2))


def machine_of(libraries: Sequence[str]) -> dict[str, Any]:
    """What a figure depends on: the machine, and the versions of Python and of those ``libraries`` that are there."""
    about = machine.describe()
    versions = {"python": platform.python_version()}
    for name in libraries:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "cpu": about.cpu, "cores": about.cores, "flags": about.flags, "memory": about.memory, **versions,
        "featstore": _commit(),
    }  # fmt: skip


def _commit() -> str:
    """The commit of what was measured, with a "+" if its code was changed since; "" without git."""

    def git(*words: str) -> str:
        with suppress(OSError):
            return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        return ""

    changed = git("status", "--porcelain", "--", "featstore", "heads", "cli.py", "benchmarks/*.py")
    return git("rev-parse", "--short=12", "HEAD") + "+" * bool(changed)


def with_tables(page: str) -> str:
    """The ``page`` with the table of every kept benchmark below its mark, ``<!-- table: NAME -->``."""
    for mark in re.findall(r"^<!-- table: [a-z]+ -->\n", page, re.MULTILINE):
        name = mark.split()[2]
        page = with_text(page, mark, table(json.loads((RESULTS / f"{name}.json").read_text())["rows"]))
    return page


def with_text(page: str, mark: str, lines: str) -> str:
    """The ``page`` with ``lines``, a table, in the place of the one below the ``mark``, or of none."""
    before, _, after = page.partition(mark)
    rest = after.lstrip("\n")
    while rest.startswith("|"):
        rest = rest.partition("\n")[2]
    rest = rest.lstrip("\n")
    return before + mark + "\n" + lines + "\n" + ("\n" + rest if rest else "")


def with_figures(page: str) -> str:
    """The ``page`` with the table of the kept figures below its mark."""
    kept = json.loads((RESULTS / "reliability.json").read_text())["figures"]
    lines = ["| tried | how often, and what came of it | test |", "|---|---|---|"]
    for one in kept:
        counts = ", ".join(f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in one["counts"].items())
        file, _, test = one["test"].partition("::")
        lines.append(f"| {one['tried']} | {counts} | [{test or Path(file).stem}](../{file}) |")
    return with_text(page, _FIGURES, "\n".join(lines))


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown: medians with their spread."""
    lines = ["| case | featstore | baseline | ratio | same result |", "|---|---|---|---|---|"]
    for one in rows:
        sides = (_spread(one, side) for side in ("ours", "baseline"))
        same = "yes" if one["same_result"] else "**no**"
        lines.append(f"| {one['case']} | {' | '.join(sides)} | {one['ratio']:.2f} | {same} |")
    return "\n".join(lines)


def _spread(one: dict[str, Any], side: str) -> str:
    low, high = one["spread"][side]
    return f"{_number(one[side])} {one['unit']} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

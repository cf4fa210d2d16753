"""The whole reliability campaign: every promise of docs/RELIABILITY.md tried as often as it says there.

    python benchmarks/reliability.py [--only NAME …] [--json | --save]

Runs tests/reliability in full (the tests of every day try a small part of it), and in full, too, the tests beside it
that docs/RELIABILITY.md names. Needs strace, the right to mount (tmpfs, in a container often root), the test
photographs, PyTorch and DuckDB (the extra "campaign"). A promise that does not hold fails its test, and one that could
not be tried is as bad: then of that file nothing is kept but this. NAME is the name of a file, as in `test_kills`; the
other figures stay as they were.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, machine_of, with_figures

DOCS = ROOT / "docs" / "RELIABILITY.md"
_FOLDER = ROOT / "tests" / "reliability"


def run(names: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The figures of the campaign, or of some of its files; and the files in which a promise was broken."""
    files = [file for file in promised() if not names or file.stem in names]
    lines, broken = [], []
    for file in files:
        with tempfile.TemporaryDirectory() as place:
            figures = Path(place, "figures")
            figures.touch()
            environment = {**os.environ, "FEATSTORE_RELIABILITY": "full", "FEATSTORE_RELIABILITY_FIGURES": str(figures)}
            told = Path(place, "told.xml")
            words = [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", f"--junitxml={told}"]
            failed = subprocess.run(
                [*words, file], check=False, cwd=ROOT, env=environment, stdout=sys.stderr
            ).returncode
            if failed or "<skipped" in told.read_text():
                broken.append(file.stem)
                lines.append(_broken(file))
            else:
                lines += [json.loads(line) for line in figures.read_text().splitlines()]
    return added(lines), broken


def _broken(file: Path) -> dict[str, Any]:
    counts = {"came_to": "a broken promise, or one that could not be tried"}
    return {"test": str(file.relative_to(ROOT)), "tried": f"all of {file.stem}", "counts": counts, "seconds": 0}


def promised() -> list[Path]:
    """The campaign's own files, and the other tests that docs/RELIABILITY.md names."""
    linked = {(DOCS.parent / name).resolve() for name in re.findall(r"\]\((\.\./tests/[^)#]+)\)", DOCS.read_text())}
    return [*sorted(_FOLDER.glob("test_*.py")), *sorted(file for file in linked if file.parent != _FOLDER)]


def added(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of the same test and trial as one: numbers that begin with "most" are the largest, others the sum."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: (line["test"], line["tried"])):
        first = found.setdefault((line["test"], line["tried"]), line)
        if first is line:
            continue
        for name, value in line["counts"].items():
            if not isinstance(value, str):
                old = first["counts"][name]
                first["counts"][name] = max(old, value) if name.startswith("most") else old + value
        first["seconds"] += line["seconds"]
    return list(found.values())


def main() -> None:
    """Try everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the figures and the machine as JSON")
    parser.add_argument("--save", action="store_true", help="keep them, and write their table into docs/RELIABILITY.md")
    given = parser.parse_args()
    names = sorted({file.stem for file in promised()})
    if unknown := sorted({*given.only} - {*names}):
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(names)}")
    machine = machine_of(("h5py", "pillow"))
    figures, broken = run(given.only)
    for one in figures:
        one |= {"featstore": machine["featstore"], "date": date.today().isoformat()}
    kept = RESULTS / "reliability.json"
    if given.only and kept.exists():
        others = json.loads(kept.read_text())["figures"]
        figures = added(
            [*(one for one in others if Path(one["test"].partition("::")[0]).stem not in given.only), *figures]
        )
    found = {"benchmark": "reliability", "machine": machine, "figures": figures}
    if given.save:
        kept.write_text(json.dumps(found, indent=2) + "\n")
        DOCS.write_text(with_figures(DOCS.read_text()))
    if given.json:
        print(json.dumps(found, indent=2))
    for one in figures if not given.json else ():
        print(f"{one['tried']}: {one['counts']}")
    if broken:
        sys.exit(f"a promise does not hold, or could not be tried, see above: {', '.join(broken)}")


if __name__ == "__main__":
    main()

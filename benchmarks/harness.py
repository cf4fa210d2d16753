"""What the benchmarks share: rows of two sides' measurements, and the report of them."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from featstore import machine


def row(
    case: str, ours: Sequence[float], baseline: Sequence[float], unit: str, same_result: bool, **more: Any
) -> dict[str, Any]:
    """One row: the medians of both sides, their spread, and a ratio above 1 where ours is better.

    unit : "s", where less is better, or a rate, where more is.
    """
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return {
        "case": case,
        "ours": mine,
        "baseline": theirs,
        "unit": unit,
        "ratio": theirs / mine if unit == "s" else mine / theirs,
        "same_result": same_result,
        "repeats": len(ours),
        "spread": {"ours": [min(ours), max(ours)], "baseline": [min(baseline), max(baseline)]},
        **more,
    }


def report(benchmark: str, rows: Sequence[dict[str, Any]], libraries: Sequence[str], *, as_json: bool) -> None:
    """Print the rows, for people or as JSON with the machine and the versions of the ``libraries``."""
    if not as_json:
        for one in rows:
            same = "the same result" if one["same_result"] else "ANOTHER RESULT"
            print(f"{one['case']}: {one['ours']:.2f} against {one['baseline']:.2f} {one['unit']}, ", end="")
            print(f"x {one['ratio']:.2f}, {same}")
        return
    about = machine.describe()
    versions = {"python": platform.python_version(), **{name: version(name) for name in libraries}}
    where = {"cpu": about.cpu, "cores": about.cores, "flags": about.flags, **versions}
    print(json.dumps({"benchmark": benchmark, "machine": where, "rows": list(rows)}, indent=2))

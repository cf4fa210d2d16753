"""Every backbone on one dataset: accuracy of its best head, images a second, bytes of features; and a picture of it.

    python benchmarks/backbones.py DATA [--backbone NAME[:SIZE] …] [--heads NAME …] [--json | --save]

Each extracts all images of DATA with average pooling into an empty store, at its own size and at the tutorials' 150
pixels unless told (decoding and committing included, the network open before the clock starts), and then trains the
heads; the best on validation is the one that counts. The test split is scored once, for the best of all. Backbones
whose ImageNet weights cannot be had are left out, with the reason. --save keeps the rows, which are no pairs as other
benchmarks', in benchmarks/results/backbones.json and writes table and picture to docs/backbones.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import Case, open_once
from harness import machine_of

sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).resolve().parent]  # its `heads` is a benchmark

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

import featstore
from featstore import Dataset, Request, Store
from featstore.catalog import DOCUMENTED
from featstore.errors import FeatstoreError
from featstore.progress import for_stream
from featstore.weights import resolve
from heads.compose import train_on
from heads.report.canvas import Theme, draw

_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE / "results" / "backbones.json"
_DOCS = _HERE.parent / "docs" / "backbones.md"
_MARK = "<!-- what follows is written by benchmarks/backbones.py --save -->\n"
_LIBRARIES = ("tensorflow", "keras", "openvino", "pillow", "scikit-learn")
_HEADS = ("logreg", "linear-svm", "ridge", "lda")


def run(asked: Sequence[str], heads: Sequence[str], images: Dataset) -> Iterator[dict[str, Any]]:
    """A row for each backbone; the best of them has a test score, those that cannot be run a problem."""
    rows: list[dict[str, Any]] = []
    kept: dict[str, tuple[Request, Path]] = {}
    with tempfile.TemporaryDirectory() as place:
        for words in asked:
            name, _, size = words.partition(":")
            try:
                base = resolve(name)
                request = Request(name, image_size=int(size) if size else base.backbone.default_size)
                store = Path(place) / str(len(rows))
                rows.append(_measured(request, heads, images, store))
                kept[words] = (request, store)
            except FeatstoreError as error:
                rows.append({"backbone": words, "problem": error.what})
        done = [row for row in rows if "validation" in row]
        if done:
            best = max(done, key=lambda row: row["validation"]["accuracy"])
            request, store = kept[asked[rows.index(best)]]
            options = {"store": Store.open(store), "bundles": Path(place) / "bundles", "progress": for_stream()}
            compared = train_on(images, [request], [best["head"]], **options)[1]
            best["test"] = _accuracy(compared.best.test)
    yield from rows


def _measured(request: Request, heads: Sequence[str], images: Dataset, store: Path) -> dict[str, Any]:
    Case(resolve(request.backbone), "imagenet", request.image_size).runtime(images)
    started = time.perf_counter()
    done = featstore.extract(images, request, store=store, progress=for_stream())
    seconds = time.perf_counter() - started
    [spec] = done.report.specs
    options = {"store": Store.open(store), "bundles": None, "progress": for_stream()}
    best = train_on(images, [replace(request, precision=spec.precision)], heads, **options)[1].best
    width = featstore.load_table(images, done.jobs[0].spec, store=store).X.shape[1]
    return {
        "backbone": request.backbone,
        "image_size": request.image_size,
        "precision": spec.precision,
        "images": len(images),
        "images_per_second": spec.computed / seconds,
        "feature_bytes": 4 * width,
        "head": best.head,
        "validation": _accuracy(best.held_out),
    }


def _accuracy(metrics: Any) -> dict[str, Any]:
    return {"accuracy": metrics.accuracy.value, "interval": list(metrics.accuracy.interval), "n": metrics.n}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| backbone | size | precision | images/s | bytes an image | best head | validation | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "problem" in row:
            continue
        cells = [row["backbone"], f"{row['image_size']}", row["precision"], f"{row['images_per_second']:.1f}"]
        cells += [f"{row['feature_bytes']:,}", row["head"], _words(row["validation"]), _words(row.get("test"))]
        lines.append(f"| {' | '.join(cells)} |")
    left_out: dict[str, dict[str, None]] = {}
    for row in rows:
        if "problem" in row:
            name = row["backbone"].partition(":")[0]
            left_out.setdefault(row["problem"].replace(name, "…"), {})[name] = None
    return "\n".join([*lines, *(f"\nLeft out, as {why}: {', '.join(names)}." for why, names in left_out.items())])


def _words(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Accuracy on validation with its interval against milliseconds an image, a PNG file."""
    measured = [row for row in rows if "validation" in row]

    def paint(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        for row in measured:
            cost, found = 1000 / row["images_per_second"], row["validation"]
            axes.plot([cost] * 2, found["interval"], color=theme.series[0], linewidth=1.2, alpha=0.6)
            axes.plot(cost, found["accuracy"], "o", color=theme.series[0], markersize=7)
            axes.annotate(
                f"{row['backbone']} {row['image_size']}", (cost, found["accuracy"]), (7, 5),
                textcoords="offset points", fontsize=8.5, color=theme.ink,
            )  # fmt: skip
        axes.margins(x=0.25)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="milliseconds an image", ylabel="accuracy of the best head on validation")

    return draw("backbones", "accuracy against cost of backbones", paint, (6.4, 4.0)).png


def save(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """Keep the rows, and put table and picture into the docs."""
    _RESULTS.write_text(json.dumps({**about, "rows": list(rows)}, indent=2) + "\n")
    (_DOCS.parent / "backbones.png").write_bytes(picture(rows))
    above, mark, _ = _DOCS.read_text().partition(_MARK)
    if not mark:
        raise SystemExit(f"{_DOCS} has no line {_MARK.strip()}")
    picture_line = "![accuracy of the best head on validation against milliseconds an image](backbones.png)"
    _DOCS.write_text(f"{above}{mark}\n{table(rows)}\n\n{picture_line}\n")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", action="append", help="NAME or NAME:SIZE, may repeat (default: all documented)")
    parser.add_argument("--heads", nargs="+", default=_HEADS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the rows, write table and picture to the docs")
    given = parser.parse_args()
    open_once()
    asked = given.backbone or [words for b in DOCUMENTED for words in (b.name, f"{b.name}:150")]
    rows = list(run(asked, given.heads, featstore.open_dataset(given.data)))
    about = {"benchmark": "backbones", "machine": machine_of(_LIBRARIES)}
    if given.save:
        save(rows, about)
    print(json.dumps({**about, "rows": rows}, indent=2) if given.json else table(rows))


if __name__ == "__main__":
    main()

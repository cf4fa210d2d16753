"""The well-known tutorials' experiments by name, on any labelled dataset, with the published figures beside ours.

    python benchmarks/recipes.py DATA [--recipe NAME …] [--scale 1.0] [--epoch-scale S] [--weights W] [--json | --save]

--scale makes them fit the machine: that share of the images, and of the epochs of networks unless --epoch-scale says
another; each row says what was really trained. The published figures are the tutorials', with their 2,000 training
images: another dataset or a smaller scale gives others. kaggle-vgg16 takes the first 1,500 images of each class and
splits them 2:1, and writes a submission for the images of DATA/test or DATA/test1. Without its weights an experiment is
left out, with the reason; --weights names others (a file, random:0), and then the figures are not the tutorials'.
--save keeps the rows in benchmarks/results/recipes.json and writes their table to docs/recipes.md; rows of recipes that
were not run stay.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).resolve().parent]  # its `heads` is a benchmark

from featstore import Dataset, Request, Store, machine, open_dataset
from featstore.dataset.dataset import BY_DIGEST
from featstore.errors import FeatstoreError
from featstore.folders import default_store
from featstore.progress import for_stream
from featstore.records import SPLITS
from featstore.scan import digest_all
from featstore.top5 import top5
from featstore.wording import counted
from heads.compose import train_on
from heads.evaluation.metrics import Metrics
from heads.live.plan import LiveOptions, LivePlan
from heads.live.run import train_live
from heads.report.sheets import write_sheet
from heads.submit import submit_files

_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE / "results" / "recipes.json"
_DOCS = _HERE.parent / "docs" / "recipes.md"
_TABLE = "<!-- the table is written by benchmarks/recipes.py --save -->\n"

_VGG = Request("vgg16", image_size=150, preprocessing="rescale", pooling="flatten")
_XCEPTION = Request("xception", image_size=150)
_RESNET = Request("resnet50", image_size=224)
_TWENTY = LiveOptions(batch_size=20)
_KAGGLE = 1500  # images of each class


@dataclass(frozen=True, slots=True)
class Cached:
    """A head on stored features; with ``submits``, and what it says of the images of a contest."""

    request: Request
    head: str
    submits: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole network's five likeliest of ImageNet's classes, for the first image of every class."""

    backbone: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """One line of a tutorial: what is run, and what the tutorial reports of it on validation and test ("" if nothing).

    A test split is scored only where the tutorial scored it.
    """

    label: str
    what: Cached | LivePlan | Whole
    validation: str = ""
    test: str = ""


def _scratch(augment: str | None = None) -> LivePlan:
    return LivePlan(
        "scratch", Request("vgg16", image_size=150), augment, hidden=(512,), dropout=0.0 if augment is None else 0.5,
        epochs=30, learning_rate=1e-3, options=_TWENTY,
    )  # fmt: skip


def _vgg(way: Literal["frozen", "finetune"], layer: str | None = None) -> LivePlan:
    return LivePlan(
        way, _VGG, "tutorial", layer=layer, dropout=0.0, epochs=30, learning_rate=2e-5,
        tuning_epochs=100, tuning_rate=1e-5, options=_TWENTY,
    )  # fmt: skip


RECIPES: Mapping[str, tuple[Experiment, ...]] = {
    "keras-guide-xception": (
        Experiment("from scratch", _scratch(), "0.72 to 0.75"),
        Experiment("from scratch, augmented", _scratch("keras-guide")),
        Experiment("Xception frozen, averaged, a linear head", Cached(_XCEPTION, "linear")),
    ),
    "resnet50-stack": (
        Experiment("top-5 of the whole network", Whole("resnet50")),
        Experiment("frozen, Dense 1024, 1024, 1024, 512", Cached(_RESNET, "stack")),
        Experiment(
            "then all of it at a small rate",
            LivePlan("finetune", _RESNET, layer="all", pooling="avg", hidden=(1024, 1024, 1024, 512), dropout=0.0,
                     optimizer="adam", epochs=5, learning_rate=1e-3, tuning_epochs=5, tuning_rate=1e-5),
        ),
    ),
    "chollet-vgg16": (
        Experiment("cached, Dense 256", Cached(_VGG, "chollet"), "0.903"),
        Experiment("frozen base, augmented", _vgg("frozen"), "0.892"),
        Experiment("fine-tuned from block5_conv1", _vgg("finetune", "block5_conv1"), "0.910", "0.919"),
    ),
    "chollet-r-vgg16": (
        Experiment("fine-tuned from block3_conv1", _vgg("finetune", "block3_conv1"), "", "0.965"),
    ),
    "kaggle-vgg16": (Experiment("cached, Dense 256; a submission", Cached(_VGG, "chollet", submits=True), "0.908"),),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where the experiments run: the data, the store, the folder for what is trained, and the shares of all of it."""

    data: Path
    store: Store
    out: Path
    scale: float = 1.0
    epoch_scale: float = 1.0
    weights: str = "imagenet"


def of_kaggle(dataset: Dataset) -> Dataset:
    """The first 1,500 images of each class that are in no test split, two thirds to train on and one to judge on."""
    usable = (dataset.labels >= 0) & (dataset.splits != SPLITS.index("test"))
    each = [np.flatnonzero(usable & (dataset.labels == label))[:_KAGGLE] for label in range(len(dataset.classes))]
    chosen = dataset.select(np.sort(np.concatenate(each)))
    return replace(chosen, splits=np.full(len(chosen), BY_DIGEST, np.int8), fractions=(2 / 3, 1 / 3, 0.0))


def part_of(dataset: Dataset, store: Store, scale: float) -> Dataset:
    """The same share of every split and class, as the files come."""
    if scale >= 1:
        return dataset
    splits = dataset.split_of(digest_all(dataset, store.scan_folder).values)
    kept = []
    for split in np.unique(splits):
        for label in np.unique(dataset.labels[splits == split]):
            here = np.flatnonzero((splits == split) & (dataset.labels == label))
            kept.append(here[: max(2, round(scale * len(here)))])
    return dataset.select(np.sort(np.concatenate(kept)))


def scaled(plan: LivePlan, scale: float) -> LivePlan:
    """The plan with that share of its epochs, one at least."""
    few = {name: max(1, round(min(1.0, scale) * getattr(plan, name))) for name in ("epochs", "tuning_epochs")}
    return replace(plan, **few)


def run(one: Experiment, dataset: Dataset, place: Place) -> dict[str, Any]:
    """What was trained and what came of it: "validation" and "test" are accuracies with their intervals."""
    if isinstance(one.what, Whole):
        return {"trained": _seen(one.what, dataset, place.weights)}
    if isinstance(one.what, Cached):
        found, trained = _cached(one.what, dataset, place)
        return {"validation": _told(found), "trained": trained}
    plan = scaled(one.what, place.epoch_scale)
    plan = replace(plan, request=replace(plan.request, weights=place.weights))
    live = train_live(
        dataset, plan, store=place.store, out=place.out, with_test=bool(one.test), progress=for_stream()
    )  # fmt: skip
    asked = sum(stage.epochs for stage in one.what.stages)
    found = {"validation": _told(live.held_out), "trained": f"{len(live.epoch_seconds)} of {asked} epochs"}
    return {**found, "test": _told(live.test)} if live.test else found


def _cached(what: Cached, dataset: Dataset, place: Place) -> tuple[Metrics, str]:
    bundles = place.out / "bundles" if what.submits else None
    _, compared = train_on(
        dataset,
        [replace(what.request, weights=place.weights)],
        [what.head],
        store=place.store,
        bundles=bundles,
        progress=for_stream(),
    )
    trained = "as published"
    contest = next((folder for name in ("test", "test1") if (folder := place.data / name).is_dir()), None)
    if compared.best.bundle and contest:
        done = submit_files(compared.best.bundle, [contest], store=place.store, progress=for_stream())
        write_sheet(done.to_csv(), place.out / "submission.csv", force=True)
        trained += f"; {counted(len(done.rows), 'line')} submitted"
    return compared.best.held_out, trained


def _seen(what: Whole, dataset: Dataset, weights: str) -> str:
    first = [int(np.flatnonzero(dataset.labels == label)[0]) for label in range(len(dataset.classes))]
    look = top5(dataset.select(first), what.backbone, weights, progress=for_stream())
    return "; ".join(f"{seen.path}: {', '.join(guess.name for guess in seen.classes)}" for seen in look.images)


def _told(found: Metrics) -> dict[str, Any]:
    return {"accuracy": found.accuracy.value, "interval": list(found.accuracy.interval)}


def rows(names: list[str], place: Place) -> Iterator[dict[str, Any]]:
    """A row for each experiment; one that cannot be run has its reason."""
    whole = open_dataset(str(place.data))
    for name in names:
        dataset = part_of(of_kaggle(whole) if name == "kaggle-vgg16" else whole, place.store, place.scale)
        splits = dataset.split_of(digest_all(dataset, place.store.scan_folder).values)
        counts = {f"{split}_images": int((splits == SPLITS.index(split)).sum()) for split in ("train", "validation")}
        for one in RECIPES[name]:
            published = {"validation": one.validation, "test": one.test}
            row: dict[str, Any] = {"recipe": name, "case": one.label, "published": published, **counts}
            started = time.perf_counter()
            try:
                found = run(one, dataset, place)
            except FeatstoreError as error:
                yield {**row, "problem": error.what}
                continue
            yield {**row, **found, "seconds": time.perf_counter() - started}


def table(found: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| recipe | experiment | published: validation | here | published: test | here | images | trained | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [row["recipe"], row["case"]]
        for split in ("validation", "test"):
            cells += [row["published"][split] or "–", _accuracy(row.get(split))]
        cells += [f"{row['train_images']:,} + {row['validation_images']:,}"]
        cells += [f"left out: {row['problem']}", "–"] if "problem" in row else [row["trained"], f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _accuracy(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['accuracy']:.3f} [{low:.3f}, {high:.3f}]"


def save(found: list[dict[str, Any]], about: dict[str, Any], results: Path = _RESULTS, docs: Path = _DOCS) -> None:
    """Put the rows into ``results`` and their table below the mark in ``docs``; other recipes' rows stay."""
    before = json.loads(results.read_text())["rows"] if results.exists() else []
    new = {row["recipe"] for row in found}
    kept = [row for row in before if row["recipe"] not in new] + found
    kept.sort(key=lambda row: list(RECIPES).index(row["recipe"]))
    results.write_text(json.dumps({**about, "rows": kept}, indent=2) + "\n")
    above, mark, _ = docs.read_text().partition(_TABLE)
    if not mark:
        raise SystemExit(f"{docs} has no line {_TABLE.strip()}")
    docs.write_text(f"{above}{mark}\n{table(kept)}\n")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", action="append", choices=list(RECIPES), help="may repeat (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images, and of the epochs")
    parser.add_argument("--epoch-scale", type=float, help="share of the epochs of networks (default: as --scale)")
    parser.add_argument("--weights", default="imagenet", help="as of `featstore extract`")
    parser.add_argument("--out", type=Path, default=Path("recipes"), help="what is trained goes here")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the rows, and write the table to docs/recipes.md")
    given = parser.parse_args()
    if given.save and given.weights != "imagenet":
        parser.error("only rows of ImageNet's weights are kept")
    epochs = given.scale if given.epoch_scale is None else given.epoch_scale
    place = Place(given.data, Store.open(default_store()), given.out, given.scale, epochs, given.weights)
    found = list(rows(given.recipe or list(RECIPES), place))
    host = machine.describe()
    about = {
        "benchmark": "recipes",
        "weights": given.weights,
        "machine": {"cpu": host.cpu, "cores": host.cores, "flags": host.flags},
    }
    if given.save:
        save(found, about)
    print(json.dumps({**about, "rows": found}, indent=2) if given.json else table(found))


if __name__ == "__main__":
    main()

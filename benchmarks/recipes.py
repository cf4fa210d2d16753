"""The well-known tutorials' experiments by name, on any labelled dataset, with the published figure beside ours.

    python benchmarks/recipes.py DATA [--recipe NAME …] [--scale 1.0] [--json]

--scale makes them fit the machine: that share of the images, and of the epochs of networks; each row says what was
really trained. The published figures are the tutorials', with their 2,000 training images, on validation unless they
say "test": another dataset or a smaller scale gives others. Without its weights a recipe is left out, with the reason.
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

sys.path.remove(str(Path(__file__).resolve().parent))  # there `heads` is a benchmark, not the package

from featstore import Dataset, Request, Store, open_dataset
from featstore.errors import FeatstoreError
from featstore.folders import default_store
from featstore.progress import for_stream
from featstore.scan import digest_all
from heads.compose import train_on
from heads.evaluation.metrics import Measure
from heads.live.plan import LiveOptions, LivePlan
from heads.live.run import train_live

_VGG = Request("vgg16", image_size=150, preprocessing="rescale", pooling="flatten")
_XCEPTION = Request("xception", image_size=150)
_RESNET = Request("resnet50", image_size=224)
_TWENTY = LiveOptions(batch_size=20)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One line of a tutorial: a head on cached features, or a network; and what the tutorial reports."""

    label: str
    published: str
    request: Request | None = None
    head: str = ""
    plan: LivePlan | None = None
    on: Literal["validation", "test"] = "validation"


def _scratch(augment: str | None = None) -> LivePlan:
    return LivePlan(
        "scratch", Request("vgg16", image_size=150), augment, hidden=(512,), dropout=0.0 if augment is None else 0.5,
        epochs=30, learning_rate=1e-3, options=_TWENTY,
    )  # fmt: skip


def _vgg(way: Literal["frozen", "finetune"], layer: str | None = None, tuning: int = 100) -> LivePlan:
    return LivePlan(
        way, _VGG, "tutorial", layer=layer, dropout=0.0, epochs=30, learning_rate=2e-5,
        tuning_epochs=tuning, tuning_rate=1e-5, options=_TWENTY,
    )  # fmt: skip


RECIPES: Mapping[str, tuple[Experiment, ...]] = {
    "keras-guide-xception": (
        Experiment("from scratch, 30 epochs", "0.72 to 0.75", plan=_scratch()),
        Experiment("from scratch, augmented", "–", plan=_scratch("keras-guide")),
        Experiment("Xception frozen, averaged, a linear head", "–", _XCEPTION, "linear"),
    ),
    "resnet50-stack": (
        Experiment("frozen, Dense 1024, 1024, 1024, 512", "–", _RESNET, "stack"),
        Experiment(
            "then all of it at a small rate", "–",
            plan=LivePlan("finetune", _RESNET, layer="all", pooling="avg", hidden=(1024, 1024, 1024, 512), dropout=0.0,
                          optimizer="adam", epochs=5, learning_rate=1e-3, tuning_epochs=5, tuning_rate=1e-5),
        ),
    ),
    "chollet-vgg16": (
        Experiment("cached, Dense 256", "0.903", _VGG, "chollet"),
        Experiment("frozen base, augmented", "0.892", plan=_vgg("frozen")),
        Experiment("fine-tuned from block5_conv1", "0.910; test 0.919", plan=_vgg("finetune", "block5_conv1")),
    ),
    "chollet-r-vgg16": (
        Experiment("fine-tuned from block3_conv1", "test 0.965", plan=_vgg("finetune", "block3_conv1"), on="test"),
    ),
    "kaggle-vgg16": (Experiment("cached, Dense 256", "0.908", _VGG, "chollet"),),
}  # fmt: skip


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
    """The plan with that share of its epochs."""
    few = {name: max(1, round(scale * getattr(plan, name))) for name in ("epochs", "tuning_epochs")}
    return replace(plan, **few)


def run(one: Experiment, dataset: Dataset, store: Store, out: Path, scale: float) -> dict[str, Any]:
    """Accuracy with its interval, and the seconds."""
    started = time.perf_counter()
    trained: str
    found: Measure
    if one.request is not None:
        _, compared = train_on(dataset, [one.request], [one.head], store=store, bundles=None, progress=for_stream())
        found, trained = compared.best.held_out.accuracy, "as published"
    else:
        plan = scaled(one.plan or _scratch(), min(1.0, scale))
        live = train_live(dataset, plan, store=store, out=out, with_test=one.on == "test", progress=for_stream())
        judged = live.test if one.on == "test" and live.test else live.held_out
        found, trained = judged.accuracy, f"{len(live.epoch_seconds)} epochs"
    seconds = time.perf_counter() - started
    return {"accuracy": found.value, "interval": list(found.interval), "trained": trained, "seconds": seconds}


def rows(
    names: list[str], data: str, store: Store, out: Path, scale: float, pattern: str | None
) -> Iterator[dict[str, Any]]:
    """A row for each experiment; one that cannot be run has its reason."""
    from featstore import DatasetOptions

    dataset = part_of(open_dataset(data, DatasetOptions(label_pattern=pattern)), store, scale)
    for name in names:
        for one in RECIPES[name]:
            row: dict[str, Any] = {"recipe": name, "case": one.label, "published": one.published, "on": one.on}
            try:
                yield {**row, "images": len(dataset), **run(one, dataset, store, out, scale)}
            except FeatstoreError as error:
                yield {**row, "problem": error.what}


def table(found: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = [
        "| recipe | experiment | published | here | on | images | trained | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        if "problem" in row:
            lines.append(
                f"| {row['recipe']} | {row['case']} | {row['published']} | – | {row['on']} | | {row['problem']} | |"
            )
            continue
        low, high = row["interval"]
        here = f"{row['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(
            f"| {row['recipe']} | {row['case']} | {row['published']} | {here} | {row['on']} | {row['images']} | "
            f"{row['trained']} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--recipe", action="append", choices=list(RECIPES), help="may repeat (default: all)")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--label-pattern", help="for a flat folder, as Kaggle's: '(?P<label>[a-z]+)'")
    parser.add_argument("--out", type=Path, default=Path("recipes"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names, store = given.recipe or list(RECIPES), Store.open(default_store())
    found = list(rows(names, given.data, store, given.out, given.scale, given.label_pattern))
    print(
        json.dumps({"benchmark": "recipes", "scale": given.scale, "rows": found}, indent=2)
        if given.json
        else table(found)
    )


if __name__ == "__main__":
    main()

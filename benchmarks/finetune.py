"""Fine-tuning on stored maps against fine-tuning through the whole base, epoch by epoch, interleaved in one run.

    python benchmarks/finetune.py DATA [--epochs 4] [--views 4] [--images N] [--json]

Both sides train VGG16 from block5_conv1 on and the tutorials' head, at 150 pixels in float32, from the same weights on
the same batches of the same views, and judge every epoch on the validation images, as Keras's ``fit`` does. Baseline:
every epoch decodes and augments the pictures, as the tutorials' generators do, and runs all of the base. Ours: maps of
block4_pool, K views an image, extracted once before (``seconds_before_the_first_epoch``, if they were not stored yet).

Same result: the losses of the first epoch agree within 1e-3.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import add_options, report, row

sys.path[:] = [path for path in sys.path if Path(path) != Path(__file__).resolve().parent]  # its `heads` is a benchmark

import featstore
from featstore import Request, Store, open_dataset
from featstore.backbone import GraphSpec
from featstore.folders import default_store
from featstore.job import resolve_jobs
from heads.live import run as live
from heads.live.batches import Pictures, Views
from heads.live.checkpoint import State
from heads.live.networks import HeadSpec, Network, on_base, unfreeze
from heads.live.plan import LiveOptions, LivePlan, Stage
from heads.live.splits import Splits
from heads.live.training import Run

_STAGE = Stage(1, 1e-5, unfreeze="block5_conv1")
_CLOSE = 1e-3


def _network(graph: GraphSpec, classes: int) -> Network:
    network = on_base(graph, HeadSpec(classes))
    unfreeze(network, _STAGE.unfreeze)
    return network


def _started(material: Any, views: Views, batch_size: int) -> Run:
    run = Run(material.model, material.train, material.held_out, views, LiveOptions(batch_size))
    run.compile(_STAGE)
    return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--images", type=int, help="training images, the first so many (default: all)")
    parser.add_argument("--store", type=Path)
    add_options(parser)
    given = parser.parse_args()
    dataset, store = open_dataset(given.data), Store.open(given.store or default_store())
    request = Request("vgg16", image_size=150, precision="float32", views=given.views)
    [job, *_] = resolve_jobs([request], store, dataset)
    pictures = Pictures(dataset, job.spec.pixels)
    splits = Splits.of(dataset, pictures)
    if given.images:
        splits = replace(splits, train=splits.train[np.linspace(0, len(splits.train) - 1, given.images).astype(int)])
    graph = GraphSpec(job.base, "block5_pool", (150, 150), "keras", "map", "float32")
    networks = [_network(graph, len(splits.labels)) for _ in range(2)]

    started = time.perf_counter()
    plan = LivePlan("finetune", request, on_maps=True, layer=_STAGE.unfreeze)
    maps, _ = live._maps(plan, networks[0], splits, store, featstore.progress.for_stream())
    preparing = time.perf_counter() - started
    from_files = Pictures(dataset, job.spec.pixels, keep=False)
    whole = live._live(LivePlan("finetune", request, augment="tutorial"), networks[1], splits, from_files)

    sides = [_started(material, Views(given.views), given.batch_size) for material in (maps, whole)]
    states = [State(), State()]
    for _ in range(given.epochs):
        for side, state in zip(sides, states, strict=True):
            side.epoch(state, lambda _: None)
    losses = np.array([[epoch[0] for epoch in state.curve] for state in states])
    held = np.array([[epoch[2] for epoch in state.curve] for state in states])
    same = bool(abs(losses[0, 0] - losses[1, 0]) <= _CLOSE)
    case = (
        f"an epoch of fine-tuning VGG16 from block5_conv1, {len(splits.train)} training and {len(splits.held_out)} "
        f"validation images at 150 px, {given.views} views, batches of {given.batch_size}: stored maps or all of it"
    )
    facts = {
        "losses": losses.tolist(),
        "held_out_losses": held.tolist(),
        "seconds_before_the_first_epoch": preparing,
    }
    # the first epoch of each side pays for TensorFlow's start
    ours, baseline = (state.seconds[1:] or state.seconds for state in states)
    report(
        "finetune",
        [row(case, ours, baseline, "s", same, **facts)],
        ("tensorflow", "keras"),
        as_json=given.json,
        save=given.save,
    )


if __name__ == "__main__":
    main()

"""The composer of the live path: a dataset → a network trained on its pictures, or on stored maps → a head and a base.

What comes out is what every head is: a bundle on the features of a base. Where the base itself was trained, it is put
back together and saved as a backbone of one's own: its predictions, exports and cached features are those of any other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import featstore
from featstore import machine, rates
from featstore.augmentation import parse_policy
from featstore.backbone import GraphSpec
from featstore.cached import CachedRows
from featstore.dataset import Dataset
from featstore.errors import DamageError
from featstore.job import resolve_jobs
from featstore.progress import Progress, silent
from featstore.show import size
from featstore.spec import PixelSpec
from featstore.store import Store
from featstore.table import read_tables
from featstore.wording import counted
from heads.live.batches import Batches, MapBatches, PictureBatches, Pictures, Views
from heads.live.keep import keep
from heads.live.networks import HeadSpec, Network, counts, on_base, scratch, shared_by, tail, unfreeze
from heads.live.plan import LivePlan, LiveResult
from heads.live.splits import Splits
from heads.live.training import Trained, train_network

SCRATCH_SIZE = 150
"""Pixels a side of the pictures of a network from scratch, if nothing else is asked for: the tutorials'."""


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """What is trained on what: ``model`` on ``train``, judged on ``held_out``.

    computed : pictures that go once through the frozen part for it. seconds : what that takes by the rate measured
        here, None if there is none.
    """

    model: Any
    train: Batches
    held_out: Batches
    views: Views
    computed: int = 0
    seconds: float | None = 0.0


def train_live(
    dataset: Dataset, plan: LivePlan, *, store: Store, out: Path, with_test: bool = True, progress: Progress = silent
) -> LiveResult:
    """Train what ``plan`` asks for on ``dataset``; killed, the same call goes on from the last epoch that was done.

    The bundle goes to ``out``/bundles, a trained base to ``out``/bases, checkpoints to ``out``/checkpoints.
    Raises InputError for a dataset without validation images or a layer that the base does not have, and what
    extraction, :func:`heads.live.training.train_network` and :func:`heads.live.keep.keep` raise.
    """
    started = time.perf_counter()
    graph, pixels = _graph(dataset, plan, store, progress)
    stages = plan.stages
    pictures = Pictures(dataset, pixels)
    splits = Splits.of(dataset, pictures, progress)
    with shared_by(plan.options.devices):
        network = _network(plan, graph, pixels, len(splits.labels))
        for stage in stages:  # a layer that does not exist is said before any work
            unfreeze(network, stage.unfreeze)
        if plan.on_maps:
            material, splits = _maps(plan, network, splits, store, progress)
        else:
            material = _live(plan, network, splits, pictures)
        key = _key(plan, graph, pixels, splits)
        checkpoint = out / "checkpoints" / f"{key[:32]}.npz"
        logs = plan.options.tensorboard
        options = replace(plan.options, tensorboard=logs / f"{plan.way}-{key[:12]}" if logs else None)
        trained = train_network(
            material.model, lambda stage: unfreeze(network, stage.unfreeze), stages, material.train, material.held_out,
            material.views, options, checkpoint=checkpoint, key=key, label=plan.name, progress=progress,
        )  # fmt: skip
    kept = keep(
        network, plan, splits, epochs=len(trained.seconds), store=store, out=out, with_test=with_test,
        progress=progress,
    )  # fmt: skip
    through_base = plan.way != "scratch" and not plan.on_maps
    validated = len(trained.seconds) * len(splits.held_out)
    trainable, total = counts(network)
    return LiveResult(
        name=plan.name,
        way=plan.way,
        probabilities=kept.probabilities,
        answers=dataset.labels[kept.judged],
        paths=tuple(dataset.paths[i] for i in kept.judged),
        held_out=kept.held_out,
        test=kept.test,
        curve=trained.curve,
        trainable=trainable,
        total=total,
        seconds=time.perf_counter() - started,
        epoch_seconds=trained.seconds,
        cut_short=trained.cut_short,
        base_seconds=material.seconds,
        base_images=material.computed + through_base * (trained.images + validated),
        peak_bytes=machine.peak_memory(),
        bytes=kept.bytes,
        bundle=kept.bundle,
        base=kept.base,
        notes=(*splits.notes, *_notes(trained, checkpoint)),
    )


def _notes(trained: Trained, checkpoint: Path) -> Iterator[str]:
    if trained.before:
        done = counted(trained.before, "epoch")
        yield f"{done} of {len(trained.seconds)} had been done before: the time in all is of this call alone"
    with suppress(OSError):
        bytes_of = checkpoint.stat().st_size
        yield f"{size(bytes_of)} more on disk that only the same call again would use: {checkpoint}"


def _graph(dataset: Dataset, plan: LivePlan, store: Store, progress: Progress) -> tuple[GraphSpec | None, PixelSpec]:
    """The base and the pictures that it takes; a network from scratch has no base, and takes any size."""
    request = plan.request
    if plan.way == "scratch":
        size = request.image_size or SCRATCH_SIZE
        return None, PixelSpec((size, size) if isinstance(size, int) else size, request.resize, request.fit)
    [job, *_] = resolve_jobs([request], store, dataset, progress)
    spec, layer = job.spec, job.base.layer(request.layer).name
    precision = "float32" if plan.on_maps else spec.precision
    return GraphSpec(job.base, layer, spec.image_size, spec.preprocessing, "map", precision), spec.pixels


def _network(plan: LivePlan, graph: GraphSpec | None, pixels: PixelSpec, classes: int) -> Network:
    head = HeadSpec(classes, plan.pooling, plan.hidden, plan.dropout, plan.options.seed)
    return scratch(pixels.image_size, head) if graph is None else on_base(graph, head)


def _live(plan: LivePlan, network: Network, splits: Splits, pictures: Pictures) -> _Material:
    policy = parse_policy(plan.augment) if plan.augment else None
    train, held_out = (
        PictureBatches(pictures, indices, splits.columns(indices), policy)
        for indices in (splits.train, splits.held_out)
    )
    return _Material(network.model, train, held_out, Views(fresh=policy is not None))


def _maps(
    plan: LivePlan, network: Network, splits: Splits, store: Store, progress: Progress
) -> tuple[_Material, Splits]:
    """The part that is trained, and the stored maps of the layer below it; the splits without images that have none."""
    layer = plan.stages[-1].unfreeze
    below, model = tail(network, layer) if layer is not None else (plan.request.layer, network.head)
    chosen = np.concatenate([splits.train, splits.held_out])
    dataset = splits.dataset.select(chosen)
    request = replace(plan.request, layer=below, pooling="map")
    done = featstore.extract(dataset, request, store=store, progress=progress)
    splits = splits.without(chosen[done.reasons[0] != 0])
    rows = CachedRows(store, done.jobs[0].spec, request.augmentation)
    shape = rows.feature_shape or ()
    computed = request.views * len(splits.train) + len(splits.held_out)
    stored = machine.is_large(4 * int(np.prod(shape)) * computed)
    tables = read_tables(dataset, done.digests, done.known, rows, views=request.views, stored=stored)
    batches: list[Batches] = []
    for name, indices in (("train", splits.train), ("validation", splits.held_out)):
        if tables[name].paths[: len(indices)] != tuple(splits.dataset.paths[i] for i in indices):
            raise DamageError("images have changed while they were read", where=dataset.name, todo="run it again")
        batches.append(MapBatches(tables[name], splits.columns(indices), shape))
    train, held_out = batches
    rate = rates.estimate(done.jobs[0], store) if rates.is_measured(done.jobs[0], store) else None
    seconds = computed / rate.images_per_second if rate else None
    return _Material(model, train, held_out, Views(request.views), computed, seconds), splits


def _key(plan: LivePlan, graph: GraphSpec | None, pixels: PixelSpec, splits: Splits) -> str:
    """SHA-256 (hex) of everything that the weights depend on; a checkpoint's name, so that no two share a file."""
    told = replace(plan, options=replace(plan.options, seconds=None, tensorboard=None, devices=()))
    base = f"{graph.key()} {graph.precision}" if graph else ""
    words = [repr(told), base, repr(pixels), repr(splits.labels.tolist())]
    hashed = hashlib.sha256("\n".join(words).encode("utf-8", "surrogateescape"))
    for indices in (splits.train, splits.held_out):
        hashed.update(splits.digests[indices].tobytes() + splits.dataset.labels[indices].tobytes())
    return hashed.hexdigest()

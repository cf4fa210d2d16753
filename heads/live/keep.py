"""What a trained network becomes: a base, saved if it was changed, and a bundle on its features, with its scores.

Scores are taken from the saved parts by the code that will predict with them, not from the network in memory.
"""

from __future__ import annotations

import platform
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

import featstore
from featstore.augmentation import parse_policy
from featstore.cached import CachedRows
from featstore.errors import InputError, from_os_error
from featstore.job import Request
from featstore.progress import Progress, silent
from featstore.store import Store
from featstore.versions import installed_versions
from featstore.weights import tensor_digest
from heads.bundles.bundle import write_bundle
from heads.bundles.card import Card, Origin
from heads.bundles.images import FittedImages, JudgedImages
from heads.evaluation.calibration import Calibration
from heads.evaluation.clip import fit_clip
from heads.evaluation.metrics import Metrics, measure
from heads.evaluation.scores import Trial, accuracy
from heads.kinds.dense import DenseHead
from heads.kinds.head import Labels, Params, softmax
from heads.live.networks import Network
from heads.live.plan import LivePlan
from heads.live.splits import Splits
from heads.training.fit import over_all_classes


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A saved head, its base if that was saved too, and what they say of validation images.

    judged : these images, int64 (M,) indices into the dataset; probabilities : float64 (M, C). held_out, test : scores.
    """

    bundle: Path
    base: Path | None
    judged: Labels
    probabilities: npt.NDArray[np.float64]
    held_out: Metrics
    test: Metrics | None

    @property
    def bytes(self) -> int:
        """On disk."""
        files = [*self.bundle.iterdir(), *([self.base] if self.base else [])]
        return sum(file.stat().st_size for file in files)


def save_base(network: Network, stem: str, folder: Path) -> Path:
    """The trunk as a ``.keras`` file named after its weights; one that is there already holds the same.

    Raises ReadOnlyError, NoSpaceError or StorageError.
    """
    target = folder / f"{stem}-{tensor_digest(network.trunk.get_weights())[:12]}.keras"
    if target.exists():
        return target
    temporary = folder / f".{target.stem}.tmp.keras"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras's advice on saving
            network.trunk.save(temporary)
        temporary.replace(target)
    except OSError as error:
        raise from_os_error(error, "save a base", target) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def head_of(network: Network) -> DenseHead:
    """The layers after the maps as plain arrays."""
    dense = [layer.get_weights() for layer in network.head.layers if layer.__class__.__name__ == "Dense"]
    weights, biases = [arrays[0] for arrays in dense], [arrays[1] for arrays in dense]
    if weights[-1].shape[1] == 1:
        weights[-1] = np.concatenate([np.zeros_like(weights[-1]), weights[-1]], axis=1)
        biases[-1] = np.concatenate([np.zeros_like(biases[-1]), biases[-1]])
    return DenseHead(tuple(weights), tuple(biases))


def keep(
    network: Network, plan: LivePlan, splits: Splits, *, epochs: int, store: Store, out: Path, with_test: bool,
    progress: Progress = silent,
) -> Kept:  # fmt: skip
    """Save what was trained into ``out``/bases and ``out``/bundles, and score it on validation, and on test if asked.

    Raises what extraction and :func:`heads.bundles.bundle.write_bundle` raise.
    """
    base, head = None, head_of(network)
    request = replace(plan.request, pooling=plan.pooling, views=1)
    if plan.way != "frozen":
        stem = plan.way if plan.way == "scratch" else f"{Path(plan.request.backbone).stem}-{plan.way}"
        base = save_base(network, stem, out / "bases").absolute()
        request = Request(
            str(base), image_size=network.trunk.input_shape[1:3], resize=plan.request.resize, fit=plan.request.fit,
            precision=plan.request.precision, pooling=plan.pooling, runtime=plan.request.runtime,
            device=plan.request.device,
        )  # fmt: skip
    dataset, seed = splits.dataset, plan.options.seed
    chosen = np.concatenate([splits.held_out, splits.test[: len(splits.test) * with_test]])
    done = featstore.extract(dataset.select(chosen), request, store=store, progress=progress)
    good = done.reasons[0] == 0  # what was trained may give numbers that are not finite
    if not good[: len(splits.held_out)].any():
        raise InputError(
            "the trained network gives no finite features of any validation image",
            where=plan.name,
            todo="try a lower learning rate, or --precision float32 --dtype float32",
        )
    held, chosen, digests = int(good[: len(splits.held_out)].sum()), chosen[good], done.digests[good]
    rows, answers = CachedRows(store, done.jobs[0].spec), dataset.labels[chosen]
    logits = head.logits(rows.read(digests).reshape(len(chosen), -1))
    probabilities = over_all_classes(softmax(logits), splits.labels, len(dataset.classes))
    held_out = measure(answers[:held], probabilities[:held], dataset.classes, seed=seed)
    test = measure(answers[held:], probabilities[held:], dataset.classes, seed=seed) if len(chosen) > held else None
    params: Params = {"hidden": plan.hidden, "dropout": plan.dropout, "epochs": epochs}
    policy = plan.request.augmentation if plan.on_maps else plan.augment and parse_policy(plan.augment).to_text()
    card = Card(
        kind=plan.way,
        params=params,
        seed=seed,
        balanced=plan.options.balanced,
        specs=(done.jobs[0].spec,),
        origins=(Origin(str(base)) if base else Origin(plan.request.backbone, plan.request.weights),),
        widths=(head.width,),
        classes=tuple(dataset.classes[label] for label in splits.labels),
        calibration=Calibration(),
        clip=fit_clip(probabilities[:held], answers[:held]),
        trials=(Trial(params, accuracy(answers[:held], probabilities[:held].argmax(axis=1))),),
        chosen_on="validation",
        held_out=held_out,
        test=test,
        fitted_on=("train",),
        augmentation=policy,
        views=plan.request.views if plan.on_maps else 0 if plan.augment else 1,
        rows=len(splits.train),
        rows_digest=splits.rows_digest,
        snapshot=rows.names,
        versions={**installed_versions(), "python": platform.python_version()},
    )
    fitted = FittedImages.of(splits.digests[splits.train], splits.columns(splits.train))
    judged = JudgedImages.of(digests[:held], answers[:held], probabilities[:held])
    bundle = write_bundle(out / "bundles", card, head, fitted, judged)
    return Kept(bundle, base, chosen[:held], probabilities[:held], held_out, test)

"""What a network is trained on and how, and what came of it: plain data around the live path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from featstore.errors import InputError
from featstore.job import Request
from featstore.spec import Pooling
from heads.evaluation.metrics import Metrics
from heads.kinds.head import Labels
from heads.kinds.problem import Curve


@dataclass(frozen=True, slots=True)
class Stage:
    """Epochs with the same layers in training.

    unfreeze : the first layer of the base that is trained as well, "all", or None for the head alone.
    """

    epochs: int
    learning_rate: float
    optimizer: Literal["adam", "rmsprop"] = "rmsprop"
    unfreeze: str | None = None


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a network is trained.

    patience : epochs of a stage without a better held-out loss after which it ends, with the best epoch's weights; 0
        trains all epochs and keeps the last weights.
    balanced : weigh images inversely to the size of their class.
    seconds : begin no epoch that would probably end later than so much training, the stages sharing it by their epochs;
        None trains them all. Every stage has at least one.
    tensorboard : a folder for TensorBoard's logs, None writes none.
    devices : TensorFlow's names of those that share every batch, such as GPU:0; fewer than two train on its default
        one. They round differently, and each epoch leaves out the images that cannot be shared evenly.
    """

    batch_size: int = 20
    patience: int = 0
    balanced: bool = False
    seed: int = 0
    seconds: float | None = None
    tensorboard: Path | None = None
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse batches that cannot be shared evenly; raises InputError."""
        shares = max(1, len(self.devices))
        if self.batch_size % shares:
            raise InputError(
                f"a batch cannot be shared evenly by {shares} devices",
                where="--batch-size",
                expected=f"a multiple of {shares}",
                received=self.batch_size,
                todo=f"take {-(-self.batch_size // shares) * shares}",
            )


Way = Literal["scratch", "frozen", "finetune"]
"""What is trained: a small network from nothing, a head on a frozen base, or a head and then the base's last layers."""

LAST_BLOCKS: Mapping[str, str] = {
    "vgg16": "block5_conv1",
    "vgg19": "block5_conv1",
    "xception": "block14_sepconv1",
    "resnet50": "conv5_block3_1_conv",
}
"""Where fine-tuning begins if nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class LivePlan:
    """What to train and how.

    request : the base and its pictures; with ``on_maps``, of its ``views`` of each training image.
    augment : the policy by which every epoch sees new views of the pictures, None for the pictures as they are.
    on_maps : do not run the frozen part in every epoch, but once for each of the views, and train on its stored maps.
    layer : the first layer that fine-tuning trains, "all" for the whole base; None is the last block.
    epochs, learning_rate : of the head (of a network from scratch, of all); then fine-tuning adds ``tuning_epochs`` at
        ``tuning_rate``.
    """

    way: Way
    request: Request
    augment: str | None = None
    on_maps: bool = False
    layer: str | None = None
    pooling: Pooling = "flatten"
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.5
    optimizer: Literal["adam", "rmsprop"] = "rmsprop"
    epochs: int = 10
    learning_rate: float = 1e-4
    tuning_epochs: int = 10
    tuning_rate: float = 1e-5
    options: LiveOptions = field(default_factory=LiveOptions)

    def __post_init__(self) -> None:
        """Refuse what does not go together; raises InputError."""
        problems = []
        if self.on_maps and self.augment is not None:
            problems.append("new views in every epoch cannot be stored: take --views K, or train on the pictures")
        if self.on_maps and (self.way == "scratch" or self.layer == "all"):
            problems.append("nothing is frozen here that could be stored")
        if self.request.precision == "int8":
            problems.append("int8 is for cached features: a network is not trained in it")
        if self.layer is not None and self.way != "finetune":
            problems.append(f"{self.way} does not train layers of the base")
        for name in ("learning_rate", "tuning_rate"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and rate > 0):
                raise InputError(
                    "this is no learning rate", where=f"--{name.replace('_', '-')}", expected="a number above 0",
                    received=rate,
                )  # fmt: skip
        if problems:
            raise InputError("these options do not go together", received="; ".join(problems))

    @property
    def name(self) -> str:
        """In words: ``vgg16 finetune from block5_conv1 on maps of 4 views``."""
        base = "" if self.way == "scratch" else f"{Path(self.request.backbone).stem} "
        start = f" from {self.stages[-1].unfreeze}" if self.way == "finetune" else ""
        views = f"{self.request.views} views" if self.request.views > 1 else "the images"
        seen = f" on maps of {views}" if self.on_maps else ", augmented" if self.augment else ""
        return f"{base}{self.way}{start}{seen}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The epochs in their order; raises InputError if nobody knows where fine-tuning of this base begins."""
        if self.way == "scratch":
            return (Stage(self.epochs, self.learning_rate, self.optimizer, "all"),)
        first = Stage(self.epochs, self.learning_rate, self.optimizer)
        if self.way == "frozen":
            return (first,)
        layer = self.layer or LAST_BLOCKS.get(self.request.backbone)
        if layer is None:
            raise InputError(
                f"where does fine-tuning of {self.request.backbone} begin?",
                where="--from",
                expected="the name of one of its layers, or all",
                todo="--from ? lists them",
            )
        return (first, Stage(self.tuning_epochs, self.tuning_rate, self.optimizer, layer))


@dataclass(frozen=True, slots=True, eq=False)
class LiveResult:
    """A network that was trained.

    probabilities, answers, paths : float64 (M, C), int64 (M,) and names of the validation images, by the saved parts.
    held_out, test : the metrics of these, and on the test split; None where there is none or it was not asked for.
    trainable, total : numbers in training in the last stage, and all of them.
    seconds : wall time of all; epoch_seconds : of each epoch. cut_short : whether epochs are missing for want of time.
    base_seconds : running the frozen part once over what is stored of it, by its measured rate; None if not measured.
    base_images : pictures that go through the base, or the frozen part of it, if nothing is in the store yet.
    peak_bytes : the most memory that this process has held. bytes : of what was saved.
    bundle : the saved head; base : the saved base, None if it is the one that was asked for.
    notes : what was left out, what an earlier call had done, what else lies on the disk.
    """

    name: str
    way: str
    probabilities: npt.NDArray[np.float64]
    answers: Labels
    paths: tuple[str, ...]
    held_out: Metrics
    test: Metrics | None
    curve: Curve
    trainable: int
    total: int
    seconds: float
    epoch_seconds: tuple[float, ...]
    cut_short: bool
    base_seconds: float | None
    base_images: int
    peak_bytes: int
    bytes: int
    bundle: Path
    base: Path | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that ``featstore live --json`` prints."""
        return {
            "name": self.name,
            "way": self.way,
            "held_out": self.held_out.to_json(),
            "test": self.test.to_json() if self.test else None,
            "curve": {name: list(values) for name, values in asdict(self.curve).items()},
            "trainable": self.trainable,
            "total": self.total,
            "seconds": round(self.seconds, 3),
            "epoch_seconds": [round(seconds, 3) for seconds in self.epoch_seconds],
            "cut_short": self.cut_short,
            "base_seconds": self.base_seconds,
            "base_images": self.base_images,
            "peak_bytes": self.peak_bytes,
            "bytes": self.bytes,
            "bundle": str(self.bundle),
            "base": str(self.base) if self.base else None,
            "notes": list(self.notes),
        }

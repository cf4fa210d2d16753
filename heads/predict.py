"""Predict with a bundle: from features to named classes and their probabilities, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featstore.errors import InputError
from featstore.records import Reason
from featstore.spec import Spec
from featstore.wording import printable
from heads.bundles.bundle import Bundle

if TYPE_CHECKING:
    from featstore.features import Features


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a head says about one image.

    label : the likeliest class; None if the image has no features, ``reason`` then says why.
    probabilities : those of ``classes``, in that order; empty without features.
    """

    path: str
    label: str | None
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    reason: Reason
    from_cache: bool

    def top(self, count: int) -> list[tuple[str, float]]:
        """The ``count`` likeliest classes with their probabilities, best first; nothing without features."""
        pairs = zip(self.classes, self.probabilities, strict=False)
        return sorted(pairs, key=lambda pair: pair[1], reverse=True)[:count]

    def to_json(self) -> dict[str, Any]:
        """``{"path", "label", "probabilities": {class: p}, "from_cache", "rejected": null or the reason's code}``."""
        return {
            "path": printable(self.path),
            "label": self.label,
            "probabilities": dict(zip(self.classes, self.probabilities, strict=False)),
            "from_cache": self.from_cache,
            "rejected": self.reason.code if self.reason else None,
        }


def predict(
    bundle: Bundle, paths: Sequence[str], features: Features, specs: tuple[Spec, ...]
) -> tuple[Prediction, ...]:
    """A prediction for each of the N images ``paths``, whose ``features`` were made with ``specs``.

    Raises InputError if those are not the specs of the bundle: other features would give confident nonsense.
    """
    lengths = (len(paths), len(features.values), len(features.reasons), len(features.cached))
    if len(set(lengths)) != 1:
        raise InputError("paths and features do not belong together", expected="one length", received=lengths)
    bundle.check_specs(specs)
    usable = [i for i, reason in enumerate(features.reasons) if reason is Reason.OK]
    rows = dict(zip(usable, bundle.probabilities(features.values[usable]), strict=True)) if usable else {}
    classes = bundle.card.classes
    return tuple(
        Prediction(
            path=path,
            label=classes[int(np.argmax(rows[i]))] if i in rows else None,
            classes=classes,
            probabilities=tuple(rows[i].tolist()) if i in rows else (),
            reason=features.reasons[i],
            from_cache=bool(features.cached[i]),
        )
        for i, path in enumerate(paths)
    )

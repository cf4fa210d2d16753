"""A head, told in full: its scores, what it confuses, how sure it may be, and its worst mistakes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from featstore.wording import printable
from heads.bundles.bundle import Bundle
from heads.evaluation.metrics import Metrics
from heads.evaluation.reliability import Reliability
from heads.report.gather import most_confused
from heads.service.answers import Confusion, HeadAbout, HeadDetails, MistakeAbout, ReliabilityBins

MOST_CLASSES = 12
"""Classes of a confusion matrix."""

MOST_MISTAKES = 24

_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "brier", "ece")


def about(name: str, bundle: Bundle) -> HeadAbout:
    """A line of the leaderboard."""
    card = bundle.card
    return HeadAbout(
        name=name,
        backbone=printable("+".join(origin.backbone for origin in card.origins)),
        head=card.kind,
        classes=[printable(one) for one in card.classes],
        held_out_accuracy=card.held_out.accuracy.value,
        test_accuracy=card.test.accuracy.value if card.test else None,
    )


def details(name: str, bundle: Bundle) -> HeadDetails:
    """All of it."""
    card, judged = bundle.card, bundle.judged
    names = [printable(one.name) for one in card.held_out.per_class]
    right = judged.said == judged.truth
    bins = Reliability.of(judged.confidence, right)
    return HeadDetails(
        name=name,
        head=card.kind,
        params=dict(card.params),
        features=[json.loads(spec.to_json()) for spec in card.specs],
        chosen_on=card.chosen_on,
        settings_tried=len(card.trials),
        fitted_on=list(card.fitted_on),
        images=card.rows,
        calibration=card.calibration.method,
        held_out=_measures(card.held_out),
        test=_measures(card.test) if card.test else None,
        confusion=_confusion(card.held_out, names),
        reliability=ReliabilityBins(
            confidence=bins.confidence.tolist(), accuracy=bins.accuracy.tolist(), counts=bins.counts.tolist()
        ),
        mistakes=[
            MistakeAbout(
                digest=judged.digests[row].tobytes().hex(),
                truth=names[judged.truth[row]],
                of_truth=float(judged.of_truth[row]),
                said=names[judged.said[row]],
                confidence=float(judged.confidence[row]),
            )
            for row in judged.worst(MOST_MISTAKES)
        ],
        all_mistakes=int((~right).sum()),
    )


def _measures(metrics: Metrics) -> dict[str, Any]:
    """Without what grows with the classes."""
    found = {name: getattr(metrics, name) for name in _MEASURES}
    return {"images": metrics.n, **{name: asdict(value) for name, value in found.items() if value is not None}}


def _confusion(metrics: Metrics, names: list[str]) -> Confusion:
    chosen = most_confused(metrics.confusion, MOST_CLASSES)
    return Confusion(
        classes=[names[i] for i in chosen],
        counts=[[metrics.confusion[i][j] for j in chosen] for i in chosen],
        more_classes=len(names) - len(chosen),
    )

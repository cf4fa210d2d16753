"""Which ways to a classifier are compared, on which images, and with what budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from featstore.dataset import DatasetOptions
from featstore.errors import InputError
from featstore.job import Request
from heads.live.plan import LivePlan


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a classifier. ``head`` is trained on cached features of ``plan``'s request, or, if None, ``plan`` is
    carried out. ``weight`` : its share of a budget, compared with other networks.
    """

    name: str
    plan: LivePlan
    head: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Contest:
    """What is compared on the images at ``data``.

    views : K of the cached views. limit : of training images, for a quick look (half as many to validate on).
    minutes : the budget of everything together; None is as long as it takes. seeds : how often each way is run.
    """

    data: str
    dataset: DatasetOptions
    request: Request
    layer: str | None = None
    views: int = 4
    augment: str = "tutorial"
    epochs: int = 10
    scratch_epochs: int = 30
    seeds: int = 1
    minutes: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError for a budget that is no time."""
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise InputError("this is no budget", where="--budget", expected="minutes, above 0", received=self.minutes)

    @property
    def ways(self) -> tuple[Way, ...]:
        """The cheapest first; of several numbers of views the powers of two, and the most."""
        plain, many = replace(self.request, views=1), replace(self.request, views=self.views, augment=self.augment)
        counts = sorted({*(2**power for power in range(1, 11) if 2**power < self.views), self.views} - {1})
        cached = [
            self._cached("cached, logreg", plain, "logreg"),
            self._cached("cached, dense", plain, "dense"),
            *(self._cached(f"cached, {k} views, logreg", replace(many, views=k), "logreg") for k in counts),
            *(self._cached(f"cached, {k} views, dense", many, "dense") for k in counts[-1:]),
        ]
        frozen = LivePlan("frozen", plain, self.augment, epochs=self.epochs)
        tuned = LivePlan(
            "finetune", plain, self.augment, layer=self.layer, epochs=self.epochs, tuning_epochs=self.epochs
        )
        scratch = LivePlan("scratch", plain, hidden=(512,), epochs=self.scratch_epochs, learning_rate=1e-3)
        seen = f"maps of {self.views} views" if self.views > 1 else "maps"
        return (
            *cached,
            Way("frozen base, augmented", frozen, weight=2.0),
            Way(f"fine-tuned, {seen}", replace(tuned, request=many, augment=None, on_maps=True), weight=1.5),
            Way("from scratch", scratch),
            Way("from scratch, augmented", replace(scratch, augment=self.augment)),
            Way("fine-tuned, augmented", tuned, weight=3.0),
        )

    def _cached(self, name: str, request: Request, head: str) -> Way:
        return Way(name, LivePlan("frozen", request), head)

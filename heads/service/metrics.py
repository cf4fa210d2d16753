"""What is counted: for Prometheus, and for the page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from heads.service.heads import ServedHeads

OUTCOMES = ("cached", "computed", "rejected")
"""What becomes of a picture."""


class Metrics:
    """Counters of one service, from its beginning on."""

    def __init__(self, served: ServedHeads) -> None:
        self._registry = CollectorRegistry()
        self._pictures = Counter("featstore_pictures", "Pictures answered.", ["outcome"], registry=self._registry)
        self.busy = Counter(
            "featstore_refused", "Requests refused because too much waited for a base.", registry=self._registry
        )
        self.seconds = Histogram("featstore_answer_seconds", "Seconds of an answer.", registry=self._registry)
        waiting = Gauge("featstore_waiting", "Pictures that wait for a base.", registry=self._registry)
        waiting.set_function(lambda: sum(rows.waiting for rows in served.rows.values()))
        self._counters = {outcome: self._pictures.labels(outcome) for outcome in OUTCOMES}

    def count(self, *, rejected: bool, from_cache: bool) -> None:
        """Note one picture."""
        self._counters["rejected" if rejected else "cached" if from_cache else "computed"].inc()

    @property
    def answered(self) -> dict[str, int]:
        """Pictures by what became of them."""
        values = {
            sample.labels["outcome"]: int(sample.value)
            for metric in self._pictures.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
        return {outcome: values[outcome] for outcome in OUTCOMES}

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self._registry)

"""What a run asks of an engine, for the tests of engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import featstore
from featstore import Request, Store
from featstore.extraction.engine import Tally, Work
from featstore.extraction.missing import Missing
from featstore.job import resolve_jobs


def work_on(photos: Path | str | Sequence[Path], store: Path, *names: str, **settings: Any) -> Work:
    """All of ``photos`` for the bases called ``names``, of 32 pixels unless said otherwise; into a new store."""
    opened, dataset = Store.open(store, create=True), featstore.open_dataset(photos)
    requests = [Request(name, **{"image_size": 32, **settings}) for name in names or ("vgg16",)]
    jobs = resolve_jobs(requests, opened, dataset)
    missing = [Missing(job, opened) for job in jobs]
    return Work(dataset, range(len(dataset)), missing, opened, 1, None, [Tally() for _ in jobs])

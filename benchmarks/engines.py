"""The engines: extraction by a Ray cluster against that by this process, on the same cores.

    python benchmarks/engines.py DATA [--case vgg16:150] [--images N] [--nodes 2] [--repeats 3] [--json | --save]

A cluster of ``--nodes`` nodes runs on this machine, which share its cores out. Both engines start from an empty store
in every repeat. A rate is of rows once it runs: from when a fifth of them is computed until all are committed.

Same result: every row of both is the same to the bit.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cases import Case, copied

# isort: split
import numpy as np
from harness import add_options, report, row

import featstore
from featstore import machine
from featstore.extraction import local, on_ray
from featstore.extraction.engine import Engine, Tally, Work
from featstore.extraction.missing import Missing

_STARTED = 0.2


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """The address of a Ray cluster on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    cores = max(1, machine.describe().cores // nodes)
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "object_store_memory": 2**30})
    for _ in range(nodes - 1):
        running.add_node(num_cpus=cores, object_store_memory=2**30)
    try:
        yield running.address
    finally:
        ray.shutdown()
        running.shutdown()


def timed(engine: Engine, case: Case, images: featstore.Dataset, folder: Path) -> tuple[float, np.ndarray]:
    """Rows a second of a run into an empty store, and the rows (N, D) in the order of splits and images."""
    job = case.job(images)
    with tempfile.TemporaryDirectory() as place:
        store = featstore.Store.open(place, create=True)
        dataset, tally = featstore.open_dataset(folder), Tally()
        began = None
        for _ in engine(Work(dataset, range(len(dataset)), [Missing(job, store)], store, 2, None, [tally])):
            if began is None and tally.computed >= _STARTED * len(dataset):
                began = tally.computed, time.perf_counter()
        ended = time.perf_counter()
        if began is None:
            raise SystemExit("too few images for a rate")
        rate = (tally.computed - began[0]) / (ended - began[1])
        tables = featstore.load_tables(dataset, job.spec, store=store)
        return rate, np.concatenate([table.X for _, table in sorted(tables.items())])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--case", default="vgg16:150", help="BACKBONE:SIZE")
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    given = parser.parse_args()
    case, images = Case.of(given.case), featstore.open_dataset(given.data)
    rates: dict[str, list[float]] = {"ray": [], "local": []}
    rows: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as place, cluster(given.nodes) as address:
        folder = copied(images, given.images, Path(place))
        engines: dict[str, Engine] = {"ray": partial(on_ray.compute, address=address), "local": local.compute}
        for _ in range(given.repeats):
            for name, engine in engines.items():
                rate, rows[name] = timed(engine, case, images, folder)
                rates[name].append(rate)
    same = rows["ray"].tobytes() == rows["local"].tobytes()
    about = f"{case.name}: a Ray cluster of {given.nodes} nodes, against this process"
    found = [row(about, rates["ray"], rates["local"], "images/s", same)]
    report("engines", found, ("ray", "openvino", "numpy"), as_json=given.json, save=given.save)


if __name__ == "__main__":
    main()

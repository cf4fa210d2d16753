"""Fixtures for the store: a spec, a store in a temporary folder, and rows to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from featstore.records import Reason
from featstore.spec import Spec
from featstore.store import Damage, Namespace, Rows, Store
from featstore.store.rows import stamp_of

MakeRows = Callable[..., Rows]


@pytest.fixture
def spec() -> Spec:
    return Spec("vgg16", "ab" * 32, "block5_pool", (150, 150))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def namespace(store: Store, spec: Spec) -> Namespace:
    return store.namespace(spec)


@pytest.fixture(scope="session")
def make_rows() -> MakeRows:
    """Rows of random features: ``rejects`` are the places of the rejected ones."""

    def make(
        count: int, seed: int = 0, shape: tuple[int, ...] = (4,), dtype: str = "float32", rejects: Iterable[int] = ()
    ) -> Rows:
        random = np.random.default_rng(seed)
        rejects = list(rejects)
        status = np.zeros(count, np.uint8)
        status[rejects] = Reason.TRUNCATED
        features = random.random((count, *shape)).astype(dtype)
        features[rejects] = 0
        return Rows(
            digests=random.integers(0, 256, (count, 32), dtype=np.uint8),
            views=np.zeros(count, np.uint16),
            status=status,
            features=None if len(rejects) == count else features,
        )

    return make


@pytest.fixture(scope="session")
def write() -> Callable[[Namespace, Rows], None]:
    """Commit rows as one segment."""

    def put(namespace: Namespace, rows: Rows) -> None:
        with namespace.writer({"featstore": "test"}) as writer:
            for i in range(len(rows)):
                if rows.status[i]:
                    writer.reject(rows.digests[i].tobytes(), int(rows.views[i]), Reason(int(rows.status[i])))
                elif rows.features is not None:
                    writer.add(rows.digests[i].tobytes(), int(rows.views[i]), rows.features[i])

    return put


@pytest.fixture(scope="session")
def set_aside() -> Callable[[Namespace, Path], None]:
    """Have a segment set aside as it is, sound or not."""

    def move(namespace: Namespace, path: Path) -> None:
        namespace.quarantine(Damage(path, "for a test", stamp_of(path.lstat())))

    return move


@pytest.fixture
def segment_path(namespace: Namespace, make_rows: MakeRows, write: Callable[[Namespace, Rows], None]) -> Path:
    """A store with one segment of 8 rows, the last of them a reject: the segment's file."""
    write(namespace, make_rows(8, rejects=[7]))
    [path] = (namespace.path / "seg").iterdir()
    return path

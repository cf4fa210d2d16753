"""The readers of docs/LARGE.md, run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featstore
from featstore.store.export import export
from tests.commands import ROOT
from tests.pictures import class_folders
from tests.reliability.campaign import FULL
from tests.stubs import put_in_place

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SNIPPETS = _BLOCK.findall((ROOT / "docs" / "LARGE.md").read_text())

by_campaign = pytest.mark.skipif(not FULL, reason="starts a cluster or other processes: a part of the whole campaign")


def snippet(*words: str) -> str:
    """The one snippet that has all these words."""
    [found] = [text for text in SNIPPETS if all(word in text for word in words)]
    return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the readers ask for: 120 rows, by their exact spec, which needs no weights in any process."""
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        photos = class_folders(folder / "photos", ("train", "validation"), count=60)
        [job] = featstore.extract(photos, store=folder / "store").jobs
        yield {"data": photos, "backbone": job.spec, "store": folder / "store", "split": "train"}


@pytest.fixture
def rows(asked: dict[str, Any]) -> np.ndarray:
    """Features and label of every row to train on."""
    table = featstore.load_table(**asked)
    return ordered(table.X, table.y)


def ordered(X: Any, y: Any) -> np.ndarray:
    both = np.column_stack([np.asarray(X), np.asarray(y)])
    return both[np.lexsort(both.T)]


def ran(code: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The names that a snippet leaves behind; where it says which data, ours are taken."""
    names: dict[str, Any] = {"__name__": "reader", "asked": asked, "features": Path("features").absolute()}
    exec(re.sub(r"^(asked|features) = .*\n", "", code, flags=re.MULTILINE), names)
    return names


def test_every_reader_of_the_page_has_ten_lines_or_so_and_a_test() -> None:
    assert len(SNIPPETS) == 6
    assert max(len([line for line in text.splitlines() if line.strip()]) for text in SNIPPETS) <= 14


def test_scikit_learn(asked: dict[str, Any], rows: np.ndarray) -> None:
    names = ran(snippet("partial_fit"), asked)
    assert len(names["model"].classes_) == 2
    assert names["model"].t_ == 3 * len(rows) + 1


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_tensorflow(asked: dict[str, Any], rows: np.ndarray) -> None:
    names = ran(snippet("from_generator"), asked)
    one, two = ([np.concatenate(part) for part in zip(*names["rows"].as_numpy_iterator(), strict=True)] for _ in "12")
    np.testing.assert_array_equal(ordered(*one), rows)
    np.testing.assert_array_equal(ordered(*two), rows)
    assert not np.array_equal(one[0], two[0]), "another epoch"


@by_campaign
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of more workers than cores
@pytest.mark.parametrize("workers", [0, 2, 3])
def test_pytorch(asked: dict[str, Any], rows: np.ndarray, workers: int) -> None:
    pytest.importorskip("torch")
    names = ran(snippet("IterableDataset"), asked)
    loader = names["DataLoader"](names["rows"], batch_size=None, num_workers=workers)
    batches = list(loader)
    assert str(batches[0][0].dtype) == "torch.float32"
    np.testing.assert_array_equal(ordered(*(np.concatenate(part) for part in zip(*batches, strict=True))), rows)


@pytest.fixture
def exported(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of Parquet files, where the readers look for it."""
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    export(featstore.load_tables(asked["data"], asked["backbone"], store=asked["store"], stored=True), "features/")


@pytest.mark.usefixtures("exported")
def test_pandas(asked: dict[str, Any], rows: np.ndarray) -> None:
    pytest.importorskip("pandas")
    names = ran(snippet("pandas"), asked)
    np.testing.assert_array_equal(ordered(names["X"], names["y"]), rows)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}
    )
    yield
    ray.shutdown()


@by_campaign
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.usefixtures("exported", "cluster")
@pytest.mark.parametrize("source", ["read_parquet", "map_batches"])
def test_ray(asked: dict[str, Any], rows: np.ndarray, source: str) -> None:
    names = ran(snippet("ray.data", source), asked)
    batches = list(names["train"].iter_batches(batch_size=None))
    X, y = (np.concatenate([np.stack(batch[name]) for batch in batches]) for name in ("features", "label_index"))
    np.testing.assert_array_equal(ordered(X, y), rows)

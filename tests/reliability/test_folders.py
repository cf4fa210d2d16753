"""A folder of pictures as a state machine: whatever happens to its files and its store, a table has the features of the
bytes that are there now, and nothing is computed that the store has.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import featstore
from featstore.garbage import collect
from featstore.store import Store, compact, verify
from tests.pictures import pixels, png
from tests.reliability.campaign import amount, run_machine
from tests.reliability.test_properties import Dying, Killed
from tests.stubs import put_in_place

_SIZE = 32
_PICTURES = st.integers(0, 15)
_NAMES = st.sampled_from([f"{folder}/{number}.png" for folder in ("cats", "dogs") for number in range(6)])


def features(picture: int) -> np.ndarray:
    """What the stub base makes of it, float32 (D,)."""
    values = pixels(picture, _SIZE).astype(np.float32)[None]
    return np.concatenate([values.mean(axis=(1, 2)), values.std(axis=(1, 2))], axis=1)[0]


class FolderMachine(RuleBasedStateMachine):
    """``files`` maps a name to its picture; ``certain`` pictures have rows in the store, ``possible`` ones may have.
    ``happened`` counts what was done, in all runs together.
    """

    happened: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.folder, self.store = self.place / "pictures", self.place / "store"
        self.files: dict[str, int] = {}
        self.certain: set[int] = set()
        self.possible: set[int] = set()
        self.patch = pytest.MonkeyPatch()
        self.bases = put_in_place(self.patch)
        self.patch.setattr("featstore.store.writer.ROWS_PER_COMMIT", 3)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.place)

    @rule(name=_NAMES, picture=_PICTURES)
    def add_or_edit(self, name: str, picture: int) -> None:
        self._file(name).write_bytes(png(picture, _SIZE))
        self.happened["edits"] += name in self.files and self.files[name] != picture
        self.files[name] = picture

    @precondition(lambda self: self.files)
    @rule(name=_NAMES, data=st.data())
    def copy(self, name: str, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.files)))
        if source != name:
            shutil.copy2(self._file(source), self._file(name))  # with its times
            self.files[name] = self.files[source]
            self.happened["copies"] += 1

    @precondition(lambda self: self.files)
    @rule(name=_NAMES, data=st.data())
    def rename(self, name: str, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.files)))
        self._file(source).rename(self._file(name))
        self.files[name] = self.files.pop(source)
        self.happened["renames"] += name != source

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.files)))
        self._file(name).unlink()
        del self.files[name]

    @precondition(lambda self: self.files)
    @rule()
    def extract(self) -> None:
        before, there = self.bases.computed, set(self.files.values())
        featstore.extract(self.folder, self._request, store=self.store)
        computed = self.bases.computed - before
        self.happened["extractions with rows that were there"] += bool(there & self.certain)
        assert len(there - self.certain - self.possible) <= computed <= len(there - self.certain)
        self.certain |= there
        self.possible -= there
        tables = featstore.load_tables(self.folder, self._request, store=self.store).values()
        assert sorted(path for table in tables for path in table.ids) == sorted(self.files)
        for table in tables:
            for path, row in zip(table.ids, table.X, strict=True):
                assert row.tobytes() == features(self.files[path]).tobytes()

    @precondition(lambda self: self.files)
    @rule(at=st.integers(0, 60))
    def extract_and_be_killed(self, at: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            Dying(patch, self.store, at=at)
            try:
                featstore.extract(self.folder, self._request, store=self.store)
            except Killed:
                self.happened["kills amid an extraction"] += 1
        self.possible |= set(self.files.values()) - self.certain

    @precondition(lambda self: self.store.exists())
    @rule()
    def compact_it(self) -> None:
        compact(Store.open(self.store))

    @precondition(lambda self: self.files and self.store.exists())
    @rule()
    def collect_all_but_these(self) -> None:
        collect(Store.open(self.store), [featstore.open_dataset(self.folder)])
        kept = set(self.files.values())
        self.happened["collections of certain rows"] += not self.certain <= kept
        self.certain &= kept
        self.possible &= kept

    @precondition(lambda self: self.store.exists())
    @rule()
    def verify_it(self) -> None:
        assert verify(Store.open(self.store), read_data=True).sound

    def _file(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def _request(self) -> featstore.Request:
        return featstore.Request("vgg16", image_size=_SIZE)


def test_a_table_has_the_features_of_the_files_that_are_there() -> None:
    names = (
        "edits", "copies", "renames", "extractions with rows that were there", "kills amid an extraction",
        "collections of certain rows",
    )  # fmt: skip
    run_machine(FolderMachine, FolderMachine.happened, names, amount(10, 200), amount(15, 30))

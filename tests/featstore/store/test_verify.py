from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featstore.spec import Spec
from featstore.store import Store, verify


@pytest.fixture
def filled(store: Store, spec: Spec, make_rows: Any, write: Any) -> Store:
    """Two namespaces; four segments."""
    for seed in range(2):
        for pooling in ("avg", "max"):
            write(store.namespace(spec.but(pooling=pooling)), make_rows(20, seed=seed))  # type: ignore[arg-type] # of its choices
    return store


def a_segment(store: Store) -> Path:
    return min(store.path.glob("ns/*/seg/*.h5"))


def contents(store: Store) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in store.path.rglob("*") if p.is_file()}


def test_an_empty_store_is_sound(store: Store) -> None:
    assert verify(store).sound
    assert not store.path.exists()


@pytest.mark.parametrize("name", ["tmp", "scan", "ledger", "ns"])
def test_what_is_in_the_place_of_a_folder_is_no_part_of_a_store(store: Store, name: str) -> None:
    store.create()
    (store.path / "tmp").rmdir()
    (store.path / name).write_bytes(b"")
    [damage] = verify(store).problems
    assert damage.path == store.path / name
    assert not verify(store).is_mendable


@pytest.mark.parametrize("read_data", [True, False])
def test_a_sound_store_is_counted_and_not_changed(filled: Store, read_data: bool) -> None:
    before = contents(filled)
    report = verify(filled, read_data=read_data)
    assert (report.sound, report.segments, report.rows, report.quarantined) == (True, 4, 80, 0)
    assert report.bytes == sum(p.stat().st_size for p in filled.path.glob("ns/*/seg/*.h5"))
    assert contents(filled) == before


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "empty", "grow", "swap", "rename", "foreign", "copy"])
def test_every_kind_of_damage_is_found(filled: Store, damage: str) -> None:
    path = a_segment(filled)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "flip":
        data[middle] ^= 4
    elif damage == "zero":
        data[512:1024] = bytes(512)
    changed = {"truncate": data[:middle], "empty": b"", "grow": data + b"x", "foreign": b"GIF89a"}.get(damage, data)
    path.write_bytes(changed)
    if damage == "swap":
        first, second = sorted(path.parent.iterdir())
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
    elif damage == "rename":
        path.rename(path.with_name("f" * 64 + ".h5"))
    elif damage == "copy":
        [other] = {p.parent for p in filled.path.glob("ns/*/seg/*.h5")} - {path.parent}
        shutil.copy(path, other)
    report = verify(filled, read_data=True)
    assert not report.sound
    assert len(report.problems) == (2 if damage == "swap" else 1)
    assert report.to_json()["problems"][0]["path"].startswith(str(filled.path))


def test_names_and_sizes_alone_find_what_is_cut_short(filled: Store) -> None:
    path = a_segment(filled)
    path.write_bytes(path.read_bytes()[:-10])
    assert [p.path for p in verify(filled).problems] == [path]


def test_strangers_are_told(filled: Store) -> None:
    segments = a_segment(filled).parent
    (segments / "notes.txt").write_text("x")
    (segments.parent / "more").mkdir()
    (filled.path / "ns" / "lost").mkdir()
    assert {p.path.name for p in verify(filled).problems} == {"notes.txt", "more", "lost"}
    assert not verify(filled).is_mendable, "no extraction sets them aside"
    a_segment(filled).write_bytes(b"x")
    assert verify(filled).is_mendable


def test_a_namespace_without_its_spec_is_told_if_it_has_rows(filled: Store, spec: Spec) -> None:
    (filled.namespace(spec).path / "spec.json").unlink()
    assert "does not hold the spec" in verify(filled).problems[0].problem


def test_what_a_killed_process_left_is_no_damage(filled: Store, spec: Spec) -> None:
    (filled.private_folder / "123-abc").write_bytes(b"half")
    (filled.path / "ns" / spec.but(pooling="map").fingerprint / "seg").mkdir(parents=True)
    assert verify(filled, read_data=True).sound


@pytest.mark.parametrize("content", [b"{}", b"\xff", None])
def test_segments_without_their_spec_are_checked_by_the_spec_in_them(filled: Store, content: bytes | None) -> None:
    path = a_segment(filled)
    description = path.parents[1] / "spec.json"
    description.write_bytes(content) if content is not None else description.unlink()
    report = verify(filled, read_data=True)
    assert ([one.path for one in report.problems], report.rows, report.segments) == ([description], 80, 4)
    path.write_bytes(path.read_bytes()[:-10])
    report = verify(filled, read_data=True)
    assert ({one.path for one in report.problems}, report.rows) == ({description, path}, 60)


def test_without_a_spec_anywhere_all_segments_are_damaged(filled: Store) -> None:
    folder = a_segment(filled).parent
    (folder.parent / "spec.json").unlink()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.unlink()
        path.mkdir() if number else os.mkfifo(path)
    (folder / "notes.txt").write_text("x")
    told = {one.path.name: one.problem for one in verify(filled, read_data=True).problems}
    assert {*told} == {"spec.json", *(path.name for path in folder.iterdir())}
    assert [name for name, problem in told.items() if "not part of a store" in problem] == ["notes.txt"]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_file_in_the_place_of_a_folder_is_told(filled: Store, depth: int) -> None:
    folder = a_segment(filled).parents[depth]
    shutil.rmtree(folder)
    folder.write_bytes(b"x")
    report = verify(filled)
    assert [one.path for one in report.problems] == [folder]
    assert not report.is_mendable


def test_a_link_is_no_segment_even_if_what_it_leads_to_is_one(filled: Store, tmp_path: Path) -> None:
    path = a_segment(filled)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert [one.problem for one in verify(filled, read_data=True).problems] == ["it is not a regular file"]


def test_quarantined_segments_are_counted_and_no_problem(filled: Store, spec: Spec, set_aside: Any) -> None:
    set_aside(filled.namespace(spec), next(filled.namespace(spec).segment_folder.iterdir()))
    report = verify(filled)
    assert (report.sound, report.quarantined, report.segments) == (True, 1, 3)


def test_a_seeded_sample_of_flips_is_found_to_the_last(filled: Store) -> None:
    path, random = a_segment(filled), np.random.default_rng(0)
    data = path.read_bytes()
    for bit in random.integers(0, len(data) * 8, 40):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert len(verify(filled, read_data=True).problems) == 1

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import featstore
from featstore import show
from featstore.folders import default_store
from featstore.records import Reason
from featstore.top5 import Guess, Seen
from featstore.weights import Verdict
from tests.pictures import class_folders, png
from tests.stubs import Bases


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**20, "3.0 MiB"), (2**50, "1024.0 TiB"), (None, "?")],
)
def test_sizes_are_read_at_a_glance(count: int | None, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "?")]
)
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert show.duration(seconds) == text


def test_a_run_is_a_small_table_on_stderr(tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]) -> None:
    show.extraction(featstore.extract(class_folders(tmp_path / "p"), precision="float32").report)
    out, err = capsys.readouterr()
    assert out == ""
    heading, row, *_ = err.splitlines()
    assert heading.split() == ["backbone", "features", "hits", "computed", "rejected", "images/s"]
    assert row.split()[:7] == ["vgg16", "avg", "float32", "openvino", "0", "36", "0"]


def test_two_preprocessings_are_told_apart_in_a_run_and_in_the_store(
    tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [featstore.Request("vgg16", image_size=(64, 64), preprocessing=name) for name in ("keras", "rescale")]
    show.extraction(featstore.extract(class_folders(tmp_path / "p"), requests).report)
    run = capsys.readouterr().err
    found = featstore.Store.open(default_store()).namespaces()
    show.namespaces([namespace.summary() for namespace in found], show.console())
    store = capsys.readouterr().err
    assert "avg rescale" in run
    assert "64x64 avg rescale" in store
    assert "keras" not in run + store


def test_rejects_damage_and_odd_names_are_shown_as_they_are(
    tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]
) -> None:
    report = featstore.extract(class_folders(tmp_path / "p")).report
    reject = featstore.extraction.RejectedImage("[red]x", "00", Reason.TRUNCATED)
    show.extraction(replace(report, rejects=(reject,), ledger=Path("/a/[bold]b.csv"), quarantined=2))
    err = capsys.readouterr().err
    assert "1 image: 1 truncated, listed in /a/[bold]b.csv" in err
    assert "2 damaged segments set aside" in err


def test_rejects_in_a_store_are_shown_with_their_reasons_the_most_frequent_first(
    tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = class_folders(tmp_path / "p")
    (photos / "train" / "cats" / "a.png").write_bytes(b"")
    for number in range(2):
        (photos / "train" / "cats" / f"b{number}.png").write_bytes(png(number)[:70])
    featstore.extract(photos, featstore.Request("vgg16", image_size=64))
    capsys.readouterr()
    [namespace] = featstore.Store.open(default_store()).namespaces()
    show.namespaces([namespace.summary()], show.console())
    heading, row = capsys.readouterr().err.splitlines()
    assert heading.split()[-1] == "rejects"
    assert row.endswith("3 (2 truncated, 1 empty-file)")


def test_no_color_leaves_no_escape_sequences(tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]) -> None:
    show.sentences(["a note"])
    assert capsys.readouterr().err == "note a note\n"


def test_a_plan_names_the_reasons(tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]) -> None:
    show.plan(featstore.plan(class_folders(tmp_path / "p"), image_size=64), show.console())
    err = capsys.readouterr().err
    assert "vgg16: 36 not in the store: new image" in err
    assert "a rough guess before the first run" in err


def test_notes_say_what_a_dataset_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = class_folders(tmp_path / "p")
    (folder / "test" / "dogs").rename(tmp_path / "gone")
    show.notes(featstore.open_dataset(folder))
    err = capsys.readouterr().err
    assert "30 images, 2 classes (split folders; 12 train, 12 validation, 6 test)" in err
    assert "note" in err
    assert "dogs" in err


HOSTILE = "\x1b]0;pwn\a\x9b31m\nnote all is well\u202e[red]:cat:"
TAMED = "\\x1b]0;pwn\\x07\\x9b31m\\nnote all is well\\u202e[red]:cat:"


def test_no_name_commands_the_terminal_or_begins_a_line(
    tmp_path: Path, bases: Bases, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = featstore.open_dataset(class_folders(tmp_path / "p"))
    report = featstore.extract(dataset).report
    reject = featstore.extraction.RejectedImage("x", "00", Reason.TRUNCATED)
    spec = replace(report.specs[0], backbone=HOSTILE)
    odd = replace(report, specs=(spec,), store=HOSTILE, rejects=(reject,), ledger=Path(HOSTILE))
    plan = featstore.plan(dataset, image_size=64)
    part = plan.specs[0]
    of_hostile = replace(part, job=replace(part.job, spec=part.job.spec.but(backbone=HOSTILE)))
    capsys.readouterr()
    for expected, do in (
        (1, lambda: show.say(HOSTILE)),
        (1, lambda: show.sentences([HOSTILE])),
        (2, lambda: show.notes(replace(dataset, name=HOSTILE, notes=(HOSTILE,)))),
        (3, lambda: show.extraction(odd)),
        (3, lambda: show.plan(replace(plan, specs=(of_hostile,)), show.console())),
        (1, lambda: show.verdicts([Verdict(HOSTILE, Path("/x"), None)], show.console())),
        (1, lambda: show.seen([Seen(HOSTILE, (Guess("", "cat", 1.0),))], show.console())),
    ):
        do()
        err = capsys.readouterr().err
        assert err.count(TAMED) == expected
        assert err.replace("\n", "").isprintable()

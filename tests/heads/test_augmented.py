from __future__ import annotations

import json
from pathlib import Path

import pytest

from featstore.errors import InputError
from heads.augmented import contact_sheet_of
from tests.commands import good, run
from tests.pictures import png


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(png(1))
    return path


def test_the_command_writes_a_sheet_and_says_so(image: Path, tmp_path: Path) -> None:
    to = tmp_path / "sheet.png"
    done = good("augment", image, "--to", to, "--augment", "flip", "--json")
    assert to.read_bytes().startswith(b"\x89PNG")
    assert json.loads(done.out) == {"file": str(to)}
    assert "contact sheet" in done.err


def test_a_file_that_is_there_is_kept_unless_forced(image: Path, tmp_path: Path) -> None:
    to = tmp_path / "sheet.png"
    to.write_text("mine")
    assert run("augment", image, "--to", to).code == 2
    assert to.read_text() == "mine"
    good("augment", image, "--to", to, "--augment", "flip", "--force")
    assert to.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("policy", "words"), [("rotation_range=0", "changes nothing"), ("tutorals", "did you mean tutorial")]
)
def test_a_policy_that_makes_no_sense_is_refused(image: Path, policy: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        contact_sheet_of(image, policy)


def test_a_sheet_of_gigabytes_is_refused_before_any_work(image: Path, tmp_path: Path) -> None:
    to = tmp_path / "sheet.png"
    refused = run("augment", image, "--image-size", "100000", "--to", to)
    assert refused.code == 2
    assert "at most 1024 pixels a side" in refused.err
    assert not to.exists()


def test_a_sheet_is_written_under_the_name_of_what_it_is(image: Path, tmp_path: Path) -> None:
    refused = run("augment", image, "--to", tmp_path / "sheet.jpg")
    assert refused.code == 2
    assert "sheet.png" in refused.err
    assert not (tmp_path / "sheet.jpg").exists()


def test_a_file_that_is_no_image_is_refused_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(png(1)[:60])
    with pytest.raises(InputError, match="truncated"):
        contact_sheet_of(broken)

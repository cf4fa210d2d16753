from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from featstore.augmentation import POLICIES, Policy
from heads.report import contact
from heads.report.canvas import png
from heads.report.contact import COLUMNS, contact_sheet
from tests.pictures import pixels

DIGEST = bytes(32)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], list[np.ndarray]]]:
    """The rows of the sheet: title, captions, pictures."""
    rows = []
    plain = contact._Row

    def note(title: str, pictures: tuple[np.ndarray, ...], captions: tuple[str, ...]) -> object:
        rows.append((title, list(captions), list(pictures)))
        return plain(title, pictures, captions)

    monkeypatch.setattr(contact, "_Row", note)
    return rows


def test_it_is_a_png_with_a_row_for_the_policy_and_for_each_of_its_ranges(drawn) -> None:
    file = contact_sheet(pixels(1), DIGEST, POLICIES["tutorial"])
    assert Image.open(io.BytesIO(file)).format == "PNG"
    titles = [title for title, _, _ in drawn]
    assert titles[0] == "the whole policy"
    assert titles[1:] == [f"{name}, alone" for name in (
        "rotation_range=40 (degrees)", "width_shift_range=0.2", "height_shift_range=0.2",
        "shear_range=0.2 (degrees)", "zoom_range=0.2",
        "horizontal_flip",
    )]  # fmt: skip


def test_the_first_picture_is_the_image_and_a_range_goes_through_it(drawn) -> None:
    image = pixels(1)
    contact_sheet(image, DIGEST, Policy(rotation_range=30, horizontal_flip=True))
    (_, _, views), (_, angles, turned), (_, _, flipped) = drawn
    assert np.array_equal(views[0], image)
    assert angles == ["-30°", "-20°", "-10°", "+0°", "+10°", "+20°", "+30°"]
    assert np.array_equal(turned[COLUMNS // 2], image)
    assert not np.array_equal(turned[0], turned[-1])
    assert np.array_equal(flipped[1], image[:, ::-1])


def test_the_same_image_gives_the_same_file() -> None:
    one, two = (contact_sheet(pixels(1), DIGEST, POLICIES["flip"]) for _ in range(2))
    assert one == two


def test_a_drawing_alone_is_a_png() -> None:
    assert png(lambda figure, theme: None, (1, 1)).startswith(b"\x89PNG")

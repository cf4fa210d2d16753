from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featstore.dataset import open_dataset
from featstore.errors import InputError
from featstore.job import Job
from featstore.spec import PixelSpec
from featstore.weights import Base
from heads.export import check
from heads.export.check import count, drawn_pictures, exported_probabilities, own_probabilities, real_pictures
from heads.export.model import ImageInput, inputs_of
from tests.heads.export.conftest import MakeBundle
from tests.pictures import png

INPUTS = (
    ImageInput("images_1", PixelSpec((20, 30)), (0,)),
    ImageInput("images_2", PixelSpec((8, 8), resize="nearest"), (1,)),
)


def test_drawn_pictures_are_the_same_every_time_and_at_every_size() -> None:
    found = drawn_pictures(INPUTS)
    assert {name: (p.shape, p.dtype) for name, p in found.items()} == {
        "images_1": ((8, 20, 30, 3), np.uint8),
        "images_2": ((8, 8, 8, 3), np.uint8),
    }
    assert all((found[name] == again).all() for name, again in drawn_pictures(INPUTS).items())
    assert len(np.unique(found["images_1"][0].reshape(-1, 3), axis=0)) == 1
    assert (found["images_1"][0, 0, 0] == found["images_2"][0, 0, 0]).all()
    assert len(np.unique(found["images_1"][-1].reshape(-1, 3), axis=0)) > 500


def test_real_pictures_are_spread_over_the_dataset_and_broken_ones_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_IMAGES", 3)
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(png(number) if number else png(0)[:60])
    found = real_pictures(INPUTS, open_dataset(str(tmp_path)))
    assert count(found) == 2
    assert found["images_2"].shape == (2, 8, 8, 3)


def test_images_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0)[:60])
    with pytest.raises(InputError, match="none of these images"):
        real_pictures(INPUTS, open_dataset(str(tmp_path)))


def test_an_exported_model_is_asked_for_odd_numbers_of_images() -> None:
    sizes = []

    def predict(images: check.Images) -> np.ndarray:
        sizes.append(count(images))
        return np.ones((sizes[-1], 2), np.float32)

    assert exported_probabilities(predict, drawn_pictures(INPUTS)).shape == (8, 2)
    assert sizes == [5, 3]


def test_the_bundles_own_numbers_are_those_of_its_runtime(
    make_bundle: MakeBundle, tiny: Base, features: np.ndarray
) -> None:
    bundle = make_bundle("kernel")
    inputs = inputs_of(bundle.card.specs)
    jobs = [Job(tiny, spec, "tensorflow") for spec in bundle.card.specs]
    found = own_probabilities(bundle, jobs, inputs, drawn_pictures(inputs), as_stored=False)
    np.testing.assert_allclose(found, bundle.probabilities(features), atol=1e-6)


def test_as_stored_means_in_the_precision_and_dtype_of_the_store(make_bundle: MakeBundle, tiny: Base) -> None:
    half = make_bundle().card.specs[0].but(dtype="float16")
    bundle = make_bundle("linear", None, half)
    inputs = inputs_of(bundle.card.specs)
    jobs = [Job(tiny, half, "tensorflow")]
    exact, stored = (
        own_probabilities(bundle, jobs, inputs, drawn_pictures(inputs), as_stored=value) for value in (False, True)
    )
    assert 0 < np.abs(exact - stored).max() < 0.01

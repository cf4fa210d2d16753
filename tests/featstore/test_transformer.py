from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from featstore import FeatureExtractor
from featstore.errors import DamageError, InputError
from tests.pictures import png
from tests.stubs import Bases


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(png(seed=i))
    return [str(path) for path in paths]


# The checks that need no data, by name. The others feed tables of numbers: what they check is checked below with paths.
CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_own_checks_pass(name: str) -> None:
    getattr(estimator_checks, name)("FeatureExtractor", FeatureExtractor())


def test_scikit_learns_check_of_the_constructor_passes() -> None:
    estimator_checks.check_parameters_default_constructible("FeatureExtractor", FeatureExtractor())


def test_fitting_twice_gives_the_same_and_leaves_the_parameters_alone(files: list[str], bases: Bases) -> None:
    extractor = FeatureExtractor(image_size=64)
    before = extractor.get_params()
    first = extractor.fit(files).transform(files)
    np.testing.assert_array_equal(extractor.fit(files).transform(files), first)
    assert extractor.get_params() == before


def test_transform_changes_nothing_and_a_row_depends_on_its_own_image_only(files: list[str], bases: Bases) -> None:
    extractor = FeatureExtractor().fit(files)
    state = dict(vars(extractor))
    every = extractor.transform(files)
    assert vars(extractor) == state
    order = np.random.default_rng(0).permutation(len(files))
    np.testing.assert_array_equal(extractor.transform(np.array(files)[order]), every[order])
    np.testing.assert_array_equal(extractor.transform(files[5:6]), every[5:6])


def test_a_fitted_extractor_survives_pickling(files: list[str], bases: Bases) -> None:
    extractor = FeatureExtractor().fit(files)
    again = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(again.transform(files), extractor.transform(files))


def test_paths_go_in_and_features_come_out(files: list[str], bases: Bases) -> None:
    extractor = FeatureExtractor(image_size=64)
    features = extractor.fit_transform(files)
    assert features.shape == (12, 6)
    assert features.dtype == np.float32
    assert extractor.spec_.image_size == (64, 64)
    assert extractor.get_feature_names_out().tolist() == [f"featureextractor{i}" for i in range(6)]


@pytest.mark.parametrize("shape", ["list", "array", "column", "paths"])
def test_paths_may_be_a_list_an_array_or_a_column(files: list[str], bases: Bases, shape: str) -> None:
    given = {
        "list": files,
        "array": np.array(files),
        "column": np.array(files).reshape(-1, 1),
        "paths": [Path(f) for f in files],
    }[shape]
    assert FeatureExtractor().fit_transform(given).shape == (12, 6)


def test_cross_validation_runs_the_base_once_over_each_image(files: list[str], bases: Bases) -> None:
    model = make_pipeline(FeatureExtractor(), StandardScaler(), LogisticRegression())
    scores = cross_val_score(model, files, [0, 1] * 6, cv=3)
    assert len(scores) == 3
    assert bases.computed == 12
    cross_val_score(clone(model), files, [0, 1] * 6, cv=4)
    assert bases.computed == 12


def test_transform_keeps_the_spec_that_fit_settled(files: list[str], bases: Bases) -> None:
    extractor = FeatureExtractor().fit(files)
    extractor.set_params(weights="random:1")
    with pytest.raises(InputError, match="not the ones"):
        extractor.transform(files)


def test_an_unfitted_extractor_says_so(files: list[str]) -> None:
    with pytest.raises(NotFittedError):
        FeatureExtractor().transform(files)


def test_a_broken_image_raises_or_becomes_a_row_of_nan(files: list[str], bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    given = [*files[:2], str(tmp_path / "broken.png")]
    with pytest.raises(DamageError, match=r"1 of 3 images"):
        FeatureExtractor().fit(given)
    features = FeatureExtractor(on_error="nan").fit_transform(given)
    assert np.isnan(features[2]).all()
    assert np.isfinite(features[:2]).all()


def test_a_batch_of_only_broken_images_keeps_the_width(files: list[str], bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    extractor = FeatureExtractor(on_error="nan").fit(files)
    assert extractor.transform([str(tmp_path / "broken.png")]).shape == (1, 6)


def test_rows_that_are_stored_in_another_precision_are_used(files: list[str], bases: Bases) -> None:
    FeatureExtractor(precision="float32").fit(files)
    assert FeatureExtractor().fit(files).spec_.precision == "float32"
    assert bases.computed == 12


@pytest.mark.parametrize("given", [[], [[1.0, 2.0]], [1, 2], "one.png", np.zeros((2, 2))], ids=repr)
def test_anything_but_paths_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="paths"):
        FeatureExtractor().fit(given)


def test_the_store_can_be_chosen(files: list[str], bases: Bases, tmp_path: Path) -> None:
    FeatureExtractor(store=tmp_path / "mine").fit(files)
    assert (tmp_path / "mine" / "FORMAT").exists()

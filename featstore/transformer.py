"""scikit-learn's way in: image files in, cached features out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featstore.dataset import open_dataset
from featstore.errors import DamageError, InputError
from featstore.features import Features, features_of
from featstore.folders import default_store
from featstore.job import Job, Request, job_for, resolve_jobs
from featstore.spec import Fit
from featstore.store import Store

Files = Sequence[str | Path] | npt.NDArray[Any]


class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc] # untyped
    """A transformer from paths of image files to features of a frozen base, computed once and kept in a store.

    Parameters
    ----------
    backbone, weights, layer, image_size, resize, preprocessing, precision, pooling, dtype, runtime, device
        As in :class:`featstore.Request`.
    fit_mode : how a picture fills the input, ``Request.fit`` under a name that leaves ``fit`` to scikit-learn.
    store : folder of the store; None for the default one.
    on_error : "raise" stops at an image that cannot be decoded, "nan" gives it a row of NaN.

    Attributes
    ----------
    spec_ : the exact :class:`featstore.Spec` of the features.
    n_features_in_ : 1, the column of paths.

    Examples
    --------
    >>> model = make_pipeline(FeatureExtractor("vgg16"), StandardScaler(), LogisticRegression())  # doctest: +SKIP
    >>> cross_val_score(model, paths, labels)  # the base runs once over each image  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        *,
        weights: str = "imagenet",
        layer: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        resize: str = "bilinear",
        fit_mode: Fit = "stretch",
        preprocessing: str = "keras",
        precision: str = "auto",
        pooling: str = "avg",
        dtype: str = "float32",
        runtime: str = "auto",
        device: str | None = None,
        store: str | Path | None = None,
        on_error: Literal["raise", "nan"] = "raise",
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.image_size = image_size
        self.resize = resize
        self.fit_mode = fit_mode
        self.preprocessing = preprocessing
        self.precision = precision
        self.pooling = pooling
        self.dtype = dtype
        self.runtime = runtime
        self.device = device
        self.store = store
        self.on_error = on_error

    def fit(self, X: Files, y: object = None) -> FeatureExtractor:
        """Settle the spec and cache the features of ``X``: N paths, (N,) or (N, 1). ``y`` is not used."""
        del y
        paths = _paths(X)
        job = self._resolve(paths)
        features = self._features(paths, job)
        self.spec_ = job.spec
        self.n_features_in_ = 1
        self._n_features_out = features.shape[1]
        return self

    def transform(self, X: Files) -> npt.NDArray[np.float32]:
        """The features of N paths, float32 (N, D). Raises DamageError for an image that cannot be decoded."""
        check_is_fitted(self, "spec_")
        job = job_for(self.spec_, self.backbone, self.weights, self.runtime)
        return self._features(_paths(X), job, self._n_features_out)

    def _features(self, paths: list[Path], job: Job, width: int | None = None) -> npt.NDArray[np.float32]:
        features = features_of(open_dataset(paths), job, self._open_store())
        bad = [i for i, reason in enumerate(features.reasons) if reason]
        if bad and self.on_error == "raise":
            raise _undecodable(paths, features, bad)
        if len(bad) == len(paths):  # nothing to learn the width from
            return np.full((len(paths), width or 0), np.nan, np.float32)
        features.values[bad] = np.nan
        return features.values

    def _resolve(self, paths: list[Path]) -> Job:
        settings = {f.name: getattr(self, f.name) for f in fields(Request) if f.name not in ("fit", "views", "augment")}
        request = Request(**settings, fit=self.fit_mode)
        store = self._open_store()
        return resolve_jobs([request], store, open_dataset(paths))[0]

    def _open_store(self) -> Store:
        return Store.open(self.store or default_store())

    def __sklearn_tags__(self) -> Any:
        """Strings in one dimension, no numbers in two."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = False
        return tags


def _paths(X: Files) -> list[Path]:
    """N paths from a list or an array of shape (N,) or (N, 1); raises InputError for anything else."""
    array = np.asarray(X, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not len(array) or not all(isinstance(p, str | Path) for p in array):
        raise InputError(
            "FeatureExtractor takes paths of image files",
            where="X",
            expected="strings or Paths, shape (N,) or (N, 1)",
            received=f"{array.dtype} {array.shape}",
        )
    return [Path(p) for p in array]


def _undecodable(paths: list[Path], features: Features, bad: list[int]) -> DamageError:
    return DamageError(
        f"{len(bad)} of {len(paths)} images cannot be decoded",
        where=paths[bad[0]],
        received=features.reasons[bad[0]].code,
        todo='mend or leave out these files, or pass on_error="nan" and impute',
    )

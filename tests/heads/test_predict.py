from __future__ import annotations

import json

import numpy as np
import pytest

from featstore.errors import InputError
from featstore.features import Features
from featstore.records import Reason
from heads.bundles.bundle import Bundle, read_bundle
from heads.predict import predict
from tests.heads.bundles.make import write_bundle


@pytest.fixture
def bundle(bundles, card, head) -> Bundle:
    return read_bundle(write_bundle(bundles, card, head))


def features(*reasons: Reason) -> Features:
    values = np.random.default_rng(0).normal(size=(len(reasons), 8)).astype(np.float32)
    return Features(values, reasons, np.arange(len(reasons)) % 2 == 0)


def test_every_image_gets_its_class_and_probabilities(bundle: Bundle, spec) -> None:
    given = features(*[Reason.OK] * 6)
    found = predict(bundle, [f"{i}.png" for i in range(6)], given, (spec,))
    expected = bundle.probabilities(given.values)
    assert [p.path for p in found] == [f"{i}.png" for i in range(6)]
    assert [p.label for p in found] == [bundle.card.classes[i] for i in expected.argmax(axis=1)]
    assert [p.probabilities for p in found] == [tuple(row) for row in expected.tolist()]
    assert [p.from_cache for p in found] == [True, False] * 3


def test_a_rejected_image_keeps_its_place_and_its_reason(bundle: Bundle, spec) -> None:
    given = features(Reason.OK, Reason.TRUNCATED, Reason.OK)
    found = predict(bundle, ["a", "b", "c"], given, (spec,))
    assert [p.label is None for p in found] == [False, True, False]
    assert found[1].reason is Reason.TRUNCATED
    assert found[1].probabilities == ()
    assert found[1].top(3) == []
    assert found[2].probabilities == tuple(bundle.probabilities(given.values[2:])[0])


def test_only_rejected_images_are_no_error(bundle: Bundle, spec) -> None:
    given = Features(np.zeros((2, 0), np.float32), (Reason.EMPTY_FILE,) * 2, np.zeros(2, bool))
    assert [p.label for p in predict(bundle, ["a", "b"], given, (spec,))] == [None, None]


def test_no_images_give_no_predictions(bundle: Bundle, spec) -> None:
    assert predict(bundle, [], features(), (spec,)) == ()


def test_the_likeliest_classes_come_first(bundle: Bundle, spec) -> None:
    (found,) = predict(bundle, ["a"], features(Reason.OK), (spec,))
    ranked = found.top(3)
    assert ranked[0] == (found.label, max(found.probabilities))
    assert [p for _, p in ranked] == sorted(found.probabilities, reverse=True)
    assert found.top(1) == ranked[:1]


def test_features_of_another_spec_are_refused(bundle: Bundle, spec) -> None:
    with pytest.raises(InputError, match="not of the kind"):
        predict(bundle, ["a"], features(Reason.OK), (spec.but(weights="1" * 64),))


def test_paths_that_do_not_match_the_features_are_refused(bundle: Bundle, spec) -> None:
    with pytest.raises(InputError, match="do not belong together"):
        predict(bundle, ["a", "b"], features(Reason.OK), (spec,))


def test_the_json_is_the_documented_one(bundle: Bundle, spec) -> None:
    good, bad = (p.to_json() for p in predict(bundle, ["a", "b"], features(Reason.OK, Reason.CORRUPT), (spec,)))
    assert json.loads(json.dumps(good)) == good
    assert set(good["probabilities"]) == set(bundle.card.classes)
    assert sum(good["probabilities"].values()) == pytest.approx(1)
    assert (good["rejected"], bad["rejected"]) == (None, "corrupt")
    assert (bad["label"], bad["probabilities"]) == (None, {})

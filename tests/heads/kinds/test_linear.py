from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from scipy.special import softmax as scipy_softmax

from featstore.errors import InputError
from heads.kinds.head import softmax
from heads.kinds.linear import LinearHead

finite = st.floats(-1e6, 1e6)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=finite))
def test_softmax_agrees_with_scipy(logits: np.ndarray) -> None:
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=1), atol=1e-12)


def test_probabilities_of_huge_logits_stay_finite() -> None:
    assert softmax(np.array([[1e300, -1e300, 0.0]])).tolist() == [[1.0, 0.0, 0.0]]


def test_two_classes_are_the_logistic_function() -> None:
    head = LinearHead.from_decision(np.array([[2.0, -1.0]]), np.array([0.5]))
    X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    decision = X @ [2.0, -1.0] + 0.5
    np.testing.assert_allclose(softmax(head.logits(X))[:, 1], expit(decision), rtol=1e-6)
    assert head.logits(X).argmax(axis=1).tolist() == (decision > 0).astype(int).tolist()


def test_a_decision_of_exactly_zero_is_the_first_class_as_in_scikit_learn() -> None:
    head = LinearHead.from_decision(np.array([[1.0]]), np.array([0.0]))
    assert head.logits(np.zeros((1, 1), np.float32)).argmax(axis=1).tolist() == [0]


@pytest.mark.parametrize("classes", [2, 3, 37, 150])
@pytest.mark.parametrize("width", [512, 2048, 2560])
def test_a_rows_logits_do_not_depend_on_its_company_to_the_last_bit(width: int, classes: int) -> None:
    random = np.random.default_rng(width)
    head = LinearHead(random.normal(size=(classes, width)), random.normal(size=classes))
    X = np.abs(random.normal(size=(199, width))).astype(np.float32)
    whole, order = head.logits(X), random.permutation(199)
    np.testing.assert_array_equal(head.logits(X[order]), whole[order])
    np.testing.assert_array_equal(head.logits(X[5:77]), whole[5:77])
    np.testing.assert_array_equal(np.concatenate([head.logits(X[i : i + 1]) for i in range(20)]), whole[:20])
    np.testing.assert_allclose(whole, X.astype(np.float64) @ head.weights.T + head.bias, rtol=1e-9, atol=1e-9)


def test_features_are_not_written_over(head: LinearHead) -> None:
    X = np.ones((4, 8))
    head.logits(X)
    assert (X == 1).all()


def test_a_head_comes_back_from_its_arrays_and_nothing_else_does(head: LinearHead) -> None:
    arrays, config = head.to_arrays()
    again = LinearHead.from_arrays(arrays, config)
    assert (again.weights == head.weights).all()
    assert (again.bias == head.bias).all()
    assert (head.width, head.outputs) == (8, 3)
    for odd in ({}, {**arrays, "more": arrays["bias"]}, {**arrays, "bias": arrays["bias"].astype(np.float32)}):
        with pytest.raises(InputError, match="do not fit"):
            LinearHead.from_arrays(odd, {})
    with pytest.raises(InputError, match="do not fit"):
        LinearHead.from_arrays(arrays, {"trust": True})


@pytest.mark.parametrize(
    ("weights", "bias"),
    [((2, 3), (3,)), ((2,), (2,)), ((1, 3), (1,)), ((2, 3), (2, 1))],
    ids=["bias too long", "weights flat", "one class", "bias not flat"],
)
def test_arrays_that_do_not_fit_are_refused(weights: tuple[int, ...], bias: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        LinearHead(np.zeros(weights), np.zeros(bias))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        LinearHead(np.zeros((2, 3)), np.array([0.0, bad]))


def test_features_of_another_width_are_refused(head: LinearHead) -> None:
    with pytest.raises(InputError) as caught:
        head.logits(np.zeros((2, 5)))
    assert caught.value.expected == "(N, 8)"
    assert caught.value.received == (2, 5)


def test_serving_needs_no_scikit_learn() -> None:
    code = (
        "import sys, heads.bundles.bundle, heads.predict; "
        "print([m for m in ('sklearn', 'scipy', 'h5py', 'keras', 'PIL') if m in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"

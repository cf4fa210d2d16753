from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from featstore.errors import InputError
from heads.evaluation.compare import against_first, compare


def rights(only_first: int, only_second: int, both: int = 50) -> np.ndarray:
    one = [True] * only_first + [False] * only_second + [True] * both
    two = [False] * only_first + [True] * only_second + [True] * both
    return np.array([one, two])


def test_the_p_value_is_the_binomial_one_of_the_images_they_disagree_on() -> None:
    [pair] = compare(["a", "b"], rights(9, 2))
    assert (pair.first, pair.second, pair.only_first, pair.only_second) == ("a", "b", 9, 2)
    assert pair.p == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert pair.adjusted == pair.p


def test_heads_that_never_disagree_are_not_different() -> None:
    assert compare(["a", "b"], rights(0, 0))[0].p == 1


def test_many_comparisons_are_adjusted_by_holm() -> None:
    random = np.random.default_rng(0)
    right = random.random((4, 200)) < np.array([[0.9], [0.88], [0.7], [0.6]])
    pairs = compare(list("abcd"), right)
    assert len(pairs) == 6
    ordered = sorted(pairs, key=lambda pair: pair.p)
    running = 0.0
    for place, pair in enumerate(ordered):
        running = max(running, min(1, (6 - place) * pair.p))
        assert pair.adjusted == pytest.approx(running)


def test_equal_heads_rarely_look_different() -> None:
    random = np.random.default_rng(1)
    small = [compare(["a", "b"], random.random((2, 150)) < 0.8)[0].p < 0.05 for _ in range(300)]
    assert np.mean(small) <= 0.06


def test_names_that_do_not_match_the_rows_are_refused() -> None:
    with pytest.raises(InputError, match="do not belong together"):
        compare(["a"], rights(1, 1))


def test_one_named_beforehand_against_all_others_pays_for_these_pairs_alone() -> None:
    random = np.random.default_rng(0)
    right = random.random((4, 200)) < np.array([[0.9], [0.88], [0.7], [0.6]])
    pairs = against_first(list("abcd"), right)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("a", "d")]
    smallest = min(pairs, key=lambda pair: pair.p)
    assert smallest.adjusted == pytest.approx(min(1, 3 * smallest.p))
    assert against_first(["a"], right[:1]) == ()

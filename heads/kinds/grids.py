"""Grids that a person asks for in place of a kind's own: ``dense.hidden=64,256x64``, ``logreg.C=0.01,0.1``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from featstore.errors import InputError, unknown_name
from heads.kinds.catalog import find
from heads.kinds.problem import HeadKind

_WHERE = "--grid"


def kinds_of(heads: Sequence[str], grids: Sequence[str] = ()) -> list[HeadKind]:
    """The kinds called ``heads``, each once, with the values of ``grids`` in the place of those they would try.

    A grid is every combination of its hyperparameters' values; those not spoken of keep their own. Values that
    regularise go from the strongest to the weakest, as in the kind's own grid, however they were typed.
    Raises InputError for a head, hyperparameter or value that cannot be.
    """
    kinds = {kind.name: kind for kind in map(find, heads)}
    for words in grids:
        left, is_one, right = words.partition("=")
        head, _, name = left.strip().rpartition(".")
        if not is_one or not head or not right.strip():
            raise _bad(words)
        kind = find(head)
        if kind.name not in kinds:
            raise InputError(
                f"{kind.name} is not among the heads", where=_WHERE, expected=", ".join(kinds), received=words
            )
        kinds[kind.name] = _with(kinds[kind.name], name, right.split(","))
    return list(kinds.values())


def _with(kind: HeadKind, name: str, words: Sequence[str]) -> HeadKind:
    known = {parameter: list(dict.fromkeys(params[parameter] for params in kind.grid)) for parameter in kind.grid[0]}
    if name not in known:
        raise unknown_name(f"hyperparameter of {kind.name}", name, known, _WHERE)
    usual = known[name]
    values = list(dict.fromkeys(_value(word.strip(), usual, f"{kind.name}.{name}") for word in words))
    if len(usual) > 1 and all(isinstance(value, int | float) for value in usual):
        values.sort(reverse=usual[0] > usual[-1])
    known[name] = values
    grid = tuple(dict(zip(known, combination, strict=True)) for combination in product(*known.values()))
    return replace(kind, grid=grid)


def _value(word: str, usual: Sequence[Any], what: str) -> Any:
    """The value that ``word`` stands for, of the type of the ``usual`` ones and possible."""
    words, is_possible = _POSSIBLE[what.rpartition(".")[2]]
    try:
        if is_possible(value := _READ[type(usual[0])](word)):
            return value
    except (KeyError, ValueError):
        pass
    raise InputError(
        f"this is no value of {what}",
        where=_WHERE,
        expected=f"{words}, such as {', '.join(map(_shown, usual))}",
        received=word,
    )


def _sizes(word: str) -> tuple[int, ...]:
    return () if word == "none" else tuple(map(int, word.split("x")))


_READ: dict[type, Callable[[str], Any]] = {
    bool: lambda word: {"true": True, "false": False}[word.lower()],
    int: int,
    float: float,
    str: str,
    tuple: _sizes,
}

_ABOVE_0 = ("a number above 0", lambda value: 0 < value < math.inf)
_FROM_1 = ("a whole number from 1 on", lambda value: value >= 1)

_POSSIBLE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("C", "alpha", "gamma", "learning_rate"), _ABOVE_0),
    **dict.fromkeys(("k", "epochs", "batch_size"), _FROM_1),
    "shrinkage": ("a number above 0 and below 1", lambda value: 0 < value < 1),
    "dropout": ("a number from 0 on, below 1", lambda value: 0 <= value < 1),
    "patience": ("a whole number from 0 on", lambda value: value >= 0),
    "standardise": ("true or false", lambda value: True),
    "hidden": ("sizes of layers, or none", lambda value: all(size > 0 for size in value)),
    "optimizer": ("adam or rmsprop", lambda value: value in ("adam", "rmsprop")),
    "weights": ("uniform or distance", lambda value: value in ("uniform", "distance")),
}
"""What each hyperparameter of the catalogue may be, in words and as a test."""


def _shown(value: Any) -> str:
    return "x".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _bad(words: str) -> InputError:
    return InputError(
        "this is no grid",
        where=_WHERE,
        expected="HEAD.NAME=VALUE,VALUE…, as logreg.C=0.01,0.1 or dense.hidden=64,256x64",
        received=words,
    )

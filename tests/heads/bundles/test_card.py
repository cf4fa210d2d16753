from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featstore.errors import DamageError, InputError
from heads.bundles.card import Card, FileEntry, HeadFile, Origin, card_from_bytes
from heads.bundles.card import card_to_bytes as card_and_head_to_bytes
from heads.evaluation.calibration import Calibration
from heads.evaluation.scores import Trial

FILES = {"head.npz": FileEntry.of(b"arrays")}
WHERE = Path("card.json")
HEAD = HeadFile("linear", {"k": 3})


def card_to_bytes(card: Card, files: dict[str, FileEntry]) -> bytes:
    return card_and_head_to_bytes(card, HEAD, files)


def resealed(data: bytes, **changes: object) -> bytes:
    """The card with fields changed, and a right checksum: what a maker of bundles could write."""
    from heads.bundles.card import _checksum, _text

    content = {**json.loads(data), **changes}
    del content["sha256"]
    return _text({**content, "sha256": _checksum(content)})


def test_a_card_comes_back_as_it_was(card: Card) -> None:
    again, head, files = card_from_bytes(card_to_bytes(card, FILES), WHERE)
    assert again == card
    assert (head, files) == (HEAD, FILES)


def test_a_card_of_two_backbones_with_hidden_sizes_and_a_test_comes_back(card: Card) -> None:
    other = replace(
        card,
        params={"hidden": (256, 64), "optimizer": "adam"},
        trials=(Trial({"hidden": ()}, card.trials[0].score),),
        specs=(card.specs[0], card.specs[0].but(backbone="xception")),
        origins=(Origin("vgg16"), Origin("./own base.keras", "random:7")),
        widths=(3, 5),
        calibration=Calibration("isotonic", curves=(((0.1, 0.5), (0.2, 0.9)),) * 3),
        clip=None,
        test=card.held_out,
        fitted_on=("train", "validation"),
        augmentation="a policy",
        views=4,
    )
    assert card_from_bytes(card_to_bytes(other, FILES), WHERE)[0] == other


def test_equal_cards_are_equal_bytes_and_plain_ascii(card: Card) -> None:
    assert card_to_bytes(card, FILES) == card_to_bytes(replace(card), FILES)
    assert card_to_bytes(card, FILES).isascii()


def test_a_change_of_any_byte_is_noticed(card: Card) -> None:
    data = card_to_bytes(card, FILES)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises((DamageError, InputError)):
            card_from_bytes(changed, WHERE)


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\n", lambda d: d.replace(b": 7", b":  7")])
def test_even_a_blank_is_a_change(card: Card, change) -> None:
    with pytest.raises(DamageError, match="changed after"):
        card_from_bytes(change(card_to_bytes(card, FILES)), WHERE)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"{"], ids=["empty", "bytes", "deep", "cut"])
def test_what_is_no_json_is_damage(data: bytes) -> None:
    with pytest.raises(DamageError, match="damaged"):
        card_from_bytes(data, WHERE)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"format": "another"}', b"null"])
def test_another_kind_of_file_is_told_apart(data: bytes) -> None:
    with pytest.raises(InputError, match="not the card"):
        card_from_bytes(data, WHERE)


def test_a_card_of_a_future_version_is_refused_with_both_versions(card: Card) -> None:
    with pytest.raises(InputError, match="another version") as caught:
        card_from_bytes(resealed(card_to_bytes(card, FILES), version=4), WHERE)
    assert caught.value.received == 4
    assert "version 3" in str(caught.value.expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"head": None},
        {"classes": 3},
        {"files": [1]},
        {"files": {"head.npz": {"sha256": ""}}},
        {"features": [{"spec": {}}]},
        {"scores": {"held_out": None, "test": None}},
        {"choice": {"on": "validation", "trials": [{"params": {}, "score": {"interval": [0]}}]}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_well_sealed_card_of_nonsense_is_one_message(card: Card, changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        card_from_bytes(resealed(card_to_bytes(card, FILES), **changes), WHERE)


def test_no_path_is_as_long_as_some_weights_say(card: Card) -> None:
    for letters, refused in ((4096, False), (4097, True)):
        data = card_to_bytes(replace(card, origins=(Origin("vgg16", "r" * letters),)), FILES)
        if refused:
            with pytest.raises(InputError, match="origins"):
                card_from_bytes(data, WHERE)
        else:
            assert card_from_bytes(data, WHERE)[0].origins[0].weights == "r" * letters


def leaves(value, path=()):
    """Every place in a JSON value that holds no container, and every container."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 2)):
            yield from leaves(value[i], (*path, i))


@pytest.mark.parametrize("wrong", [None, "word", -7, 1e308, [], [[1]], {}, {"a": None}, True], ids=str)
def test_a_card_with_anything_elsewhere_is_refused_or_as_usable_as_before(card: Card, wrong: object) -> None:
    """Whatever a maker of bundles puts into one place under a right checksum."""
    from heads.bundles.card import _checksum, _text

    data = card_to_bytes(replace(card, calibration=Calibration("temperature", 0.5)), FILES)
    for path in list(leaves(json.loads(data)))[1:]:
        content = json.loads(data)
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = wrong
        content.pop("sha256", None)
        try:
            found, _, _ = card_from_bytes(_text({**content, "sha256": _checksum(content)}), WHERE)
        except (InputError, DamageError):
            continue
        assert all(isinstance(name, str) for name in (*found.classes, *found.versions, *found.fitted_on, found.kind))
        assert found.calibration.probabilities(np.zeros((2, 3))).shape == (2, len(found.classes))
        assert found.clip is None or 0 <= found.clip < 0.5


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_numbers_that_are_none_are_damage(card: Card, number: str) -> None:
    data = card_to_bytes(card, FILES).replace(b'"clip": 0.01', f'"clip": {number}'.encode())
    with pytest.raises(DamageError, match="changed after"):
        card_from_bytes(data, WHERE)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_curves_for_another_number_of_classes_are_refused(card: Card, count: int) -> None:
    curves = (((0.1, 0.5), (0.2, 0.9)),) * count
    data = card_to_bytes(replace(card, calibration=Calibration("isotonic", curves=curves)), FILES)
    with pytest.raises(InputError, match="cannot be understood"):
        card_from_bytes(data, WHERE)

from __future__ import annotations

import errno

import pytest

from featstore.errors import (
    DamageError,
    FeatstoreError,
    InputError,
    Interrupted,
    NoSpaceError,
    ReadOnlyError,
    StorageError,
    from_os_error,
    nearest,
    unknown_name,
)


def test_a_message_says_what_where_expected_received_and_what_to_do() -> None:
    error = InputError("no such layer", where="--layer", expected="block4_pool", received="blok4", todo="mend it")
    assert str(error).splitlines() == [
        "no such layer",
        "  where:    --layer",
        "  expected: block4_pool",
        "  received: blok4",
        "  to do:    mend it",
    ]


def test_a_line_is_a_part_whatever_is_in_it_and_only_what_goes_on_has_more() -> None:
    error = InputError("odd\nname", received="a\nfeatstore: ok\n            b\n  where:    c")
    assert error.lines() == ["odd\nname", "  received: a\nfeatstore: ok", "            b", "            where:    c"]


def test_parts_that_are_not_known_are_left_out_and_falsy_ones_are_kept() -> None:
    assert str(InputError("odd", received=0)).splitlines() == ["odd", "  received: 0"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [(InputError, 2), (DamageError, 1), (ReadOnlyError, 3), (NoSpaceError, 4), (StorageError, 1), (Interrupted, 130)],
)
def test_every_kind_has_the_exit_code_that_is_documented(kind: type[FeatstoreError], code: int) -> None:
    assert kind("x").exit_code == code


def test_errors_are_also_the_kinds_that_python_programmers_catch() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(ReadOnlyError, PermissionError)
    assert issubclass(NoSpaceError, OSError)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EACCES, ReadOnlyError),
        (errno.EROFS, ReadOnlyError),
        (errno.EPERM, ReadOnlyError),
        (errno.ENOENT, InputError),
        (errno.ENOTDIR, InputError),
        (errno.ENAMETOOLONG, InputError),
        (errno.EEXIST, InputError),
        (errno.EIO, StorageError),
        (errno.EFBIG, StorageError),
    ],
)
def test_an_os_error_becomes_the_kind_that_says_what_to_do(number: int, kind: type[FeatstoreError]) -> None:
    error = from_os_error(OSError(number, "reason"), "write a segment", "/store")
    assert type(error) is kind
    assert "cannot write a segment: reason" in str(error)
    assert "/store" in str(error)
    assert error.todo


@pytest.mark.parametrize(
    ("number", "todo"),
    [(errno.EISDIR, "name a file"), (errno.EEXIST, "move away"), (errno.ENAMETOOLONG, "fewer letters")],
)
def test_what_to_do_about_a_place_that_can_never_do_would_help(number: int, todo: str) -> None:
    error = from_os_error(OSError(number, "reason"), "write", "/store")
    assert todo in str(error.todo)


def test_the_nearest_names_come_best_first_and_ignore_case() -> None:
    assert nearest("RESNET5", ["vgg16", "resnet50v2", "resnet50"])[0] == "resnet50"
    assert nearest("zzz", ["vgg16"]) == []


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    message = str(unknown_name("backbone", "xcepton", ["vgg16", "xception"], "--backbone"))
    assert message.startswith("unknown backbone 'xcepton': did you mean xception?")


def test_an_unknown_name_like_nothing_known_is_answered_with_the_choice() -> None:
    assert "choose one of these" in str(unknown_name("backbone", "qqq", ["vgg16", "xception"], "-b"))

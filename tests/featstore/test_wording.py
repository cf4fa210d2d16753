from __future__ import annotations

from featstore.wording import counted, printable, shortened, visible


def test_a_count_agrees_with_its_noun() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(2, "class", "classes") == "2 classes"


def test_bytes_that_are_not_utf_8_are_shown_and_the_rest_is_left_alone() -> None:
    assert printable("caf\udce9/täst.jpg") == "caf\\xe9/täst.jpg"


def test_what_a_screen_would_obey_or_hide_is_escaped() -> None:
    assert visible("naïve 猫 <b>$x$") == "naïve 猫 <b>$x$"
    assert visible("a\x1b[2J\n\u202egpj\udcff\ud800") == "a\\x1b[2J\\n\\u202egpj\\xff\\ud800"


def test_what_is_long_loses_its_middle_and_says_so() -> None:
    assert shortened("a" * 9, most=9) == "a" * 9
    assert shortened("a" * 600 + "b" * 9000 + "c" * 300, most=900) == f"{'a' * 600} … (9,000 characters) … {'c' * 300}"

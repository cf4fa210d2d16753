"""Small words for people: counts with their nouns, names that can be written anywhere."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: ``1 image``, ``2 images``; ``many`` where an s is not enough."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def printable(path: str) -> str:
    r"""``path`` with bytes that are not UTF-8 shown as ``\xNN``, so that it can be written anywhere."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def visible(words: str) -> str:
    r"""``words`` with nothing that a screen would obey or hide: control codes, direction marks and what is no text are
    shown as escapes (``\x1b``, ``\u202e``), bytes that are not UTF-8 as ``\xNN``.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in words)


def shortened(words: str, most: int = 1000) -> str:
    """``words`` of ``most`` characters at most, and a few more that say how many of the middle were left out."""
    if len(words) <= most:
        return words
    head, tail = most * 2 // 3, most // 3
    return f"{words[:head]} … ({len(words) - head - tail:,} characters) … {words[-tail:]}"


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")

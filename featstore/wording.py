"""Small words for people: counts with their nouns, names that can be written anywhere."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: ``1 image``, ``2 images``; ``many`` where an s is not enough."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def printable(path: str) -> str:
    r"""``path`` with bytes that are not UTF-8 shown as ``\xNN``, so that it can be written anywhere."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")

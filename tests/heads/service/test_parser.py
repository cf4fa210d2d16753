from __future__ import annotations

from collections.abc import Iterator

import h11
import pytest

from heads.service.parser import CHUNK_BYTES, FREE_CHUNKS, MOST_HEADERS, Parser, TooMuchWork

_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def events(*pieces: bytes, parser: Parser | None = None) -> Iterator[h11.Event]:
    """What these pieces of a connection are taken apart into, one after the other."""
    parser = parser or Parser(16 * 2**10)
    for piece in pieces:
        parser.receive_data(piece)
        while isinstance(event := parser.next_event(), h11.Event):
            yield event


def is_whole(*pieces: bytes) -> bool:
    """Whether these are a request to its end."""
    return isinstance([*events(*pieces)][-1], h11.EndOfMessage)


def chunk(count: int) -> bytes:
    return b"%x\r\n%b\r\n" % (count, bytes(count))


def test_a_body_in_tiny_chunks_is_given_up_early_however_much_of_it_is_there() -> None:
    taken: list[h11.Event] = []
    with pytest.raises(TooMuchWork, match="at least 1024 bytes") as refused:
        taken.extend(events(_CHUNKED + chunk(1) * 40_000))
    assert refused.value.error_status_hint == 400
    assert len(taken) == 1 + FREE_CHUNKS


@pytest.mark.parametrize("size", [1, 2])
def test_it_makes_no_difference_how_the_chunks_are_cut(size: int) -> None:
    data = chunk(1) * 1000
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    with pytest.raises(TooMuchWork):
        is_whole(_CHUNKED, *pieces)


def test_some_tiny_chunks_and_any_number_of_others_are_a_body() -> None:
    for body in (chunk(1) * FREE_CHUNKS, chunk(CHUNK_BYTES) * 5000, chunk(2**20) * 3):
        assert is_whole(_CHUNKED + body + b"0\r\n\r\n")


def test_each_body_of_a_connection_is_counted_by_itself() -> None:
    parser = Parser(16 * 2**10)
    for _ in range(3):
        assert [*events(_CHUNKED + chunk(1) * FREE_CHUNKS + b"0\r\n\r\n", parser=parser)]
        parser.send(h11.Response(status_code=204, headers=[]))
        parser.send(h11.EndOfMessage())
        parser.start_next_cycle()


@pytest.mark.parametrize("cut", range(8))
def test_nothing_may_follow_the_last_chunk(cut: int) -> None:
    body = chunk(3) + b"0\r\n"
    for end in (b"X: y\r\n" * 5000 + b"\r\n", b"X: y\r\n\r\n", b"\rX: y\r\n\r\n"):
        with pytest.raises(TooMuchWork, match="ends with the last of them"):
            is_whole(_CHUNKED + body[:cut], body[cut:] + end)
    assert is_whole(_CHUNKED + body[:cut], body[cut:], b"\r", b"\n")


def test_many_headers_are_refused_before_they_are_taken_apart() -> None:
    few = _HEAD + b"X: y\r\n" * (MOST_HEADERS - 1)
    assert is_whole(few + b"\r\n")
    for many in (few + b"X: y\r\n\r\n", few + b"X: y\r\n", few.replace(b"\r", b"") + b"X: y\n\n"):
        with pytest.raises(TooMuchWork, match="at most 128 headers") as refused:
            is_whole(many)
        assert refused.value.error_status_hint == 431


def test_lines_of_a_body_are_no_headers() -> None:
    body = b"\r\n" * 5000
    assert is_whole(_HEAD + b"Content-Length: 10000\r\n\r\n" + body)
    assert is_whole(_CHUNKED + b"2710\r\n" + body + b"\r\n0\r\n\r\n")

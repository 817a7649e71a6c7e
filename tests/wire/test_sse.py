from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.wire.sse import SseError, SseParser, frame

STREAM = (
    b": a comment\n\n"
    b'data: {"a":1}\n\n'
    b"event: ping\ndata: two\ndata: lines\n\n"
    b"id: 7\nretry: 10\n\n"
    b"data:no space\r\n\r\n"
    b"data: \xc3\xa9 cr\r\r"
    b"\n\n\ndata: [DONE]\n\n"
)
PAYLOADS = [b'{"a":1}', b"two\nlines", b"no space", b"\xc3\xa9 cr", b"[DONE]"]


def parse(pieces: list[bytes]) -> list[bytes]:
    parser = SseParser()
    found = [payload for piece in pieces for payload in parser.feed(piece)]
    return found + parser.finish()


def test_whole() -> None:
    assert parse([STREAM]) == PAYLOADS


def test_byte_by_byte() -> None:
    assert parse([STREAM[i : i + 1] for i in range(len(STREAM))]) == PAYLOADS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cut(cuts: list[int]) -> None:
    marks = [0, *sorted(cuts), len(STREAM)]
    assert parse([STREAM[a:b] for a, b in itertools.pairwise(marks)]) == PAYLOADS


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b and b"\r" not in b), max_size=6))
def test_frames_come_back(payloads: list[bytes]) -> None:
    assert parse([b"".join(frame(p) for p in payloads)]) == payloads


def test_last_event_without_blank_line_is_kept() -> None:
    assert parse([b"data: a\n\ndata: b"]) == [b"a", b"b"]


def test_endless_event_is_refused() -> None:
    parser = SseParser(max_event=100)
    with pytest.raises(SseError):
        for _ in range(20):
            parser.feed(b"data: xxxxxxxxxx")

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.hub.journal import Header, Journal, decode, spans

HEADER = Header(size=1000, piece=100, digest="sha256:" + "a" * 64, etag='"v1"')


def opened(folder: Path, header: Header = HEADER) -> Journal:
    journal = Journal(folder / "m.part.journal", header)
    journal.open(folder / "m.part")
    return journal


def test_pieces_survive_in_a_second_run(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (tmp_path / "m.part").write_bytes(b"x")
    first.mark(0)
    first.mark(9)
    first.close()
    second = opened(tmp_path)
    assert second.done == {0, 9}
    assert second.bytes_done == 200
    second.close()


def test_a_torn_line_is_not_believed_and_not_glued_to_the_next(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (tmp_path / "m.part").write_bytes(b"x")
    first.mark(3)
    first.close()
    with (tmp_path / "m.part.journal").open("ab") as file:
        file.write(b"1")  # of "12\n", say
    second = opened(tmp_path)
    assert second.done == {3}
    second.mark(7)
    second.close()
    third = opened(tmp_path)
    assert third.done == {3, 7}
    third.close()


@pytest.mark.parametrize(
    "other",
    [
        Header(1001, 100, HEADER.digest, '"v1"'),
        Header(1000, 50, HEADER.digest, '"v1"'),
        Header(1000, 100, "sha256:" + "b" * 64, '"v1"'),
        Header(1000, 100, None, '"v1"'),
    ],
)
def test_another_file_starts_from_nothing(tmp_path: Path, other: Header) -> None:
    first = opened(tmp_path)
    (tmp_path / "m.part").write_bytes(b"x")
    first.mark(1)
    first.close()
    second = opened(tmp_path, other)
    assert second.done == set()
    assert not (tmp_path / "m.part").exists()
    second.close()


def test_what_two_headers_must_share() -> None:
    plain = Header(10, 5, None, '"v1"')
    assert plain.fits(Header(10, 5, None, '"v1"'))
    assert not plain.fits(Header(10, 5, None, '"v2"'))
    assert not Header(10, 5, None, None).fits(Header(10, 5, None, None))  # nothing proves it is the same file
    assert HEADER.fits(Header(1000, 100, HEADER.digest, '"other server"'))


def test_a_journal_without_its_part_counts_for_nothing(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.mark(1)
    first.close()
    second = opened(tmp_path)
    assert second.done == set()
    second.close()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal_or_none(data: bytes) -> None:
    found = decode(data)
    assert found is None or all(0 <= index < found[0].pieces for index in found[1])


@given(st.integers(1, 60), st.sets(st.integers(0, 59)), st.integers(1, 9))
def test_spans_cover_exactly_what_is_missing(count: int, done: set[int], longest: int) -> None:
    found = list(spans(done, count, longest))
    covered = [index for span in found for index in span]
    assert covered == [index for index in range(count) if index not in done]
    assert all(1 <= len(span) <= longest for span in found)


@given(st.integers(1, 10_000), st.integers(1, 3_000))
def test_pieces_add_up_to_the_file(size: int, piece: int) -> None:
    header = Header(size, piece, None, None)
    assert sum(header.length(index) for index in range(header.pieces)) == size

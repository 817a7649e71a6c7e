from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.config.units import (
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_share,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("300ms", 0.3),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1 h 30 m", 5400.0),
        ("30d", 2592000.0),
        ("0.1s 200ms", 0.3),
        ("5", 5.0),
        ("0.25", 0.25),
        (7, 7.0),
        (0.5, 0.5),
        (0, 0.0),
    ],
)
def test_durations_read_as_people_write_them(written: str | float, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    ["", "soon", "5 parsecs", "-1s", "1m-", "s", "1e400", "nan", "inf", -1, float("nan"), float("inf"), 10**400, True,
     "1.s", "٣s", "9" * 4000 + "s"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(written: str | float) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "count"),
    [("32MiB", 33554432), ("10MB", 10_000_000), ("1.5GB", 1_500_000_000), ("512 kB", 512_000), ("0", 0), (12, 12),
     ("1kib", 1024), ("7B", 7)],
)  # fmt: skip
def test_sizes_read_as_people_write_them(written: str | int, count: int) -> None:
    assert parse_size(written) == count


@pytest.mark.parametrize(
    "written", ["", "big", "32M", "5k", "-1MB", "1.5", "0.1kB1", "1.0001kB", -1, True, 2**64, "9EiB"]
)
def test_what_is_no_size_is_refused(written: str | int) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(written)


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=1e12))
def test_a_duration_reads_back_exactly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**12))
def test_milliseconds_read_back_exactly(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_size_reads_back_exactly(count: int) -> None:
    assert parse_size(format_size(count)) == count


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert str(error)


def test_formats_are_short() -> None:
    assert [format_duration(s) for s in (0, 0.3, 1.5, 60, 5400, 86400, 90)] == [
        "0s", "300ms", "1500ms", "1m", "90m", "1d", "90s",
    ]  # fmt: skip
    assert [format_size(n) for n in (0, 1, 1000, 1024, 33554432, 1500)] == [
        "0", "1", "1kB", "1KiB", "32MiB", "1500",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "share"),
    [("1%", 0.01), ("0.5 %", 0.005), ("98%", 0.98), ("100%", 1.0), (0.02, 0.02), (1, 1.0), ("0", 0.0), (".5", 0.5)],
)
def test_shares_read_as_people_write_them(written: str | float, share: float) -> None:
    assert parse_share(written) == share


@pytest.mark.parametrize("written", ["", "101%", 2, -0.1, True, "1e-3", "half", "1%%", float("nan")])
def test_what_is_no_share_is_refused(written: str | float) -> None:
    with pytest.raises(ValueError, match="share"):
        parse_share(written)


@given(st.integers(0, 10_000).map(lambda n: n / 10_000))
def test_a_share_reads_back(share: float) -> None:
    assert parse_share(format_share(share)) == share

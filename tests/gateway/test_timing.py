"""The parts of the time to the first token."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.gateway.attempt import Record
from lumen.gateway.metrics import Metrics, Snapshot, exposition
from lumen.gateway.settled import Settled
from lumen.gateway.timing import headers, parts

seconds = st.floats(0, 100)


def record(
    sent: float | None = None, answered: float | None = None, first: float | None = None, **rest: float
) -> Record:
    return Record("m", "", 0.0, sent=sent, answered=answered, first_token=first, **rest)  # type: ignore[arg-type]


@given(seconds, seconds, seconds, seconds, seconds)
def test_the_parts_make_the_whole(own: float, woke: float, queued: float, there: float, prefill: float) -> None:
    sent = 7.0 + own + woke + queued
    told = parts([record(sent, sent + there, sent + there + prefill, woke=woke, queued=queued)], 7.0, stream=True)
    assert sum(told.values()) - told["first"] == pytest.approx(told["first"])
    assert told["wake"] == woke
    assert told["prefill"] == pytest.approx(prefill, abs=1e-9)


def test_it_tells_of_the_try_that_gave_the_first_token() -> None:
    failed, good, later = record(1.0, 2.0), record(3.0, 3.5, 4.0), record(9.0, 9.5)
    assert parts([failed, good, later], 1.0, stream=True) == {
        "gateway": 2.0, "wake": 0.0, "queue": 0.5, "prefill": 0.5, "first": 3.0,
    }  # fmt: skip


def test_of_a_whole_answer_only_what_was_before_it_is_known() -> None:
    told = parts([record(2.0, 9.0, 9.0, woke=0.5)], 1.0, stream=False)
    assert told == {"gateway": 0.5, "wake": 0.5, "queue": 0.0}


@pytest.mark.parametrize("attempts", [[], [record()], [record(1.0)]])
def test_where_nobody_was_asked_there_is_nothing_to_tell(attempts: list[Record]) -> None:
    assert parts(attempts, 1.0, stream=True) == {}
    assert headers(attempts, 1.0, stream=True) == {}


def test_the_header_is_in_milliseconds() -> None:
    told = headers([record(1.001, 1.002, 1.0125)], 1.0, stream=True)
    assert told["server-timing"] == "gateway;dur=1.0, wake;dur=0.0, queue;dur=1.0, prefill;dur=10.5, first;dur=12.5"


def test_the_parts_are_counted_and_a_wake_only_where_there_was_one() -> None:
    metrics = Metrics()
    for woke in (0.0, 0.0, 2.0):
        attempts = [record(1.01 + woke, 1.02 + woke, 1.05 + woke, woke=woke)]
        metrics.take([Settled("r", "chat/completions", "route", None, 0.0, 1.0, 9.0, "ok", True, attempts)])
    text = exposition(Snapshot(metrics)).decode()
    counts = dict(re.findall(r'first_token_part_seconds_count\{.*part="(\w+)".*\} ([\d.]+)', text))
    assert {part: float(count) for part, count in counts.items()} == {"gateway": 3, "wake": 1, "queue": 3, "prefill": 3}

from __future__ import annotations

import pytest

from lumen.core.breaker import Verdict, judge
from lumen.core.errors import BrokenError, ConnectError, RefusedError, Retry, SilentError, UpstreamError
from lumen.core.retry import QUICK_RETRY, Decision, Next, after
from lumen.core.trace import Trace


def refused(status: int, retry: Retry, code: str = "x", retry_after: float | None = None) -> RefusedError:
    return RefusedError(
        "", phase="headers", upstream_status=status, retry=retry, code=code, retry_after=retry_after
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "first", "second"),
    [
        (ConnectError("", phase="connect"), Next.SAME, Next.OTHER),
        (BrokenError("", phase="headers"), Next.SAME, Next.OTHER),
        (SilentError("", phase="first_token"), Next.OTHER, Next.OTHER),
        (refused(500, Retry.SAME), Next.SAME, Next.OTHER),
        (refused(401, Retry.OTHER), Next.OTHER, Next.OTHER),
        (refused(400, Retry.NEVER), Next.GIVE_UP, Next.GIVE_UP),
        (refused(400, Retry.NEVER, "context_length_exceeded"), Next.LARGER, Next.LARGER),
        (refused(400, Retry.NEVER, "content_filter"), Next.GIVE_UP, Next.GIVE_UP),
        (refused(429, Retry.OTHER), Next.OTHER, Next.OTHER),
        (refused(429, Retry.OTHER, retry_after=3), Next.SAME, Next.OTHER),
        (refused(429, Retry.OTHER, retry_after=3.1), Next.OTHER, Next.OTHER),
        (refused(503, Retry.SAME, retry_after=60), Next.OTHER, Next.OTHER),
    ],
)
def test_the_table(error: UpstreamError, first: Next, second: Next) -> None:
    assert after(error, tries=1, draw=0.5).next is first
    assert after(error, tries=2, draw=0.5).next is second


def test_a_content_filter_is_routed_around_only_where_the_route_says_so() -> None:
    error = refused(400, Retry.NEVER, "content_filter")
    assert after(error, tries=1, draw=0, around_filter=True).next is Next.OTHER


def test_a_short_wait_is_waited_out_in_full() -> None:
    assert after(refused(429, Retry.OTHER, retry_after=2), tries=1, draw=0.1).pause == 2


def test_quick_retry_has_full_jitter() -> None:
    error = ConnectError("", phase="connect")
    pauses = [after(error, tries=1, draw=d).pause for d in (0.0, 0.5, 0.999)]
    assert pauses[0] == 0.0
    assert pauses == sorted(pauses)
    assert pauses[-1] < QUICK_RETRY


def test_trace_is_complete_when_every_choice_finished() -> None:
    trace = Trace(2)
    trace.add(True, (1,), None, None)
    assert not trace.complete
    trace.add(False, (0,), None, None)
    assert trace.complete


def test_one_delivered_part_without_ids_spoils_exactness() -> None:
    trace = Trace(1)
    trace.add(True, (), [1, 2], ("id", 1))
    trace.add(True, (), None, None)
    assert not trace.exact
    assert trace.token_ids == [1, 2]


def test_what_a_target_calls_its_refusal_is_counted_only_under_words_that_are_known() -> None:
    def outcome(code: str | None, type: str | None = None) -> str:
        return RefusedError("x", phase="headers", upstream_status=400, code=code, type=type).outcome

    assert outcome("context_length_exceeded") == "context_length_exceeded"
    assert outcome("I was asked about bees") == "upstream_error"
    assert outcome("bees", "bees") == "upstream_refused"
    assert outcome("bees", "invalid_request_error") == "invalid_request_error"


@pytest.mark.parametrize("retry_after", [None, 1.0, 60.0])
def test_a_full_local_queue_is_left_at_once(retry_after: float | None) -> None:
    full = RefusedError(
        "full", phase="headers", upstream_status=429, status=429, code="queue_full", retry_after=retry_after
    )
    assert after(full, tries=1, draw=0.5) == Decision(Next.OTHER)
    assert judge(full) is Verdict.NEUTRAL

from __future__ import annotations

import pytest

from lumen.core.errors import BrokenError, ConnectError, RefusedError, Retry, SilentError, UpstreamError
from lumen.core.retry import MAX_SPLICES, QUICK_RETRY, Next, after
from lumen.core.trace import Trace

ERRORS: list[UpstreamError] = [
    ConnectError("", phase="connect"),
    BrokenError("", phase="stream"),
    SilentError("", phase="first_token"),
    RefusedError("", phase="headers", upstream_status=500, retry=Retry.SAME),
    RefusedError("", phase="headers", upstream_status=400, retry=Retry.NEVER),
]


def decide(error: UpstreamError, trace: Trace, *, tries: int = 1, splices: int = 0, resumable: bool = True) -> Next:
    return after(error, trace, tries=tries, splices=splices, resumable=resumable, draw=0.5).next


def delivered(*, exact: bool) -> Trace:
    trace = Trace(1)
    trace.add(True, (), [1, 2] if exact else None, ("id", 1))
    return trace


@pytest.mark.parametrize("error", ERRORS)
def test_the_table(error: UpstreamError) -> None:
    fresh, exact, loose = Trace(1), delivered(exact=True), delivered(exact=False)
    if error.retry is Retry.NEVER:
        assert {decide(error, t) for t in (fresh, exact, loose)} == {Next.GIVE_UP}
        return
    assert decide(error, fresh) is (Next.SAME if error.retry is Retry.SAME else Next.OTHER)
    assert decide(error, fresh, tries=2) is Next.OTHER
    assert decide(error, exact) is Next.RESUME
    assert decide(error, exact, splices=MAX_SPLICES) is Next.GIVE_UP
    assert decide(error, exact, resumable=False) is Next.GIVE_UP
    assert decide(error, loose) is Next.GIVE_UP


def test_a_silent_target_is_not_asked_twice() -> None:
    assert decide(SilentError("", phase="headers"), Trace(1), tries=1) is Next.OTHER


def test_quick_retry_has_full_jitter() -> None:
    error = ConnectError("", phase="connect")
    pauses = [after(error, Trace(1), tries=1, splices=0, resumable=False, draw=d).pause for d in (0.0, 0.5, 0.999)]
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
    trace = delivered(exact=True)
    trace.add(True, (), None, None)
    assert not trace.exact
    assert trace.token_ids == [1, 2]

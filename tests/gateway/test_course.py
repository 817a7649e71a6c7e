"""The way of one request through its plan: what is tried again, what next, and how what broke off goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lumen.core.budget import unsatisfiable
from lumen.core.errors import (
    BrokenError,
    ConnectError,
    LumenError,
    MalformedError,
    RefusedError,
    Retry,
    SilentError,
    UnavailableError,
    UpstreamError,
)
from lumen.core.resume import Asked, Rung
from lumen.core.retry import MOST_PROCESSES, QUICK_RETRY
from lumen.core.trace import Trace
from lumen.gateway.course import Course, Leg
from lumen.gateway.health import Health
from lumen.gateway.tab import Offer
from lumen.gateway.table import Target
from lumen.providers.base import Capabilities

CHAT = Asked(chat=True, stream=True, answers=1, json=False, temperature=0, seed=None)
BROKE = BrokenError("broke", phase="stream")


def target(name: str, *, context: int | None = None, **can: Any) -> Target:
    nothing: Any = None
    model, upstream = name.partition("/")[2] or name, cast(Any, SimpleNamespace(spare=lambda: False))
    return Target(name, model, nothing, upstream, Capabilities(**can), Offer(name, "", model, None, context=context))


@dataclass
class Trip:
    course: Course
    trace: Trace
    health: Health

    def next(self) -> str | None:
        """Target and rung of the next leg."""
        self.leg = self.course.next()
        if self.leg is None:
            return None
        return self.leg.target.name + (f" {self.leg.rung.value}" if self.leg.rung else "")

    def fails(self, error: UpstreamError, said: str = "") -> float:
        if said:
            self.trace.add(True, (), None, ("id", 1), said)
        assert isinstance(self.leg, Leg)
        return self.course.failed(self.leg, error, progressed=bool(said))


def trip(*targets: Target, asked: Asked = CHAT, around_filter: bool = False, most: int = 2) -> Trip:
    trace = Trace(asked.answers, replayable=True)
    health = Health(random.Random(1).random, 0.0, 0.0)
    for _ in range(50):
        # Traffic enough for the retries of any of these.
        health.retries.request(0.0)
    course = Course(
        [(one, "as told") for one in targets],
        trace,
        asked,
        health,
        around_filter=around_filter,
        clock=lambda: 0.0,
        draw=lambda: 0.5,
        most=most,
    )
    return Trip(course, trace, health)


def refusal(status: int, **rest: Any) -> RefusedError:
    return RefusedError("no", phase="headers", upstream_status=status, status=status, **rest)


@pytest.mark.parametrize(
    "error",
    [
        refusal(500, retry=Retry.SAME),
        BrokenError("reset", phase="headers"),
        ConnectError("nobody", phase="connect"),
    ],
)
def test_one_quick_retry_at_the_same_target_then_the_next(error: UpstreamError) -> None:
    way = trip(target("p/a"), target("p/b"))
    assert way.next() == "p/a"
    assert way.fails(error) == QUICK_RETRY * 0.5
    assert way.next() == "p/a"
    assert way.fails(error) == 0
    assert way.next() == "p/b"
    assert way.fails(error) == QUICK_RETRY * 0.5
    assert way.next() == "p/b"
    way.fails(error)
    assert way.next() is None
    assert way.course.verdict() is error


def test_a_local_model_is_asked_again_while_its_processes_end_whatever_the_budget_of_retries() -> None:
    """Two replicas killed under one request, among many that retry, are no reason to refuse it."""
    way = trip(target("here", local=True), target("p/b"))
    while way.health.retries.retry(0.0):
        """Use it up."""
    for _ in range(2):
        assert way.next() == "here"
        assert way.fails(BrokenError("killed", phase="headers")) == QUICK_RETRY * 0.5
    assert way.next() == "here"
    assert way.fails(BrokenError("killed", phase="headers")) == 0
    assert way.next() == "p/b", "the request itself may be what ends them"


@pytest.mark.parametrize("spare", [True, False])
@pytest.mark.parametrize("error", [SilentError("late", phase="first_token"), MalformedError("nonsense", phase="body")])
def test_a_local_model_is_asked_again_once_where_it_has_another_replica(error: UpstreamError, spare: bool) -> None:
    here = replace(target("here", local=True), upstream=cast(Any, SimpleNamespace(spare=lambda: spare)))
    way = trip(here, target("p/b"))
    while way.health.retries.retry(0.0):
        """Use it up."""
    assert way.next() == "here" and way.fails(error) == 0
    if spare:
        assert way.next() == "here" and way.fails(error) == 0
    assert way.next() == "p/b" and way.fails(error) == 0, "it is not tried twice"
    assert way.next() is None


def test_who_is_alone_is_told_so() -> None:
    """Nobody else would answer sooner, so that a limit by its own history only costs the answer."""
    alone, both = trip(target("here", local=True)), trip(target("p/a"), target("p/b"))
    alone.next(), both.next()
    assert alone.leg is not None and alone.leg.alone
    assert both.leg is not None and not both.leg.alone
    alone.fails(BROKE, "word")
    alone.next()
    assert alone.leg is not None and alone.leg.rung is not None and alone.leg.alone


def test_a_short_wait_is_waited_out_there_and_a_longer_one_is_not() -> None:
    way = trip(target("p/a"), target("p/b"))
    way.next()
    assert way.fails(refusal(429, retry_after=3.0)) == 3.0
    assert way.next() == "p/a"
    # Once: it has asked for patience before.
    assert way.fails(refusal(429, retry_after=1.0)) == 0
    assert way.next() == "p/b"
    way = trip(target("p/a"), target("p/b"))
    way.next()
    assert way.fails(refusal(429, retry_after=3.1)) == 0
    assert way.next() == "p/b"


def test_a_target_that_could_not_be_asked_beside_another_is_asked_after_it() -> None:
    way = trip(target("p/a"), target("p/b"), target("p/c"))
    assert way.next() == "p/a"
    first = way.leg
    assert way.next() == "p/b"
    assert way.leg is not None
    way.course.refused(unsatisfiable("not for both", 5))
    way.course.keep(way.leg)
    way.leg = first
    assert way.fails(BROKE) > 0
    assert way.next() == "p/a"
    way.fails(BROKE)
    assert way.next() == "p/b"
    # As any other target it has a second try.
    assert way.fails(BROKE) > 0
    assert way.next() == "p/b"
    way.fails(BROKE)
    assert way.next() == "p/c"


def test_what_was_kept_is_no_way_on_with_an_answer() -> None:
    way = trip(target("p/a"), target("q/b"))
    way.next()
    first = way.leg
    way.next()
    assert way.leg is not None
    way.course.keep(way.leg)
    way.leg = first
    way.fails(SilentError("silent", phase="stream"), said="Once upon a time")
    assert list(ladder(way)) == ["q/b anchored"]


def test_a_silent_target_is_not_tried_twice() -> None:
    way = trip(target("p/a"), target("p/b", prefill="prefix"))
    way.next()
    assert way.fails(SilentError("silent", phase="first_token")) == 0
    assert way.next() == "p/b"
    # Nor after it has said something.
    way.fails(SilentError("silent", phase="stream"), said="Once upon a time")
    assert way.next() == "p/a anchored"


@pytest.mark.parametrize("order", [(3, 1, 2), (1, 2, 3)])
def test_of_several_that_cost_too_much_the_cheapest_is_told(order: tuple[int, ...]) -> None:
    way = trip(*(target(f"p/{needed}") for needed in order))
    told = {needed: unsatisfiable("too dear", needed) for needed in order}
    for needed in order:
        assert way.next() == f"p/{needed}"
        way.course.refused(told[needed])
    assert way.next() is None
    assert way.course.verdict() is told[1]
    # What a target said for itself is told after that.
    way.course.refused(UnavailableError("no replica"))
    assert isinstance(way.course.verdict(), UnavailableError)


def test_a_context_too_small_leads_to_a_larger_one() -> None:
    way = trip(target("p/small", context=8000), target("p/same", context=8000), target("p/large", context=100_000))
    way.next()
    assert way.fails(refusal(400, retry=Retry.NEVER, code="context_length_exceeded")) == 0
    assert way.next() == "p/large"


@pytest.mark.parametrize("around", [False, True])
def test_a_content_filter_is_gone_around_only_where_the_route_says_so(around: bool) -> None:
    way = trip(target("p/a"), target("p/b"), around_filter=around)
    way.next()
    error = refusal(400, retry=Retry.NEVER, code="content_filter")
    if around:
        way.fails(error)
        assert way.next() == "p/b"
    else:
        with pytest.raises(LumenError) as caught:
            way.fails(error)
        assert caught.value is error


def test_where_the_budget_of_retries_is_used_up_only_the_second_try_there_is_left_out() -> None:
    way = trip(target("p/a"), target("p/b"))
    while way.health.retries.retry(0.0):
        pass
    way.next()
    assert way.fails(BROKE) == 0
    assert way.next() == "p/b"


def ladder(way: Trip) -> Iterator[str]:
    """The ways on, each of which does not hold."""
    while (leg := way.next()) is not None:
        yield leg
        way.fails(refusal(400, retry=Retry.NEVER))


def test_best_rung_first_whichever_target_has_it() -> None:
    way = trip(target("p/a"), target("q/b", prefill="prefix"), target("q/a"))
    way.next()
    way.fails(BROKE, said="Once upon a time")
    # Replay at the target that broke, then at the same model elsewhere; a refusal of those is about the request.
    assert way.next() == "p/a replay-exact"
    way.fails(SilentError("silent", phase="first_token"))
    assert way.next() == "q/a replay-exact"
    way.fails(SilentError("silent", phase="first_token"))
    assert list(ladder(way)) == ["q/b prefill", "p/a anchored", "q/b anchored", "q/a anchored"]


@pytest.mark.parametrize("rung", [Rung.PREFILL, Rung.ANCHORED])
def test_what_two_models_have_written_no_model_repeats(rung: Rung) -> None:
    prefill = "prefix" if rung is Rung.PREFILL else "none"
    way = trip(target("p/a"), target("q/b", prefill=prefill), asked=Asked(True, True, 1, False, 0.7, None))
    way.next()
    way.fails(BROKE, said="Once upon a time")
    while way.next() != f"q/b {rung.value}":
        way.fails(refusal(400))
    # From here on each model would have to give text that is not its own, though the request repeats itself.
    way.course._asked = CHAT
    way.fails(BROKE, said=" there was a fox")
    assert not any("exact" in leg for leg in ladder(way))


def test_processes_that_end_while_they_take_an_answer_up_are_no_reason_to_go_on_less_exactly() -> None:
    way = trip(target("here", local=True, token_ids=True, sampler_state=True))
    way.next()
    way.trace.add(True, (), (1, 2), ("id", 1), "one")
    way.course.failed(way.leg, BROKE, progressed=True)
    for _ in range(MOST_PROCESSES):
        assert way.next() == "here token-exact"
        way.fails(BROKE)
    assert way.next() == "here token-exact"
    way.trace.add(True, (), (3,), None, " two")
    way.course.failed(way.leg, BROKE, progressed=True)  # who goes on begins to count anew
    for _ in range(MOST_PROCESSES + 1):
        assert way.next() == "here token-exact"
        way.fails(BROKE)
    assert way.next() == "here replay-exact"


@pytest.mark.parametrize(("most", "asked"), [(0, 3), (2, 3), (8, 9)])
def test_a_route_says_how_many_processes_may_end_before_an_answer_begins(most: int, asked: int) -> None:
    way = trip(target("here", local=True), most=most)
    for _ in range(asked):
        assert way.next() == "here"
        way.fails(BROKE)
    assert way.next() is None


def test_an_answer_is_continued_at_most_twice() -> None:
    way = trip(target("p/a"))
    way.next()
    way.fails(BROKE, said="one")
    for said in (" two", " three"):
        assert way.next() == "p/a replay-exact"
        way.fails(BROKE, said=said)
    assert way.next() is None
    assert way.course.verdict() is BROKE


@pytest.mark.parametrize("most", [0, 2, 5])
def test_an_answer_goes_on_twice_or_as_often_as_its_route_says_whatever_the_rung(most: int) -> None:
    for here in (target("here", local=True, token_ids=True, sampler_state=True), target("p/a", prefill="native")):
        way = trip(here, most=most)
        way.next()
        for count in range(most + 1):
            way.trace.add(True, (), (count,) if here.can.local else None, ("id", 1), f"part {count}")
            way.course.failed(way.leg, BROKE, progressed=True)
            assert (way.next() is not None) == (count < most)
        assert way.course.verdict() is BROKE

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given as history
from hypothesis import settings
from hypothesis import strategies as st

from lumen.config.schema import Timeouts
from lumen.core.breaker import FIRST_SPAN, IN_A_ROW, LONGEST, PATIENCE
from lumen.core.errors import LumenError, SilentError
from lumen.gateway import health as module
from lumen.gateway.failovers import MAX_FAILOVERS
from lumen.gateway.health import SHARE_WINDOW, Health
from lumen.gateway.upstream import Limits
from tests.gateway.healths import (
    ASKED,
    BASE,
    BROKE,
    EPOCH,
    NEVER,
    UNSET,
    Clock,
    attempt,
    break_down,
    failover,
    learned,
    limits,
    made,
    state,
    taken,
)

# -- whom to ask -----------------------------------------------------------------------------------------------


def test_all_well_leaves_the_plan_as_it_is(health: Health, clock: Clock) -> None:
    assert list(health.steps(("a", "b", "c"), clock)) == [(0, False), (1, False), (2, False)]
    assert health.out(("a", "b", "c"), clock()) == {}
    assert list(health.steps((), clock)) == []


def test_what_is_out_comes_last_and_soonest_first(health: Health, clock: Clock) -> None:
    attempt(health, "a", clock(), ASKED)
    break_down(health, "b", clock())
    health.drain("d", clock(), "by hand")
    names = ("a", "b", "c", "d")
    assert list(health.steps(names, clock)) == [(2, False), (1, True), (0, True)]
    out = health.out(names, clock())
    assert {name: one.state.value for name, one in out.items()} == {"a": "open", "b": "open", "d": "drained"}
    assert out["a"].until == pytest.approx(EPOCH + clock() + 60)
    assert "5 failures in a row" in out["b"].why
    assert all("sk-123" not in one.why for one in out.values())


def test_a_target_is_looked_at_when_its_turn_comes(health: Health, clock: Clock) -> None:
    steps = health.steps(("a", "b", "c"), clock)
    assert next(steps) == (0, False)
    break_down(health, "b", clock())
    assert next(steps) == (2, False)
    assert next(steps) == (1, True)
    assert next(steps, None) is None
    assert next(steps, None) is None


def test_without_force_what_is_out_stays_out(health: Health, clock: Clock) -> None:
    break_down(health, "a", clock())
    assert health.begin("a", clock()) is None
    health.ended(taken(health, "a", clock(), force=True), clock(), True)
    assert state(health, "a", clock()) == "closed"
    health.drain("a", clock(), "by hand")
    assert health.begin("a", clock(), force=True) is None


FAULTS = st.sampled_from([None, BROKE, ASKED, NEVER])
REQUESTS = st.lists(st.tuples(st.lists(FAULTS, min_size=3, max_size=3), st.floats(0.0, 8.0)), max_size=60)


@settings(deadline=None)
@history(REQUESTS, st.sets(st.sampled_from("abc"), max_size=2))
def test_the_last_usable_target_is_never_ejected(
    requests: list[tuple[list[LumenError | None], float]], drained: set[str]
) -> None:
    """Whatever happened before, every request reaches targets until one serves or all but the drained were tried."""
    clock = Clock()
    health = made(clock)
    for name in drained:
        health.drain(name, clock(), "by hand")
    names = "abc"
    for faults, passed in requests:
        clock.now += passed
        tried = []
        for index, force in health.steps(names, clock):
            given_pass = health.begin(names[index], clock(), force=force)
            assert given_pass is not None
            tried.append(names[index])
            error = faults[index]
            health.ended(given_pass, clock(), error is None, error=error)
            if error is None:
                break
        else:
            assert set(tried) == set(names) - drained
        assert len(tried) == len(set(tried))
        assert not drained & set(tried)
        assert all(one["in_flight"] == 0 for one in health.snapshot(clock()))


# -- probes ----------------------------------------------------------------------------------------------------


def test_one_probe_at_a_time_and_its_first_token_is_enough(health: Health, clock: Clock) -> None:
    break_down(health, "a", clock())
    clock.now += FIRST_SPAN
    probe = taken(health, "a", clock())
    assert probe.probing
    assert list(health.steps("ab", clock)) == [(1, False), (0, True)]
    assert health.begin("a", clock()) is None
    health.serving(probe, clock(), 0.2)
    assert state(health, "a", clock()) == "closed"
    assert not taken(health, "a", clock()).probing


@pytest.mark.parametrize(("ok", "error"), [(None, None), (False, NEVER), (False, None)])
def test_a_probe_that_found_out_nothing_frees_its_place_once(
    health: Health, clock: Clock, ok: bool | None, error: LumenError | None
) -> None:
    break_down(health, "a", clock())
    clock.now += FIRST_SPAN
    probe = taken(health, "a", clock())
    health.ended(probe, clock(), ok, error=error)
    second = taken(health, "a", clock())
    assert second.probing
    # However often the first one ends, the second keeps its place.
    health.ended(probe, clock(), True)
    health.ended(probe, clock(), None)
    assert health.begin("a", clock()) is None
    assert health.snapshot(clock())[0]["in_flight"] == 1


@pytest.mark.anyio
async def test_a_cancelled_attempt_gives_its_ticket_back(health: Health, clock: Clock) -> None:
    break_down(health, "a", clock())
    clock.now += FIRST_SPAN
    began = asyncio.Event()

    async def run() -> None:
        probe = taken(health, "a", clock())
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            health.ended(probe, clock(), None)

    task = asyncio.create_task(run())
    await began.wait()
    assert health.begin("a", clock()) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert taken(health, "a", clock()).probing


def test_a_target_that_is_back_serves_within_fifteen_seconds(health: Health, clock: Clock) -> None:
    down = clock.now
    while clock.now < down + 60:
        # One request a second while it is down; every third one hangs.
        given = health.begin("a", clock())
        if given is not None and int(clock.now) % 3:
            health.ended(given, clock(), False, error=BROKE)
        clock.now += 1
    back = clock.now
    while (given := health.begin("a", clock())) is None:
        clock.now += 0.25
    health.serving(given, clock(), 0.1)
    assert clock.now - back <= LONGEST + PATIENCE
    assert state(health, "a", clock()) == "closed"


def test_cut_after_the_first_token_still_counts_as_failure(health: Health, clock: Clock) -> None:
    for _ in range(IN_A_ROW):
        given = taken(health, "a", clock())
        health.serving(given, clock(), 0.1)
        health.ended(given, clock(), False, error=BROKE)
    assert state(health, "a", clock()) == "open"


def test_slow_against_its_own_history(health: Health, clock: Clock) -> None:
    for i in range(250):
        clock.now += 0.1
        given = taken(health, "a", clock())
        ttft = 0.3 if i < 200 else 4.0
        clock.now += ttft
        health.serving(given, clock(), ttft)
        health.ended(given, clock(), True)
        if state(health, "a", clock()) == "open":
            break
    assert i == 209
    assert "slower than usual" in str(health.snapshot(clock())[0]["why"])


# -- limits ----------------------------------------------------------------------------------------------------


def test_limits_adapt(health: Health, clock: Clock) -> None:
    assert limits(taken(health, "a", clock()), BASE, UNSET) == BASE
    given = learned(health, clock, 1.0, 3.0)
    found = limits(given, BASE, UNSET)
    assert found.first_token == pytest.approx(8.0, rel=0.1)
    assert found.headers == found.first_token
    assert found.gap == pytest.approx(9.0, rel=0.1)
    assert (found.connect, found.total) == (BASE.connect, BASE.total)
    # The same object while nothing changed; made anew for another route.
    assert limits(given, BASE, UNSET) is found
    own = Timeouts(first_token=0.3, gap=2.0, headers=1.0)
    base = Limits(connect=5.0, headers=1.0, first_token=0.3, gap=2.0, total=900.0)
    assert limits(given, base, own) == base
    assert limits(given, BASE, UNSET) == found


def test_a_target_that_is_alone_has_all_the_time_there_is_to_its_first_token(health: Health, clock: Clock) -> None:
    given = learned(health, clock, 1.0, 0.1)
    short = limits(given, BASE, UNSET)
    assert short.first_token < 60.0
    alone = limits(given, BASE, UNSET, alone=True)
    assert (alone.first_token, alone.headers, alone.gap) == (60.0, 60.0, short.gap), "nobody else would answer"
    assert limits(given, BASE, UNSET, alone=True) is alone
    # A local model answers once it is a request's turn: the wait for that is no silence.
    assert limits(taken(health, "b", clock()), BASE, UNSET, alone=True, local=True).headers == 60.0 + BASE.queue
    for own in (Timeouts(headers=60.0), Timeouts(first_token=60.0)):
        assert limits(taken(health, "b", clock()), BASE, own, alone=True, local=True).headers == 60.0
    assert limits(given, BASE, UNSET) == short


def test_limits_stretch_for_a_long_prompt(health: Health, clock: Clock) -> None:
    short = limits(learned(health, clock, 1.0, 0.1), BASE, UNSET).first_token
    long = health.begin("a", clock(), 5000)
    assert long is not None
    assert limits(long, BASE, UNSET).first_token == pytest.approx(5 * short)


def test_a_thinking_model_waits_longer_also_for_its_headers(health: Health, clock: Clock) -> None:
    given = learned(health, clock, 50.0, 0.1)
    found = limits(given, BASE, UNSET)
    assert found.headers == found.first_token == pytest.approx(100.0, rel=0.1)
    assert limits(given, BASE, Timeouts(headers=60.0)).headers == 60.0


def test_silence_counts_with_its_length(health: Health, clock: Clock) -> None:
    given = learned(health, clock, 0.5, 0.1)
    assert limits(given, BASE, UNSET).first_token == 5.0
    for _ in range(64):
        given = taken(health, "a", clock(), force=True)
        clock.now += 5.0
        health.ended(given, clock(), False, error=SilentError("", phase="first_token"))
    assert limits(taken(health, "a", clock(), force=True), BASE, UNSET).first_token > 30.0


def test_who_is_too_slow_for_an_objective(health: Health, clock: Clock) -> None:
    for name, seconds in (("slow", 2.0), ("quick", 0.1)):
        for _ in range(5):
            given = taken(health, name, clock())
            clock.now += seconds
            health.serving(given, clock(), seconds)
            health.ended(given, clock(), True)
    names = ("slow", "new", "quick")
    assert health.within(names, 0.3, clock()) == [1, 2]
    assert (health.usual("slow"), health.usual("new")) == (2.0, None)
    assert [health.late(name, 0.3) for name in names] == [True, False, False]
    shown = {one["name"]: one["usual_first_token_ms"] for one in health.snapshot(clock())}
    assert shown == {"slow": 2000.0, "quick": 100.0}
    again = made(clock)
    again.load(json.loads(json.dumps(health.dump())), clock())
    assert again.within(names, 0.3, clock()) == [1, 2]
    # Silence counts too: a first token that never came was late.
    for _ in range(5):
        given = taken(health, "quick", clock(), force=True)
        clock.now += 5.0
        health.ended(given, clock(), False, error=SilentError("silent", phase="first_token"))
    assert health.within(names, 0.3, clock()) == [1, 2]
    given = taken(health, "quick", clock(), force=True)
    clock.now += 5.0
    health.ended(given, clock(), False, error=SilentError("silent", phase="first_token"))
    assert health.within(names, 0.3, clock()) == [1]


def test_hedge_delay(health: Health, clock: Clock) -> None:
    assert health.hedge_delay("a") is None
    learned(health, clock, 0.4, 0.1)
    assert health.hedge_delay("a") == pytest.approx(0.4, rel=0.1)


# -- what an operator sees -------------------------------------------------------------------------------------


def test_snapshot(health: Health, clock: Clock) -> None:
    given = learned(health, clock, 0.4, 0.1)
    attempt(health, "b", clock(), BROKE)
    a, b = health.snapshot(clock())
    assert (a["name"], a["state"], a["in_flight"], a["error_rate"]) == ("a", "closed", 1, 0.0)
    assert a["first_token_ms"]["p50"] == pytest.approx(400, rel=0.1)
    assert a["gap_ms"]["p99"] == a["per_token_ms"]["p99"] == pytest.approx(100, rel=0.1)
    assert (b["error_rate"], b["first_token_ms"]) == (1.0, None)
    assert a["share"] + b["share"] == pytest.approx(1.0, abs=0.001)
    assert a["share"] == pytest.approx(201 / 202, abs=0.001)
    health.ended(given, clock(), None)
    health.eject("b", clock(), None, "by hand")
    b = health.snapshot(clock())[1]
    assert (b["state"], b["why"], b["until"]) == ("ejected", "by hand", None)
    json.dumps(health.snapshot(clock()))


def test_shares_are_of_the_last_half_minute(health: Health, clock: Clock) -> None:
    for _ in range(30):
        attempt(health, "a", clock())
    clock.now += SHARE_WINDOW * 1.5
    for _ in range(30):
        attempt(health, "b", clock())
    a, b = health.snapshot(clock())
    assert 0.0 < a["share"] < b["share"]
    clock.now += 3 * SHARE_WINDOW
    assert [one["share"] for one in health.snapshot(clock())] == [0.0, 0.0]


def test_failovers_are_the_last_ones_newest_first(health: Health) -> None:
    for number in range(MAX_FAILOVERS + 5):
        health.failovers.add(failover(number))
    seen = health.failovers.recent()
    assert len(seen) == MAX_FAILOVERS
    assert seen[0]["request_id"] == f"req_{MAX_FAILOVERS + 4}"


def test_targets_are_bounded(health: Health, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TARGETS", 16)
    busy = taken(health, "busy", clock())
    health.drain("drained", clock(), "by hand")
    break_down(health, "broken", clock())
    for i in range(100):
        clock.now += 0.001
        attempt(health, f"dynamic-{i}", clock())
    names = {one["name"] for one in health.snapshot(clock())}
    assert len(names) <= 16
    assert names >= {"busy", "drained", "broken", "dynamic-99"}
    for i in range(30):
        clock.now += 0.001
        break_down(health, f"down-{i}", clock())
    assert {one["name"] for one in health.snapshot(clock())} >= {"busy", "drained", "down-29"}
    health.ended(busy, clock(), True)
    passes = [taken(health, f"held-{i}", clock()) for i in range(100)]
    for given in passes:
        health.ended(given, clock(), True)
    assert len(health.snapshot(clock())) <= 16

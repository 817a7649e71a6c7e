"""How long one who comes would wait for a slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.llamacpp.fair import CLASSES, NORMAL, TOP
from lumen.workers.llamacpp.turns import Backlog, Turn, Turns, again

LOW = CLASSES.index("low")


def busy(slots: int, waiting: int, *, hold: float = 8.0, caller: str = "a") -> Turns:
    """Every slot is taken, answers hold theirs for `hold` seconds, and so many wait."""
    turns = Turns(slots)
    for _ in range(slots):
        done = turns.join("old", NORMAL, 1)
        turns.begin(done, 0.0)
        turns.leave(done, hold)
    for _ in range(slots):
        turns.begin(turns.join("old", NORMAL, 1), hold)
    for _ in range(waiting):
        turns.join(caller, NORMAL, 1)
    return turns


def test_nobody_waits_for_a_free_slot() -> None:
    turns = Turns(2)
    assert turns.wait("a", NORMAL, 0.0) == 0.0
    first = turns.join("a", NORMAL, 1)
    turns.begin(first, 0.0)
    assert turns.wait("a", NORMAL, 100.0) == 0.0
    turns.begin(turns.join("a", NORMAL, 1), 0.0)
    assert turns.wait("a", NORMAL, 100.0) == 50.0, "two answers have taken 100 seconds so far, so one ends every 50"


def test_the_wait_is_by_how_long_answers_hold_their_slots() -> None:
    assert busy(4, 0).wait("a", NORMAL, 8.0) == 2.0
    assert busy(4, 7).wait("a", NORMAL, 8.0) == 16.0
    assert busy(4, 7).wait("a", NORMAL, 8.0 + 20.0) == 40.0, "those that run take longer than those before"
    assert (again(15.2), again(800.0), again(0.0)) == (16, 60, 1)


def test_an_hour_without_anybody_makes_nobody_wait() -> None:
    turns = Turns(4)
    for at in (0.0, 10.0, 20.0, 3600.0):
        one = turns.join("a", NORMAL, 1)
        turns.begin(one, at)
        turns.leave(one, at + 2.0)
    for _ in range(4):
        turns.begin(turns.join("a", NORMAL, 1), 7200.0)
    turns.join("a", NORMAL, 1)
    assert turns.wait("a", NORMAL, 7200.0) == 1.0


def test_a_burst_into_free_slots_waits_for_nothing() -> None:
    turns = busy(8, 0)
    for turn in list(turns._running):
        turns.leave(turn, 16.0)
    for _ in range(7):
        turns.join("a", NORMAL, 1)
    assert turns.wait("a", NORMAL, 16.0) == 0.0


def test_callers_take_turns_and_classes_go_first() -> None:
    crowded = busy(4, 100, caller="greedy")
    assert crowded.wait("greedy", NORMAL, 8.0) == 202.0
    assert crowded.wait("modest", NORMAL, 8.0) == 4.0, "one of the other's, then its own"
    assert crowded.wait("modest", TOP, 8.0) == 2.0
    assert crowded.wait("modest", LOW, 8.0) == 202.0


def test_what_is_computed_one_by_one_takes_as_long_as_the_last_took() -> None:
    backlog, now = Backlog(), 0.0

    def done(tokens: int, seconds: float) -> None:
        nonlocal now
        backlog.join(tokens)
        backlog.leave(tokens, now, now + seconds, whole=True)
        now += seconds

    done(100, 30.0)  # the first one finds everything cold
    for _ in range(2):
        done(100, 1.0)
    backlog.join(1000)
    assert backlog.wait() == 0.0, "too little is known"
    backlog.leave(1000, now, now, whole=False)
    done(100, 1.0)
    for _ in range(3):
        backlog.join(100)
    assert backlog.wait() == 3.0
    # They came together, and the second began only when the first had ended.
    backlog.leave(100, now, now + 1.0, whole=True)
    backlog.leave(100, now, now + 2.0, whole=True)
    assert backlog.wait() == 1.0
    backlog.join(10_000)
    assert backlog.wait() == 2.0, "no more than as many of the usual ones take"
    backlog.leave(10_000, now, now, whole=False)
    backlog.leave(100, now, now, whole=False)
    assert backlog.wait() == 0.0


@given(st.lists(st.tuples(st.sampled_from(["join", "begin", "leave"]), st.integers(0, 9), st.integers(0, 2))))
def test_whoever_left_is_forgotten(steps: list[tuple[str, int, int]]) -> None:
    turns, there, now = Turns(2), list[Turn](), 0.0
    for what, which, rank in steps:
        now += 1.0
        if what == "join":
            there.append(turns.join(str(which), rank, 1 + which % 2))
        elif there:
            turn = there[which % len(there)]
            if what == "begin" and turn.begun is None:
                turns.begin(turn, now)
            elif what == "leave":
                turns.leave(turn, now)
                there.remove(turn)
        assert turns.wait("z", LOW, now) >= turns.wait("z", TOP, now) >= 0.0
    for turn in there:
        turns.leave(turn, now)
    assert not turns._waiting and not turns._running
    assert turns.wait("z", LOW, now) == 0.0

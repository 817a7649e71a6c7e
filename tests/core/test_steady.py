"""The ledger's clock: it never goes back, and what costs money waits for a moment where the machine's own did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lumen.core.steady import SETTLED, TOLERANCE, Steady

SECOND = 1_000_000


def test_a_clock_set_back_goes_on_at_half_its_pace_until_it_is_caught_up_with() -> None:
    clock = Steady(wall=1000 * SECOND, mono=0)
    assert clock.now(1010 * SECOND, 10 * SECOND) == 1010 * SECOND
    # Back by 100 s.
    assert clock.now(910 * SECOND, 10 * SECOND) == 1010 * SECOND
    assert clock.now(1010 * SECOND, 110 * SECOND) == 1060 * SECOND
    assert clock.now(1110 * SECOND, 210 * SECOND) == 1110 * SECOND
    assert clock.now(1200 * SECOND, 300 * SECOND) == 1200 * SECOND


def test_a_clock_starts_no_earlier_than_the_ledger_ended() -> None:
    clock = Steady(wall=1000, mono=0, latest=5000)
    assert clock.now(1000, 0) == 5000
    assert clock.now(6000, 5000) == 7500
    assert clock.now(9000, 8000) == 9000


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 10**6)), max_size=50))
def test_it_never_goes_back_and_never_outruns_both_clocks(steps: list[tuple[int, int]]) -> None:
    wall, mono = 10**12, 0
    clock, before = Steady(wall, mono), 10**12
    highest = wall
    for step, passed in steps:
        wall, mono = wall + passed + step, mono + passed
        highest = max(highest + passed, wall)
        now = clock.now(wall, mono)
        assert max(before, wall) <= now <= highest
        before = now


def at(clock: Steady, wall: int, mono: int) -> int:
    """Seconds that what costs money still waits, once the clocks were looked at."""
    clock.now(wall, mono)
    return clock.unsettled(mono) // SECOND


def test_a_step_back_is_caught_up_with_or_taken_for_good_after_a_minute() -> None:
    clock = Steady(wall=1000 * SECOND, mono=0)
    assert at(clock, 1010 * SECOND, 10 * SECOND) == 0
    # Back by 21 s: at half the pace that is caught up with, but for the tolerance, after twice the rest.
    assert at(clock, 989 * SECOND, 10 * SECOND) == 60
    assert at(clock, 999 * SECOND, 20 * SECOND) == 50
    assert at(clock, 1020 * SECOND, 41 * SECOND) == 29
    assert at(clock, 1021 * SECOND, 42 * SECOND) == 0
    # Back by a year, for good.
    year = 365 * 86_400
    assert at(clock, (1100 - year) * SECOND, 100 * SECOND) == 60
    assert at(clock, (1159 - year) * SECOND, 159 * SECOND) == 1
    assert at(clock, (1160 - year) * SECOND, 160 * SECOND) == 0
    assert at(clock, (9000 - year) * SECOND, 8000 * SECOND) == 0
    # And back once more.
    assert at(clock, (8990 - year) * SECOND, 8000 * SECOND) == 60
    # Corrected at once.
    assert at(clock, 10_000 * SECOND, 8001 * SECOND) == 0


def test_small_steps_are_borne_until_they_add_up() -> None:
    clock = Steady(wall=1000 * SECOND, mono=0)
    assert at(clock, 996 * SECOND, 0) == 0
    assert at(clock, 995 * SECOND, 0) == 0
    assert at(clock, 994 * SECOND, 0) == 60


def test_a_ledger_from_the_future_is_a_step_back_too() -> None:
    clock = Steady(wall=1000 * SECOND, mono=0, latest=1006 * SECOND)
    assert clock.unsettled(0) == SETTLED
    assert at(clock, 1059 * SECOND, 59 * SECOND) == 0


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 10**8)), max_size=50))
def test_the_wait_is_bounded_and_only_behind_the_tolerance(steps: list[tuple[int, int]]) -> None:
    wall, mono = 10**12, 0
    clock = Steady(wall, mono)
    for step, passed in steps:
        wall, mono = wall + passed + step, mono + passed
        now = clock.now(wall, mono)
        left = clock.unsettled(mono)
        assert 0 <= left <= SETTLED
        assert not left or now - wall > TOLERANCE
        # Without another step it ends, whether it is looked at meanwhile or not.
        assert clock.unsettled(mono + SETTLED) == 0

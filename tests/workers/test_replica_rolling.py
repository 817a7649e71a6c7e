from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.rolling import Moves, Seen, moves


def old(index: int, ready: bool = True) -> Seen:
    return Seen(index, current=False, ready=ready)


def new(index: int, ready: bool = True) -> Seen:
    return Seen(index, current=True, ready=ready)


def test_from_nothing_all_are_started() -> None:
    assert moves([], 2, beside=True, ending=False) == Moves((0, 1), ())


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert moves([new(0), new(1, ready=False)], 2, beside=True, ending=True) == Moves((), ())


def test_the_old_ones_serve_until_the_new_ones_do() -> None:
    assert moves([old(0), old(1)], 2, beside=True, ending=False) == Moves((0, 1), ())
    assert moves([old(0), old(1), new(0), new(1, ready=False)], 2, beside=True, ending=False).stop == (1,)
    assert moves([old(0), new(0), new(1)], 2, beside=True, ending=False) == Moves((), (0,))


def test_an_old_one_that_does_not_serve_is_stopped_at_once() -> None:
    assert moves([old(0, ready=False)], 1, beside=True, ending=False) == Moves((0,), (0,))


def test_fewer_means_the_idle_and_the_highest_go() -> None:
    assert moves([new(0), new(1), new(2)], 1, beside=True, ending=False) == Moves((), (2, 1))
    assert moves([new(0, ready=False), new(1)], 1, beside=True, ending=False) == Moves((), (0,))


def test_on_one_fixed_port_the_old_one_goes_first() -> None:
    assert moves([old(0)], 1, beside=False, ending=False) == Moves((), (0,))
    assert moves([], 1, beside=False, ending=True) == Moves((), ())
    assert moves([], 1, beside=False, ending=False) == Moves((0,), ())


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6), st.integers(0, 4))
def test_service_is_never_reduced_below_what_is_wanted_or_there(kinds: list[tuple[bool, bool]], count: int) -> None:
    seen = [Seen(place, current, ready) for place, (current, ready) in enumerate(kinds)]
    todo = moves(seen, count, beside=True, ending=False)
    left = [one for place, one in enumerate(seen) if place not in todo.stop]
    assert sum(one.ready for one in left) >= min(count, sum(one.ready for one in seen))
    assert sum(one.current for one in left) + len(todo.start) == count
    indices = [one.index for one in left if one.current] + list(todo.start)
    assert len(set(indices)) == count


@given(st.integers(0, 3), st.integers(1, 3))
def test_it_comes_to_rest(before: int, count: int) -> None:
    replicas = [old(index) for index in range(before)]
    for _ in range(4):
        todo = moves(replicas, count, beside=True, ending=False)
        replicas = [one for place, one in enumerate(replicas) if place not in todo.stop]
        replicas += [new(index) for index in todo.start]
    assert sorted(replicas, key=lambda one: one.index) == [new(index) for index in range(count)]

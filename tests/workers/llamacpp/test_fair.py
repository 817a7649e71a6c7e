"""The order of those who wait: shares, classes, and that nobody starves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.fair import CLASSES, NORMAL, TOP, FairQueue

QUANTUM = 100
LOW, HIGH = CLASSES.index("low"), TOP


@dataclass(eq=False)
class One:
    caller: str
    cost: int = 10
    rank: int = NORMAL
    since: float = 0.0


def serve(queue: FairQueue[One], now: float = 0.0) -> One:
    one = queue.next(now)
    assert one is not None
    assert queue.next(now) is one
    queue.take(one)
    return one


costs = st.integers(1, QUANTUM)


@given(st.lists(st.lists(costs, min_size=30, max_size=30), min_size=2, max_size=5), st.data())
def test_whoever_has_something_waiting_all_the_time_gets_the_same_within_a_quantum_and_one_answer(
    wanted: list[list[int]], data: st.DataObject
) -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    everyone = [One(str(i), cost) for i, line in enumerate(wanted) for cost in line]
    queue.extend(data.draw(st.permutations(everyone)))
    served: Counter[str] = Counter({str(i): 0 for i in range(len(wanted))})
    waiting = Counter(one.caller for one in everyone)
    while all(waiting.values()):
        one = serve(queue)
        served[one.caller] += one.cost
        waiting[one.caller] -= 1
        assert max(served.values()) - min(served.values()) <= QUANTUM + max(one.cost for one in everyone)


@given(st.lists(st.tuples(st.sampled_from("abc"), costs, st.integers(0, TOP)), max_size=60))
def test_everyone_is_served_once_and_of_one_caller_and_class_in_order(asked: list[tuple[str, int, int]]) -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    everyone = [One(caller, cost, rank, since=i / 1e6) for i, (caller, cost, rank) in enumerate(asked)]
    queue.extend(everyone)
    assert len(queue) == len(everyone) == len(list(queue))
    served = [serve(queue) for _ in everyone]
    assert not queue
    assert queue.next(0.0) is None
    assert [one.rank for one in served] == sorted((one.rank for one in everyone), reverse=True)
    for caller in "abc":
        for rank in range(TOP + 1):
            alike = [one.since for one in served if (one.caller, one.rank) == (caller, rank)]
            assert alike == sorted(alike)


@settings(max_examples=30)
@given(st.lists(st.tuples(costs, st.integers(0, TOP), st.booleans()), min_size=400, max_size=400), costs)
def test_the_lowest_class_is_served_in_the_end_whoever_else_keeps_coming(
    others: list[tuple[int, int, bool]], cost: int
) -> None:
    """A new request for every one served, from one rival or from ever new ones."""
    queue: FairQueue[One] = FairQueue(QUANTUM)
    poor = One("poor", cost, LOW)
    queue.extend([One(f"first {i}", QUANTUM, HIGH) for i in range(10)] + [poor])
    for now, (price, rank, fresh) in enumerate(others):
        queue.extend([One(f"rival {now}" if fresh else "rival", price, rank, since=float(now))])
        if serve(queue, float(now)) is poor:
            # Once it is as good as the highest, each of those before it has a turn, which is a quantum of their tokens.
            return
    raise AssertionError("it starved")


def test_a_class_goes_before_a_lower_one_until_that_has_waited() -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    low, normal, high = One("a", rank=LOW), One("b"), One("a", rank=HIGH, since=5.0)
    queue.extend([low, normal, high])
    assert queue.next(6.0) is high
    queue.remove(high)
    assert queue.next(6.0) is normal
    late = One("b", rank=HIGH, since=19.0)
    queue.remove(normal)
    queue.extend([late])
    assert queue.next(19.0) is late
    assert serve(queue, 20.0) is late or queue.next(20.0) is late
    assert queue.next(20.0) is low


def test_who_floods_the_queue_delays_nobody_else() -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    queue.extend([One("flood", QUANTUM) for _ in range(1000)])
    for _ in range(3):
        assert serve(queue).caller == "flood"
    queue.extend([One("other", QUANTUM)])
    assert "other" in [serve(queue).caller for _ in range(3)]


def test_what_an_answer_cost_beyond_its_charge_is_settled() -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    queue.extend([One(caller, 50) for _ in range(20) for caller in "ab"])
    first = serve(queue).caller
    queue.settle(first, 500)
    other = [serve(queue).caller for _ in range(9)]
    assert other.count(first) <= 2
    queue.settle("nobody", 500)


def test_who_is_away_saves_nothing_up() -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    for _ in range(50):
        queue.extend([One("a", 1)])
        serve(queue)
    queue.extend([One(caller, 50) for _ in range(10) for caller in "ab"])
    assert abs(Counter(serve(queue).caller for _ in range(10))["a"] - 5) <= 2


def test_who_had_to_make_room_is_next_and_not_charged_again() -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    queue.extend([One("a"), One("b", rank=HIGH)])
    out = One("c", rank=LOW)
    queue.put_back(out)
    assert len(queue) == 3
    assert serve(queue) is out
    assert serve(queue).caller == "b"


def test_one_that_is_skipped_keeps_its_place() -> None:
    queue: FairQueue[One] = FairQueue(QUANTUM)
    first, second = One("a"), One("a", since=1.0)
    queue.extend([first, second])
    assert queue.next(1.0, {first}) is second
    assert queue.next(1.0, {first, second}) is None
    assert queue.next(1.0) is first

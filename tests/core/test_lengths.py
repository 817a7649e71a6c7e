from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from lumen.core.lengths import FLOOR, UNKNOWN, Lengths


def test_little_known_is_no_reason_to_cut_short() -> None:
    lengths = Lengths()
    for _ in range(19):
        lengths.add(10)
    assert lengths.bound() == UNKNOWN
    assert lengths.bound(most=1000) == 1000


@given(st.lists(st.integers(0, 100_000), min_size=20, max_size=400))
def test_ninety_nine_of_a_hundred_answers_fit(answers: list[int]) -> None:
    lengths = Lengths()
    for answer in answers:
        lengths.add(answer)
    bound = lengths.bound()
    assert bound >= FLOOR
    assert sum(answer <= bound for answer in answers) >= 0.99 * len(answers) - 1e-9
    p99 = sorted(answers)[-(-len(answers) * 99 // 100) - 1]
    assert bound <= max(FLOOR, p99 * 1.25 * 1.20 + 2)


@given(st.lists(st.integers(0, 3_000_000), min_size=20, max_size=300), st.integers(1, 12))
def test_the_bound_is_that_of_all_that_is_remembered(answers: list[int], times: int) -> None:
    lengths = Lengths()
    for answer in answers * times:
        lengths.add(answer)
        needed = -(-lengths._total * 99 // 100)
        upto = accumulate(lengths._counts)
        at = next(bucket for bucket, seen in enumerate(upto) if seen >= needed)
        assert lengths._at == at


def test_short_answers_are_held_at_the_floor() -> None:
    lengths = Lengths()
    for _ in range(100):
        lengths.add(12)
    assert lengths.bound() == FLOOR


def test_answers_that_are_cut_raise_the_bound_until_they_fit() -> None:
    lengths = Lengths()
    for _ in range(500):
        lengths.add(100)
    bounds = [lengths.bound()]
    for _ in range(3000):
        lengths.add(min(4000, lengths.bound()))
        bounds.append(lengths.bound())
    assert bounds[0] == FLOOR
    assert bounds[-1] >= 4000


def test_what_a_route_once_did_is_forgotten() -> None:
    lengths = Lengths()
    for _ in range(2000):
        lengths.add(50_000)
    for _ in range(20_000):
        lengths.add(100)
    assert lengths.bound() == FLOOR

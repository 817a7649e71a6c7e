from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.histogram import Histogram

BOUNDS = (0.1, 0.2, 0.5, 1.0)


@given(st.lists(st.floats(0, 3)))
def test_every_observation_is_counted_where_it_belongs(values: list[float]) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.add(value)
    assert histogram.count == len(values)
    assert histogram.sum == sum(values)
    for bound, count in histogram.cumulative():
        assert count == sum(value <= bound for value in values)


@given(st.lists(st.floats(0, 3) | st.sampled_from(BOUNDS)), st.lists(st.floats(0, 3)))
def test_many_at_once_count_like_one_by_one(values: list[float], more: list[float]) -> None:
    apart, together = Histogram(BOUNDS), Histogram(BOUNDS)
    for value in values + more:
        apart.add(value)
    together.extend(values)
    together.extend(more)
    assert together.counts == apart.counts
    assert together.sum == pytest.approx(apart.sum)


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.add(value)
    found = histogram.quantile(share)
    assert found is not None
    rank = share * len(values)
    assert sum(value <= bound for value in values for bound in [_up(found)]) >= rank - 1e-9
    assert sum(value <= bound for value in values for bound in [_down(found)]) <= rank + 1e-9


def test_nothing_has_no_quantile_and_what_is_beyond_is_at_the_last_bound() -> None:
    histogram = Histogram(BOUNDS)
    assert histogram.quantile(0.5) is None
    histogram.add(7.0)
    assert histogram.quantile(0.5) == 1.0


def _up(value: float) -> float:
    return next((bound for bound in BOUNDS if value <= bound), BOUNDS[-1])


def _down(value: float) -> float:
    return max((bound for bound in (-1.0, *BOUNDS) if bound < value), default=-1.0)

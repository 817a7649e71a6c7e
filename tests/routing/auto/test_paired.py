"""The exact test of paired differences, against counting every outcome."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.routing.auto import paired


def counted(seen: float, rows: int, limit: float, share: float) -> float:
    """The chance of a statistic of at most `seen`, outcome by outcome."""
    up, down = (share + limit) / 2, (share - limit) / 2
    total = 0.0
    for of in range(rows + 1):
        ups = np.arange(of + 1)
        for i in ups[paired.statistic(ups, np.full(of + 1, of), rows, limit) <= seen + 1e-12]:
            here = comb(rows, of) * comb(of, int(i))
            total += here * up ** int(i) * down ** (of - int(i)) * (1 - share) ** (rows - of)
    return total


@pytest.mark.parametrize(("net", "discordant", "share"), [(-3, 5, 0.2), (0, 4, 0.1), (-8, 12, 0.3), (1, 1, 0.06)])
def test_the_chance_is_that_of_all_outcomes(net: int, discordant: int, share: float) -> None:
    up = (discordant + net) // 2
    seen = float(paired.statistic(np.array([up]), np.array([discordant]), 40, 0.05)[0])
    assert paired._at_most(seen, 40, 0.05, np.array([share])) == pytest.approx(counted(seen, 40, 0.05, share), abs=1e-7)


@given(st.integers(2, 400), st.floats(1e-4, 0.4), st.data())
def test_the_statistic_grows_with_those_that_lose(rows: int, limit: float, data: st.DataObject) -> None:
    of = data.draw(st.integers(0, rows))
    found = paired.statistic(np.arange(of + 1), np.full(of + 1, of), rows, limit)
    assert (np.diff(found) >= -1e-9).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(60, 400), st.floats(0.01, 0.05), st.floats(0.06, 0.3))
def test_at_the_limit_it_is_passed_no_more_often_than_allowed(rows: int, limit: float, share: float) -> None:
    """Exactly, not by simulation: for each number of discordant rows, the most that may lose."""
    passed = 0.0
    for of in range(rows + 1):
        weight = paired._pmf(np.array([of]), np.array([rows]), share)[0]
        if weight < 1e-9:
            continue
        low, high = -1, of
        while low < high:
            up = (low + high + 1) // 2
            low, high = (up, high) if paired.chance(2 * up - of, of, rows, limit, 0.05) <= 0.05 else (low, up - 1)
        if low >= 0:
            passed += weight * paired._below(np.array([low]), np.array([of]), (share + limit) / (2 * share))[0]
    assert passed <= 0.05


def test_clopper_and_pearson() -> None:
    low, high = paired.share_within(5, 50, 0.025)
    assert low == pytest.approx(0.0333, abs=2e-3) and high == pytest.approx(0.2181, abs=2e-3)
    assert low <= 0.0333 and high >= 0.2181
    assert paired.share_within(0, 50, 0.025)[0] == 0.0 and paired.share_within(50, 50, 0.025)[1] == 1.0


def test_what_says_nothing_passes_nothing() -> None:
    assert paired.chance(0, 0, 300, 0.0, 0.05) == 1.0
    assert paired.chance(9, 9, 300, 0.01, 0.05) == 1.0
    assert paired.chance(0, 0, 1000, 0.01, 0.05) < 0.05

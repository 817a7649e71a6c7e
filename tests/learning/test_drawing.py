from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lumen.learning.drawing import SPREAD, Strata, first


@given(
    share=st.floats(0.001, 1.0),
    losses=st.lists(st.floats(-1.0, 1.0), max_size=200),
)
def test_every_chance_is_one_that_can_be_weighted_by(share: float, losses: list[float]) -> None:
    strata = Strata()
    for loss in losses:
        assert share / SPREAD - 1e-12 <= strata.chance(loss, share) <= first(share) + 1e-12


def test_all_in_all_the_share_is_drawn_and_rare_bands_more_often() -> None:
    counts, easy_sum, hard_sum = [], 0.0, 0.0
    for seed in range(10):
        rng, strata = random.Random(seed), Strata()
        drawn: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(10_000):
            easy = rng.random() < 0.95
            chance = strata.chance(-0.5 if easy else 0.15, 0.05)
            if rng.random() < chance:
                drawn[easy].append(1 / chance)
        assert len(drawn[False]) / 500 > 2 * len(drawn[True]) / 9_500
        counts.append(len(drawn[True]) + len(drawn[False]))
        easy_sum, hard_sum = easy_sum + sum(drawn[True]), hard_sum + sum(drawn[False])
    assert 0.04 * 10_000 < sum(counts) / 10 < 0.055 * 10_000
    # Weighted by one over their chance they stand for all requests of their band.
    assert abs(hard_sum / 10 - 500) < 25
    assert abs(easy_sum / 10 - 9_500) < 400

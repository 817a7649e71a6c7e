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
    rng, strata = random.Random(3), Strata()
    drawn: dict[str, list[float]] = {"easy": [], "hard": []}
    for _ in range(20_000):
        easy = rng.random() < 0.95
        chance = strata.chance(-0.5 if easy else 0.15, 0.05)
        if rng.random() < chance:
            drawn["easy" if easy else "hard"].append(1 / chance)
    count = len(drawn["easy"]) + len(drawn["hard"])
    assert 0.02 * 20_000 < count <= 0.055 * 20_000
    assert len(drawn["hard"]) / 1_000 > 2 * len(drawn["easy"]) / 19_000
    # Weighted by one over their chance they stand for all requests of their band.
    assert abs(sum(drawn["hard"]) - 1_000) < 200
    assert abs(sum(drawn["easy"]) - 19_000) < 2_500

"""Qualities that are found out after their answers were counted."""

from __future__ import annotations

import random

from lumen.routing.rollout.canary import Canary, Plan, Status
from lumen.routing.rollout.guards import Margins, Observation

GOOD = Observation(ttft=0.5, cost=1.0)


def rollout(candidate: float, seed: int, guards: tuple[str, ...] = ("quality",)) -> Canary:
    """Every answer is rated, some answers after it; `candidate`: its share of good ones, against nine of ten."""
    rng = random.Random(seed)
    canary = Canary(Plan(guards=guards, margins=Margins(quality=0.1), most=3_000))
    while canary.status is Status.RUNNING:
        canary.observe(GOOD, candidate=False)
        canary.observe(GOOD, candidate=True)
        canary.rate(float(rng.random() < 0.9), candidate=False)
        canary.rate(float(rng.random() < candidate), candidate=True)
    return canary


def test_a_rating_counts_no_answer_and_moves_no_other_guard() -> None:
    canary = Canary(Plan())
    before = canary.wealth("errors")
    for _ in range(10):
        canary.rate(1.0, candidate=True)
        canary.rate(1.0, candidate=False)
    assert (canary.answers, canary.ratings) == (0, 10)
    assert canary.wealth("errors") == before
    assert canary.wealth("quality") != (0.0, 0.0)


def test_ratings_alone_promote_the_equal_and_roll_back_the_worse() -> None:
    assert sum(rollout(0.9, seed).status is Status.PROMOTED for seed in range(50)) >= 45
    assert all(rollout(0.1, seed).status is Status.ROLLED_BACK for seed in range(50))
    assert sum(rollout(0.8, seed).status is Status.PROMOTED for seed in range(100)) <= 5


def test_ratings_survive_being_kept() -> None:
    canary = Canary(Plan())
    canary.rate(1.0, candidate=True)
    canary.rate(0.0, candidate=False)
    again = Canary.load(canary.dump())
    assert again.ratings == 1 and again.wealth("quality") == canary.wealth("quality")


def test_nothing_is_rated_where_quality_is_no_guard() -> None:
    canary = Canary(Plan(guards=("errors",)))
    for _ in range(5):
        assert canary.rate(0.0, candidate=True) is None
        assert canary.rate(1.0, candidate=False) is None
    assert canary.ratings == 0

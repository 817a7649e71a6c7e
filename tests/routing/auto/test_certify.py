from __future__ import annotations

import numpy as np
import pytest

from lumen.routing.auto.certify import certify, repeated
from lumen.routing.auto.learner import fit_table
from lumen.routing.auto.scorer import Scorer
from tests.routing.auto.made import labelled


def drawn(rows: int, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Losses with the given true means and a fifth of the rows discordant."""
    u = rng.random(rows)
    return np.where(u < (0.2 + mean) / 2, 1.0, np.where(u < 0.2, -1.0, 0.0))


def test_the_promise_holds_over_draws() -> None:
    rng = np.random.default_rng(1)
    broken, shares = 0, []
    for _ in range(100):
        scores = rng.random(1500)
        found = certify(scores, drawn(1500, 0.15 * (scores - 0.25), rng), 0.01, 0.95)
        away = found.share
        # The true loss of sending away the lowest scores is the integral of their means.
        broken += 0.15 * (away**2 / 2 - 0.25 * away) > 0.01
        shares.append(away)
    assert broken <= 5
    assert np.mean(shares) > 0.3


def test_few_labels_stay_with_strong() -> None:
    found = certify(np.arange(299.0), np.zeros(299), 0.01, 0.95)
    assert found.score is None and found.share == 0 and "fewer than 300" in found.why


def test_nothing_can_go_where_everything_loses() -> None:
    assert certify(np.arange(1000.0), np.ones(1000), 0.01, 0.95).score is None


def test_everything_can_go_where_nothing_loses() -> None:
    found = certify(np.arange(1000.0), np.zeros(1000), 0.01, 0.95)
    assert found.share == 1.0 and found.loss == 0.0 and found.bound <= 0.01


def test_equal_scores_are_not_torn_apart() -> None:
    scores = np.repeat([0.0, 1.0], 500)
    found = certify(scores, np.concatenate((np.zeros(500), np.ones(500))), 0.01, 0.95)
    assert found.score == 0.0 and found.share == 0.5


def test_learner_and_threshold_together() -> None:
    rows, labels, chances = labelled(1500, 2)
    learnt = fit_table(rows, labels, ("weak", "strong"), "strong")
    found = certify(learnt.loss[:, 0], labels.ok[:, 1] - labels.ok[:, 0], 0.03, 0.95)
    assert 0.2 < found.share < 0.7 and found.score is not None
    fresh, _, truth = labelled(2000, 3)
    away = Scorer(learnt.model.certified(found)).score_table(fresh).loss[:, 0] <= found.score
    assert ((truth[:, 1] - truth[:, 0]) * away).mean() <= 0.03
    assert chances.shape == (1500, 2)


def test_a_threshold_does_not_fall_among_requests_that_are_nearly_the_same() -> None:
    """A little of the hard half is within the limit, but a new one of them may be any of them."""
    rng = np.random.default_rng(3)
    hard = np.repeat([False, True], 500)
    scores = np.where(hard, 0.9, 0.0) + 1e-4 * rng.random(1000)
    found = certify(scores, np.where(hard, rng.random(1000) < 0.9, 0.0), 0.05, 0.95)
    assert found.score is not None and found.score < 0.1 and found.share >= 0.49


def test_a_threshold_among_scores_that_spread_evenly_stays_where_it_was_certified() -> None:
    rng = np.random.default_rng(7)
    scores = rng.standard_normal(3000)
    losses = np.where(scores < 0.25, 0.0, 1.0)
    found = certify(scores, losses, 0.01, 0.95)
    assert found.score is not None and found.share == pytest.approx(np.mean(scores < 0.25), abs=0.011)


def test_requests_asked_again_and_again_count_as_one_each() -> None:
    """Two hundred requests, ten times each with the same outcome: as much as two hundred labels, no more."""
    rng = np.random.default_rng(4)
    each = drawn(200, np.full(200, -0.02), rng)
    losses, groups = np.repeat(each, 10), np.repeat(np.arange(200), 10)
    assert repeated(losses, groups) == pytest.approx(10.0, rel=0.01)
    scores = np.repeat(rng.random(200), 10)
    assert certify(scores, losses, 0.02, 0.95).share > certify(scores, losses, 0.02, 0.95, groups).share


def test_labels_that_are_no_more_alike_within_groups_count_in_full() -> None:
    losses = drawn(2000, np.zeros(2000), np.random.default_rng(5))
    assert repeated(losses, np.repeat(np.arange(200), 10)) < 1.2
    assert repeated(losses, np.arange(2000)) == 1.0 == repeated(losses, np.zeros(2000, np.int64))


def test_the_promise_holds_where_requests_come_in_groups() -> None:
    """What repeats is drawn as a whole: without groups the promise breaks far more often than allowed."""
    rng, broken = np.random.default_rng(6), {True: 0, False: 0}
    for _ in range(60):
        each = rng.random(150)
        losses = np.repeat(drawn(150, 0.3 * (each - 0.4), rng), 8)
        scores, groups = np.repeat(each, 8), np.repeat(np.arange(150), 8)
        for together in broken:
            sent = certify(scores, losses, 0.01, 0.9, groups if together else None).score or 0.0
            # The true loss of sending away the lowest scores is the integral of their means.
            broken[together] += 0.3 * (sent**2 / 2 - 0.4 * sent) > 0.01
    assert broken[True] <= 6 and broken[False] >= 12

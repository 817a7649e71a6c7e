from __future__ import annotations

import numpy as np
import pytest

from lumen.routing.auto import certify as module
from lumen.routing.auto.certify import certify
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
    for _ in range(200):
        scores = rng.random(1500)
        found = certify(scores, drawn(1500, 0.15 * (scores - 0.25), rng), 0.01, 0.95)
        away = found.share
        # The true loss of sending away the lowest scores is the integral of their means.
        broken += 0.15 * (away**2 / 2 - 0.25 * away) > 0.01
        shares.append(away)
    assert broken <= 10
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


@pytest.mark.parametrize("net", [-3, 0, 2])
def test_the_tail_is_exact(net: int) -> None:
    rows, mean, share = 6, 0.1, 0.5
    up, down = (share + mean) / 2, (share - mean) / 2
    chances = np.array([1.0])
    for _ in range(rows):
        chances = np.convolve(chances, [down, 1 - share, up])
    assert module._tail(net, rows, mean, share) == pytest.approx(chances[: rows + net + 1].sum(), abs=1e-12)


def test_learner_and_threshold_together() -> None:
    rows, labels, chances = labelled(1500, 2)
    learnt = fit_table(rows, labels, ("weak", "strong"), "strong")
    found = certify(learnt.loss[:, 0], labels.ok[:, 1] - labels.ok[:, 0], 0.03, 0.95)
    assert 0.2 < found.share < 0.7 and found.score is not None
    fresh, _, truth = labelled(2000, 3)
    away = Scorer(learnt.model.certified(found)).score_table(fresh).loss[:, 0] <= found.score
    assert ((truth[:, 1] - truth[:, 0]) * away).mean() <= 0.03
    assert chances.shape == (1500, 2)

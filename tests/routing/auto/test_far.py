"""Far from all labels a request's looks decide; near them, what was learnt."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lumen.routing.auto.ask import Ask
from lumen.routing.auto.far import Far
from lumen.routing.auto.features import table
from lumen.routing.auto.learner import Row, fit
from lumen.routing.auto.model import Model
from lumen.routing.auto.scorer import Scorer

FAR = Far.of(0.3, 0.5, np.array([0.0, 1.0, 2.0]), np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]]))


def test_near_labels_the_prior_says_nothing_and_far_from_them_alone() -> None:
    learnt = np.array([[0.25, 0.0]] * 3)
    same = FAR.blend(learnt, np.array([0.5, 0.7, 1.0]), np.array([-9.0, 0.0, 9.0]))
    assert np.allclose(same, learnt)
    looks = FAR.blend(np.array([[9.0, 0.0]] * 3), np.array([0.3, 0.1, 0.0]), np.array([0.0, 1.0, 2.0]))
    assert looks[0, 0] < looks[1, 0] < looks[2, 0]
    assert abs(looks[1, 0] - 0.2) < 1e-9


@given(st.floats(0, 1), st.floats(-5, 5), st.floats(-1, 1))
def test_the_strong_target_loses_nothing_against_itself(nearest: float, looks: float, loss: float) -> None:
    assert FAR.blend(np.array([[loss, 0.0]]), np.array([nearest]), np.array([looks]))[0, 1] == 0.0


def test_it_is_kept_with_the_model() -> None:
    rows = [Row(Ask(f"question number {i} about {'tea' * (i % 5)}"), {"a": i % 2, "b": 1.0}, {}) for i in range(60)]
    learnt = fit(rows, ("a", "b"), "b")
    again = Scorer(Model.from_bytes(learnt.model.to_bytes()))
    seen = table([Ask("completely different: ∮ F·dr over the boundary of a torus, with proof"), Ask("tea about 12")])
    assert np.array_equal(again.score_table(seen).loss, Scorer(learnt.model).score_table(seen).loss)

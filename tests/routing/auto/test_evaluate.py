from __future__ import annotations

import numpy as np
import pytest

from lumen.routing.auto import evaluate
from tests.routing.auto.made import labelled


def test_areas_are_those_of_the_definition() -> None:
    gains = np.array([1.0, 0.0, -1.0, 1.0, 0.0, 1.0])
    scores = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    curve = evaluate.recovered(scores, gains)
    assert evaluate.area(scores, gains) == pytest.approx(((curve[1:] + curve[:-1]) / 2).mean() * gains.mean())
    assert evaluate.area(np.zeros(6), gains) == pytest.approx(gains.mean() / 2)
    assert evaluate.calls(scores, gains, 0.3) == pytest.approx(1 / 6)


def test_a_draw_beats_chance_and_length() -> None:
    rows, labels, _ = labelled(900, 4)
    rng = np.random.default_rng(0)
    groups = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, 900)]
    found = [
        evaluate.run(rows, labels.ok, labels.tokens, draw, groups=groups, limit=0.02, confidence=0.95, rng=rng)
        for draw in evaluate.splits(900, 500, "random", groups, 3, rng)
    ]
    told = evaluate.summary(found, 0.02)
    baselines = told["baselines"]
    assert isinstance(baselines, dict) and isinstance(told["apgr"], float)
    assert told["apgr"] > 0.65 > baselines["random"] == pytest.approx(0.5)
    assert set(baselines) == {"random", "length", "prior", "prior with rates", "oracle", "group mean"}


def test_splits_keep_groups_apart() -> None:
    groups = np.array(list("aabbccdd") * 10, dtype=object)
    rng = np.random.default_rng(0)
    for draw in evaluate.splits(80, 30, "group", groups, 5, rng):
        assert not set(groups[draw.train]) & set(groups[draw.test])
    names = [draw.name for draw in evaluate.splits(80, 30, "leave-out", groups, 4, rng)]
    assert names == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="at least two groups"):
        next(evaluate.splits(80, 30, "group", None, 1, rng))

"""Every policy file found in lumen/routing is tested on arrival."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumen.routing
from lumen.routing.base import Candidate, policy
from lumen.routing.weighted import order as weighted

NAMES = sorted(p.stem for p in Path(lumen.routing.__file__).parent.glob("*.py") if p.stem not in ("__init__", "base"))


@pytest.mark.parametrize("name", NAMES)
@given(weights=st.lists(st.floats(0, 100), min_size=1, max_size=8), seed=st.integers())
def test_a_plan_holds_every_candidate_once_with_a_reason(name: str, weights: list[float], seed: int) -> None:
    candidates = [Candidate(i, f"t{i}", w) for i, w in enumerate(weights)]
    steps = policy(name)(candidates, random.Random(seed).random)
    assert sorted(step.key for step in steps) == list(range(len(weights)))
    assert all(step.reason for step in steps)
    assert steps == policy(name)(candidates, random.Random(seed).random)


def test_policies_were_found() -> None:
    assert {"weighted", "ordered"} <= set(NAMES)


def test_unknown_policy() -> None:
    with pytest.raises(LookupError, match="no routing policy named 'nope'"):
        policy("nope")


def test_weights_are_shares() -> None:
    draw = random.Random(7).random
    candidates = [Candidate(0, "a", 3), Candidate(1, "b", 1), Candidate(2, "c", 0)]
    firsts = [weighted(candidates, draw)[0].key for _ in range(8000)]
    assert abs(firsts.count(0) / 8000 - 0.75) < 0.02
    assert firsts.count(2) == 0
    assert all(weighted(candidates, draw)[-1].key == 2 for _ in range(100))

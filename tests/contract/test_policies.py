"""Every policy found in lumen/routing is tested on arrival."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.checks import known
from lumen.core.money import Price
from lumen.routing.base import Candidate, policy
from lumen.routing.plan.view import Past
from lumen.routing.weighted import order as weighted
from tests.routing.views import ToyScorer, World, candidates, view

NAMES = sorted(known("routing"))

PRICES = st.none() | st.builds(Price, st.integers(0, 10**7), st.integers(0, 10**7), st.none() | st.integers(0, 10**6))
TIMES = st.none() | st.floats(0.001, 60)


@st.composite
def worlds(draw: Any) -> tuple[list[Candidate], World, dict[str, Any]]:
    """Targets, what is known of them, and what the route wants."""
    count = draw(st.integers(1, 6))
    names = [f"t{i}" for i in range(count)]
    of = [Candidate(i, name, draw(st.floats(0, 100)), price=draw(PRICES)) for i, name in enumerate(names)]
    some = {name: draw(TIMES) for name in names}
    world = World(
        outs={name: "open" for name in names if draw(st.integers(0, 3)) == 0},
        firsts={name: seconds for name, seconds in some.items() if seconds is not None},
        answers={name: draw(st.floats(1, 5000)) for name in names if draw(st.booleans())},
        was=Past(draw(st.sampled_from([*names, "gone"])), draw(st.integers(0, 9000)), draw(st.integers(1, 9)))
        if draw(st.booleans())
        else None,
    )
    strong = draw(st.integers(0, count - 1))
    if draw(st.booleans()):
        said = {name: (draw(st.floats(0, 1)), draw(st.floats(-1, 1))) for name in names if draw(st.integers(0, 4))}
        world.scores = ToyScorer(said, names[strong], draw(st.none() | st.floats(-1, 1)))
    return of, world, {"strong": strong, "quality": draw(st.none() | st.floats(0, 1))}


@pytest.mark.parametrize("name", NAMES)
@given(found=worlds(), seed=st.integers(0, 2**32))
def test_a_plan_holds_every_candidate_once_with_a_reason_and_is_the_same_again(
    name: str, found: tuple[list[Candidate], World, dict[str, Any]], seed: int
) -> None:
    of, world, goal = found
    steps = policy(name)(of, view(of, world, seed=seed, **goal))
    assert sorted(step.key for step in steps) == list(range(len(of)))
    assert all(step.reason for step in steps)
    assert steps == policy(name)(of, view(of, world, seed=seed, **goal))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ordered", "weighted")])
@given(found=worlds(), seed=st.integers(0, 2**32))
def test_what_is_out_never_stands_before_what_is_not(
    name: str, found: tuple[list[Candidate], World, dict[str, Any]], seed: int
) -> None:
    of, world, goal = found
    out = [of[step.key].name in world.outs for step in policy(name)(of, view(of, world, seed=seed, **goal))]
    assert out == sorted(out)


def test_policies_were_found() -> None:
    assert {"auto", "cheapest", "fastest", "ordered", "quality", "sticky", "weighted"} == set(NAMES)


def test_unknown_policy() -> None:
    with pytest.raises(LookupError, match="no routing policy named 'nope'"):
        policy("nope")


def test_weights_are_shares() -> None:
    of = candidates("a", "b", "c", weights=[3.0, 1.0, 0.0])
    seen = view(of, seed=7)
    firsts = [weighted(of, seen)[0].key for _ in range(8000)]
    assert abs(firsts.count(0) / 8000 - 0.75) < 0.02
    assert firsts.count(2) == 0
    assert all(weighted(of, seen)[-1].key == 2 for _ in range(100))


def test_conversations_are_shares_and_stay() -> None:
    of = candidates("a", "b", "c", weights=[3.0, 1.0, 0.0])
    sticky, draw = policy("sticky"), random.Random(3)
    words = [str(draw.random()) for _ in range(3000)]
    asked = [{"messages": [{"role": "user", "content": word}]} for word in words]
    firsts = [sticky(of, view(of, body=body, seed=i))[0].key for i, body in enumerate(asked)]
    assert abs(firsts.count(0) / 3000 - 0.75) < 0.03
    assert firsts.count(2) == 0
    later = [{"messages": [*body["messages"], {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]}
             for body in asked]  # fmt: skip
    assert firsts == [sticky(of, view(of, body=body, seed=99))[0].key for body in later]
    # Without one of them only its own conversations move.
    fewer = [of[0], of[2]]
    assert all(
        sticky(fewer, view(of, body=body))[0].key == 0 for body, key in zip(asked, firsts, strict=True) if key == 0
    )

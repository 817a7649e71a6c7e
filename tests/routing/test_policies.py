"""What each policy prefers, and what `auto` needs before anything leaves the strong target."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.money import FREE, Price
from lumen.routing.auto import certify
from lumen.routing.auto import policy as auto
from lumen.routing.base import Step, policy
from lumen.routing.plan.stay import HOLD, stays
from lumen.routing.plan.view import Candidate, Past
from tests.routing.views import ToyScorer, World, candidates, view

CHEAP, DEAR = (100_000, 400_000), (2_000_000, 8_000_000)
LONG = {"messages": [{"role": "user", "content": "x" * 8000}]}


def first(name: str, of: list[Candidate], world: World, body: Any = None, **goal: Any) -> Step:
    return policy(name)(of, view(of, world, body, **goal))[0]


def test_cheapest_counts_the_answer_it_usually_gives() -> None:
    of = candidates("terse", "wordy", prices=[(0, 2_000_000), (0, 1_000_000)])
    assert first("cheapest", of, World(answers={"terse": 100.0, "wordy": 100.0})).key == 1
    assert first("cheapest", of, World(answers={"terse": 100.0, "wordy": 900.0})).key == 0
    assert first("cheapest", of, World(answers={"terse": 100.0, "wordy": 900.0}), {"max_tokens": 50}).key == 1


def test_cheapest_leaves_unknown_prices_for_last_and_says_the_cost() -> None:
    of = candidates("unknown", "known", prices=[None, DEAR])
    steps = policy("cheapest")(of, view(of))
    assert [step.key for step in steps] == [1, 0]
    assert steps[0].reason.startswith("cheapest, about $0.002")


def test_a_cached_beginning_counts() -> None:
    of = [
        Candidate(0, "here", price=Price(1_000_000, 0, 100_000)),
        Candidate(1, "there", price=Price(800_000, 0, 80_000)),
    ]
    assert first("cheapest", of, World(), LONG).key == 1
    assert first("cheapest", of, World(was=Past("here", 1500, 5)), LONG).key == 0


def test_fastest_counts_waking_and_the_length_of_the_answer() -> None:
    of = [Candidate(0, "local", local=True), Candidate(1, "far")]
    world = World(firsts={"local": 0.1, "far": 0.5}, each={"local": 0.01, "far": 0.002})
    assert first("fastest", of, world, {"max_tokens": 10}).key == 0
    assert first("fastest", of, world, {"max_tokens": 1000}).key == 1
    world.asleep["local"] = 8.0
    assert first("fastest", of, world, {"max_tokens": 10}).key == 1


def test_fastest_tries_what_it_does_not_know_now_and_then() -> None:
    of = candidates("known", "unknown")
    world = World(firsts={"known": 0.2})
    tried = [policy("fastest")(of, view(of, world, seed=seed))[0].key for seed in range(1000)]
    assert 20 < tried.count(1) < 90


def test_quality_goes_by_the_chance_and_without_one_by_the_strong() -> None:
    of = candidates("a", "b", "c")
    assert first("quality", of, World(), strong=1) == Step(1, "best, nothing is learnt yet")
    scores = ToyScorer({"a": (0.4, 0.1), "b": (0.6, 0.0), "c": (0.7, -0.1)}, "b", None)
    assert first("quality", of, World(scores=scores), strong=1) == Step(2, "best, 70% likely good", 0.7)


# -- auto --------------------------------------------------------------------------------------------------


def weak_and_strong() -> list[Candidate]:
    return candidates("weak", "strong", prices=[CHEAP, DEAR])


def test_auto_asks_the_cheap_one_where_that_is_certified() -> None:
    scores = ToyScorer({"weak": (0.8, 0.01), "strong": (0.82, 0.0)}, "strong", 0.02)
    found = policy("auto")(weak_and_strong(), view(weak_and_strong(), World(scores=scores), strong=1))
    assert [step.key for step in found] == [0, 1]
    assert found[0].reason.startswith("cheapest good enough: expected loss 1.0 points, about $0.000")
    assert found[1].reason == "fallback, strong"
    # Held against the strong one, which is held against nothing.
    assert found[0].score == pytest.approx(0.99) and found[0].bar == pytest.approx(0.98)
    assert (found[1].score, found[1].bar) == (None, None)


def test_a_target_that_is_expected_to_do_better_is_as_good_as_can_be() -> None:
    scores = ToyScorer({"weak": (0.9, -0.1), "strong": (0.8, 0.0)}, "strong", 0.02)
    step = first("auto", weak_and_strong(), World(scores=scores), strong=1, quality=0.99)
    assert (step.key, step.score, step.bar) == (0, 1.0, 0.99)


@pytest.mark.parametrize(
    ("more", "goal", "why"),
    [
        (None, {}, "nothing is learnt yet"),
        ({"labels": 299}, {}, "299 of 300 labels"),
        ({"familiar": False}, {}, "no labelled request is like this one"),
        ({"unseen": ("images",)}, {}, "no labelled request had images"),
        ({"strong": "other"}, {}, "measured against other"),
        ({"threshold": None}, {}, "no cheaper target is expected to be as good"),
        ({"threshold": 0.005}, {}, "no cheaper target is expected to be as good"),
        ({}, {"quality": 0.995}, "no cheaper target is expected to be as good"),
        ({}, {"max_loss": 0.005}, "no cheaper target is expected to be as good"),
        ({}, {"confidence": 0.99}, "no cheaper target is expected to be as good"),
    ],
)
def test_auto_stays_with_the_strong_one_and_says_why(
    more: dict[str, Any] | None, goal: dict[str, Any], why: str
) -> None:
    of = weak_and_strong()
    scores = None
    if more is not None:
        given = {"strong": "strong", "threshold": 0.02, **more}
        scores = ToyScorer({"weak": (0.8, 0.01), "strong": (0.82, 0.0)}, **given)
    step = first("auto", of, World(scores=scores), strong=1, **goal)
    assert step.key == 1
    assert why in step.reason


def test_auto_sends_nothing_to_what_costs_more_or_what_nobody_knows() -> None:
    for prices in ([DEAR, CHEAP], [None, DEAR]):
        of = candidates("weak", "strong", prices=prices)
        scores = ToyScorer({"weak": (0.8, -0.1), "strong": (0.7, 0.0)}, "strong", 0.02)
        assert first("auto", of, World(scores=scores), strong=1).key == 1


@pytest.mark.parametrize(("price", "key"), [(FREE, 0), (Price(per_second=10**8), 0), (Price(per_second=10**12), 1)])
def test_auto_asks_a_local_model_where_that_is_certified_and_costs_less(price: Price, key: int) -> None:
    """A local model is free, or costs what a second of it is said to."""
    of = [Candidate(0, "here", price=price, local=True), Candidate(1, "strong", price=Price(*DEAR))]
    scores = ToyScorer({"here": (0.8, 0.01), "strong": (0.82, 0.0)}, "strong", 0.02)
    world = World(scores=scores, firsts={"here": 0.1}, each={"here": 0.01})
    assert first("auto", of, world, strong=1).key == key


def test_auto_goes_on_in_order_where_the_cheapest_is_out() -> None:
    of = candidates("nano", "mini", "strong", "odd", prices=[(1, 1), CHEAP, DEAR, CHEAP])
    said = {"nano": (0.8, 0.01), "mini": (0.8, 0.0), "strong": (0.8, 0.0), "odd": (0.1, 0.7)}
    world = World(scores=ToyScorer(said, "strong", 0.02))
    steps = policy("auto")(of, view(of, world, strong=2))
    assert [step.key for step in steps] == [0, 1, 2, 3]
    world.outs["nano"] = "open"
    steps = policy("auto")(of, view(of, world, strong=2))
    assert [step.key for step in steps] == [1, 2, 3, 0]
    assert steps[-1].reason == "out: open"


def test_a_request_is_scored_once() -> None:
    of = weak_and_strong()
    scores = ToyScorer({"weak": (0.8, 0.01), "strong": (0.82, 0.0)}, "strong", 0.02)
    policy("auto")(of, view(of, World(scores=scores), strong=1))
    assert scores.asked == 1


def test_the_fewest_labels_are_those_of_the_certificate() -> None:
    assert auto.FEWEST == certify.FEWEST


# -- staying -----------------------------------------------------------------------------------------------


def test_a_conversation_does_not_flap() -> None:
    costs = {"weak": 10, "strong": 100}
    assert stays(Past("strong", 10, 1), "weak", dict(costs)) == "moved 1 request ago"
    assert stays(Past("strong", 10, HOLD), "weak", dict(costs)) is None
    assert stays(Past("strong", 10, HOLD), "weak", {"weak": 95, "strong": 100}) is not None
    # Whatever it saves: where it was may not answer this request.
    assert stays(Past("weak", 10, 1), "strong", {"strong": 100}) is None


def test_auto_stays_while_the_cache_is_worth_more_than_the_saving() -> None:
    of = [Candidate(0, "weak", price=Price(900_000, 0)), Candidate(1, "strong", price=Price(1_000_000, 0, 100_000))]
    scores = ToyScorer({"weak": (0.8, 0.01), "strong": (0.82, 0.0)}, "strong", 0.02)
    assert first("auto", of, World(scores=scores), LONG, strong=1).key == 0
    assert first("auto", of, World(scores=scores, was=Past("strong", 1800, 9)), LONG, strong=1).key == 1


@given(st.lists(st.floats(-0.05, 0.06), min_size=2, max_size=40))
def test_a_conversation_moves_down_at_most_once_in_a_few_requests(losses: list[float]) -> None:
    of, past, moves = weak_and_strong(), None, []
    for turn, loss in enumerate(losses):
        world = World(scores=ToyScorer({"weak": (0.8, loss), "strong": (0.8, 0.0)}, "strong", 0.02), was=past)
        key = first("auto", of, world, strong=1).key
        if loss > 0.02:
            assert key == 1, "quality always comes first"
        name = of[key].name
        if past is not None and past.target == "strong" and name == "weak":
            moves.append(turn)
            assert past.since >= HOLD
        past = Past(name, 100, past.since + 1 if past is not None and past.target == name else 1)
    assert all(later - earlier > HOLD for earlier, later in pairwise(moves))

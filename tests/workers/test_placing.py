from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.placing import groups, ordered

FOUR = ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]


def test_cards_that_were_assigned_are_divided_among_the_replicas() -> None:
    assert groups(FOUR, ["cuda:0", "cuda:1"], 1) == [("cuda:0", "cuda:1")]
    assert groups(FOUR, ["cuda:0", "cuda:1"], 2) == [("cuda:0",), ("cuda:1",)]
    assert groups(FOUR, ["cuda:3", "cuda:1", "cuda:0"], 2) == [("cuda:3", "cuda:1"), ("cuda:0",)]
    assert groups(FOUR, ["cuda:0"], 3) == [("cuda:0",)]
    assert groups(FOUR, ["cuda:0", "cuda:9"], 1) == [("cuda:0",)]
    assert groups(FOUR, ["cuda:9"], 1) == []


def test_any_card_or_neighbours_where_none_was_assigned() -> None:
    assert groups(FOUR[:1], [], 1) == [("cuda:0",)]
    assert groups(FOUR[:3], [], 1) == [("cuda:0",), ("cuda:1",), ("cuda:2",), ("cuda:0", "cuda:1"), tuple(FOUR[:3])]
    assert groups(FOUR, [], 5)[-1] == tuple(FOUR)


@given(st.integers(1, 8), st.integers(1, 8))
def test_every_assigned_card_is_given_once(cards: int, replicas: int) -> None:
    here = [f"cuda:{number}" for number in range(cards)]
    found = groups(here, here, replicas)
    assert [card for group in found for card in group] == here
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_the_fewest_cards_then_the_emptiest() -> None:
    room = dict.fromkeys(FOUR, 100)
    free = {"cuda:0": 50, "cuda:1": 90, "cuda:2": 70, "cuda:3": 0}

    def takes(size: int) -> Callable[[tuple[str, ...]], dict[str, int]]:
        return lambda cards: dict.fromkeys(cards, size // len(cards))

    single = ordered(groups(FOUR, [], 1), takes(60), room, free.__getitem__)
    assert [cards for cards, _ in single] == [("cuda:1",), ("cuda:2",), ("cuda:0",), ("cuda:3",)]
    double = ordered(groups(FOUR, [], 1), takes(150), room, free.__getitem__)
    assert [cards for cards, _ in double] == [("cuda:0", "cuda:1"), ("cuda:2", "cuda:3")]
    assert ordered(groups(FOUR, [], 1), takes(1000), room, free.__getitem__) == [(("cuda:0",), {"cuda:0": 1000})]


def test_replicas_are_spread_over_the_groups_that_were_assigned_however_large() -> None:
    places = groups(FOUR, FOUR[:3], 2)
    assert places == [("cuda:0", "cuda:1"), ("cuda:2",)]
    room, free = dict.fromkeys(FOUR, 100), dict.fromkeys(FOUR, 100)
    found = []
    for _ in places:
        (cards, takes), *_ = ordered(
            places, lambda cards: dict.fromkeys(cards, 60 // len(cards)), room, free.__getitem__, assigned=True
        )
        found.append(cards)
        free |= {card: free[card] - takes[card] for card in cards}
    assert found == places
    # Those that could never hold it are left out here too.
    small = ordered(
        places, lambda cards: dict.fromkeys(cards, 120 // len(cards)), room, free.__getitem__, assigned=True
    )
    assert [cards for cards, _ in small] == [("cuda:0", "cuda:1")]


def test_only_as_many_cards_as_a_model_can_be_spread_over() -> None:
    six = [f"cuda:{number}" for number in range(6)]
    assert {len(group) for group in groups(six, [], 1)} == {1, 2, 4, 6}
    # 32 heads are divided by two and four, not by six.
    assert {len(group) for group in groups(six, [], 1, lambda count: 32 % count == 0)} == {1, 2, 4}
    # Told how many, these are they, also where it is no power of two.
    assert groups(six, [], 1, lambda count: count == 3) == [tuple(six[:3]), tuple(six[3:])]
    assert groups(six[:2], [], 1, lambda count: count == 3) == []
    # Who was assigned cards is taken at his word.
    assert groups(six, six[:3], 1, lambda count: False) == [tuple(six[:3])]

"""What is guessed, and that guessing costs next to nothing where it does not help."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.guess import DEPTHS, ROWS, Lookup, Odds, Wager, hoped


def test_what_followed_before_is_guessed_to_follow_again() -> None:
    lookup = Lookup()
    text = [1, 2, 3, 4, 5, 6, 7]
    assert lookup.guess(text, 3) == ([], 0)
    assert lookup.guess([*text, 1, 2, 3], 3) == ([4, 5, 6], 0)
    assert lookup.guess([*text, 1, 2, 3], 0) == ([], 0)
    longer = [*text, 1, 2, 3, 9, 9, 1, 2, 3]
    assert lookup.guess(longer, 2) == ([9, 9], 0)  # the last time counts


@pytest.mark.parametrize("period", [1, 2, 3, 5, 8])
def test_what_repeats_itself_is_guessed_to_go_on(period: int) -> None:
    text = [i % period for i in range(40)]
    assert Lookup().guess(text, 15) == ([i % period for i in range(40, 55)], 2)


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 15))
def test_every_guess_stood_there_before(text: list[int], most: int) -> None:
    lookup = Lookup()
    for end in range(len(text) + 1):  # token by token, as an answer grows
        guess, grade = lookup.guess(text[:end], most)
        assert (guess, grade) == Lookup().guess(text[:end], most)
        assert len(guess) in (0, most)
        if guess:
            places = [at for at in range(3, end) if text[at - 3 : at] == text[end - 3 : end]]
            assert guess[0] == text[places[-1]]
            alike = {0: 3, 1: 6, 2: 12}[grade]
            assert text[max(0, places[-1] - alike) : places[-1]] == text[end - alike : end][-places[-1] :]


@given(st.floats(0, 1), st.integers(1, 15))
def test_hope_is_between_none_and_all(likely: float, depth: int) -> None:
    assert 0 <= hoped(likely, depth) <= depth + 1e-9
    assert hoped(1.0, depth) == depth


def play(slope: float, chance: float, sequences: int, steps: int = 4000, guessers: float = 1.0) -> tuple[float, float]:
    """Tokens a second, as a multiple of those without guesses, and the share of steps with guesses.

    A decode takes 1 second and `slope` more for each further row of a sequence; a guessed token holds by `chance`.
    """
    dice = random.Random(1)
    wager, odds = Wager(), Odds(1.0, 2.0)
    tokens = seconds = guessed = 0.0
    for _ in range(steps):
        most = wager.most(sequences)
        those = sum(dice.random() < guessers for _ in range(sequences)) if most else 0
        depth = wager.depth(sequences, [odds.likely] * those, most) if those else 0
        noise = dice.uniform(0.95, 1.05)
        if not depth:
            wager.plain(sequences, noise)
            tokens, seconds = tokens + sequences, seconds + 1.0
            continue
        assert depth in DEPTHS and depth * sequences <= ROWS
        held = []
        for _ in range(those):
            held.append(next((i for i in range(depth) if dice.random() >= chance), depth))
            odds.learn(held[-1], depth)
        took = 1.0 + slope * depth * those / sequences
        wager.guessed(sequences, those, depth, took * noise, sum(held))
        tokens, seconds, guessed = tokens + sequences + sum(held), seconds + took, guessed + 1
    return tokens / seconds / sequences, guessed / steps


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 3), st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])), st.integers(1, 20), st.floats(0.1, 1))
def test_it_never_costs_more_than_a_few_per_cent(slope: float, chance: float, sequences: int, guessers: float) -> None:
    rate, _ = play(slope, chance, sequences, guessers=guessers)
    assert rate > 0.975


@pytest.mark.parametrize(("slope", "sequences", "least"), [(0.05, 1, 4.0), (0.3, 1, 1.8), (0.3, 4, 1.4)])
def test_it_pays_where_guesses_hold(slope: float, sequences: int, least: float) -> None:
    rate, share = play(slope, 0.95, sequences)
    assert rate > least and share > 0.9


def test_it_stops_where_guesses_fail_and_begins_again_where_they_hold() -> None:
    rate, share = play(0.4, 0.0, 1)
    assert share < 0.03 and rate > 0.975
    wager = Wager()
    for _ in range(20):
        wager.plain(1, 1.0)
    assert wager.depth(1, [0.0], wager.most(1))  # there is time to look whether that still holds
    for _ in range(6):
        wager.guessed(1, 1, 3, 3.0, 0)
    assert not wager.most(1) or not wager.depth(1, [0.0], wager.most(1))
    for _ in range(2000):
        wager.plain(1, 1.0)
    assert wager.depth(1, [0.0], wager.most(1))


def test_a_pause_of_the_machine_is_no_reason_to_stop() -> None:
    wager = Wager()
    for _ in range(20):
        wager.plain(1, 0.01)
    for _ in range(30):
        wager.guessed(1, 1, 3, 0.012, 3)
    wager.guessed(1, 1, 3, 1.0, 3)
    wager.plain(1, 0.01)
    assert wager.depth(1, [0.9], wager.most(1))

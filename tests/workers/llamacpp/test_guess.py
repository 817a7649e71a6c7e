"""What is guessed from the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.llamacpp.guess import Lookup


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

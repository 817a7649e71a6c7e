"""Guessing pays where guesses hold, and costs next to nothing where they do not, whoever makes them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.guess import Odds
from lumen.workers.llamacpp.wager import DEPTHS, ROWS, Always, Tally, Wager, hoped


@given(st.floats(0, 1), st.integers(1, 15))
def test_hope_is_between_none_and_all(likely: float, depth: int) -> None:
    assert 0 <= hoped(likely, depth) <= depth + 1e-9
    assert hoped(1.0, depth) == depth


@dataclass
class World:
    """Decodes of one row take 1 second, and `slope` more for each further row of a sequence.

    A token guessed from the text holds by `text`, one of a draft model by `draft`; the text has a guess for a sequence
    in so many steps as `known` says. A decode of the draft takes `drafting` seconds, and it must read `prompt` tokens
    of a new answer, `reading` seconds each; answers have `length` tokens.
    """

    sequences: int = 1
    slope: float = 0.3
    text: float | None = None
    known: float = 1.0
    draft: float | None = None
    drafting: float = 0.1
    prompt: int = 0
    reading: float = 0.02
    length: int = 300

    def play(self, steps: int = 4000) -> tuple[float, float, float]:
        """Tokens a second as a multiple of those without guesses; the shares of steps with guesses of each kind."""
        dice, wager, n = random.Random(1), Wager(), self.sequences
        odds = {"text": Odds(1.0, 2.0), "draft": Odds(1.4, 2.0)}
        tokens = seconds = looked = drafted = 0.0
        tried = False
        behind, left = [self.prompt] * n, float(self.length)
        for _ in range(steps):
            if left <= 0:  # the next answers
                behind, left = [self.prompt] * n, float(self.length)
            most = wager.most(n)
            text = [
                odds["text"].likely if self.text is not None and dice.random() < self.known else None for _ in behind
            ]
            then = [odds["draft"].likely if self.draft is not None else None] * n
            ready = [chance if missing <= 32 else None for chance, missing in zip(then, behind, strict=True)]
            far = [i for i in range(n) if behind[i] > 32]
            if most and self.draft is not None and far:
                if not wager.reads(text, ready, then, most, sum(behind[i] for i in far), left):
                    nearest = min(far, key=lambda i: behind[i])
                    far = [nearest] if wager.tries(begun=tried) else []
                    tried = bool(far)
                for i in far:
                    count = min(32, behind[i]) if tried else behind[i]
                    wager.read(n, count, count * self.reading)
                    seconds, behind[i] = seconds + count * self.reading, behind[i] - count
            choice = wager.choose(text, ready, most) if most else None
            noise = dice.uniform(0.95, 1.05)
            if choice is None or not choice.depth:
                wager.plain(n, noise)
                tokens, seconds, left, behind = tokens + n, seconds + 1.0, left - 1, [each + 1 for each in behind]
                continue
            depth = choice.depth
            assert depth in DEPTHS and depth * n <= ROWS
            tallies = {"text": Tally(), "draft": Tally()}
            for kind, wanted, chance in (("text", choice.text, self.text), ("draft", choice.draft, self.draft)):
                for wants in wanted:
                    if wants:
                        assert chance is not None
                        held = next((i for i in range(depth) if dice.random() >= chance), depth)
                        odds[kind].learn(held, depth)
                        tallies[kind].rows += depth
                        tallies[kind].held += held
            if tallies["draft"].rows:
                took = depth * self.drafting
                wager.drafted(n, sum(choice.draft), depth, took)
                seconds, drafted = seconds + took, drafted + 1
            behind = [1 if by else missing + 1 for by, missing in zip(choice.draft, behind, strict=True)]
            looked += tallies["text"].rows > 0
            rows = sum(tally.rows for tally in tallies.values())
            won = sum(tally.held for tally in tallies.values())
            took = 1.0 + self.slope * rows / n
            wager.guessed(n, depth, tallies["text"], tallies["draft"], took * noise)
            tokens, seconds, left = tokens + n + won, seconds + took, left - 1 - won / n
        return tokens / seconds / n, looked / steps, drafted / steps


chances = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 1.0]))


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        World,
        sequences=st.integers(1, 20),
        slope=st.floats(0, 3),
        text=chances,
        known=st.floats(0.1, 1),
        draft=chances,
        drafting=st.floats(0, 2),
        prompt=st.integers(0, 500),
        reading=st.floats(0, 0.05),
        length=st.integers(20, 600),
    )
)
def test_it_never_costs_more_than_a_few_per_cent(world: World) -> None:
    assert world.play()[0] > 0.97


@pytest.mark.parametrize(("slope", "sequences", "least"), [(0.05, 1, 4.0), (0.3, 1, 1.8), (0.3, 4, 1.4)])
def test_it_pays_where_the_text_repeats_itself(slope: float, sequences: int, least: float) -> None:
    rate, share, _ = World(sequences, slope, text=0.95).play()
    assert rate > least and share > 0.9


@pytest.mark.parametrize(("slope", "sequences", "least"), [(0.05, 1, 2.5), (0.2, 1, 1.7), (0.2, 4, 1.4)])
def test_it_pays_where_a_draft_model_predicts(slope: float, sequences: int, least: float) -> None:
    rate, _, share = World(sequences, slope, draft=0.95, drafting=0.1).play()
    assert rate > least and share > 0.9


def test_a_draft_model_reads_prompts_where_that_pays() -> None:
    rate, _, share = World(slope=0.1, draft=0.95, prompt=300, reading=0.02).play()
    assert rate > 2.0 and share > 0.7
    rate, _, share = World(slope=0.1, draft=0.1, prompt=300, reading=0.02).play()
    assert rate > 0.97 and share < 0.02


def test_guesses_come_from_whoever_is_better() -> None:
    _, text, draft = World(slope=0.1, text=0.95, draft=0.6).play()
    assert text > 0.9 and draft < 0.05
    _, text, draft = World(slope=0.1, text=0.2, draft=0.95).play()
    assert text < 0.05 and draft > 0.9
    mixed, text, draft = World(slope=0.1, text=0.97, known=0.5, draft=0.8).play()
    assert text > 0.4 and draft > 0.4
    assert mixed > World(slope=0.1, draft=0.8).play()[0]


def test_it_stops_where_guesses_fail_and_begins_again_where_they_hold() -> None:
    for world in (World(slope=0.4, text=0.0), World(slope=0.4, draft=0.0)):
        rate, of_text, of_draft = world.play()
        assert of_text + of_draft < 0.03 and rate > 0.975
    nobody: list[float | None] = [None]
    for text, draft in (([0.0], nobody), (nobody, [0.0])):
        wager = Wager()
        for _ in range(20):
            wager.plain(1, 1.0)
        assert wager.choose(text, draft, wager.most(1)).depth  # there is time to look whether that still holds
        for _ in range(6):
            lost = Tally(3, 0)
            wager.guessed(
                1, 3, lost if text[0] is not None else Tally(), lost if draft[0] is not None else Tally(), 3.0
            )
        assert not wager.most(1) or not wager.choose(text, draft, wager.most(1)).depth
        for _ in range(3000):
            wager.plain(1, 1.0)
        assert wager.choose(text, draft, wager.most(1)).depth


def test_a_pause_of_the_machine_is_no_reason_to_stop() -> None:
    wager = Wager()
    for _ in range(20):
        wager.plain(1, 0.01)
    for _ in range(30):
        wager.guessed(1, 3, Tally(3, 3), Tally(), 0.012)
    wager.guessed(1, 3, Tally(3, 3), Tally(), 1.0)
    wager.plain(1, 0.01)
    assert wager.choose([0.9], [None], wager.most(1)).depth


def test_what_a_draft_model_loses_is_not_taken_from_guesses_of_the_text() -> None:
    wager = Wager()
    for _ in range(20):
        wager.plain(1, 1.0)
    wager.drafted(1, 1, 3, 30.0)  # one slow time may be another program's doing
    assert wager.choose([None], [0.99], wager.most(1)).depth
    for _ in range(8):
        wager.drafted(1, 1, 3, 30.0)
    assert not wager.choose([None], [0.99], wager.most(1)).depth
    assert wager.choose([0.9], [0.99], wager.most(1)).text == (True,)


def test_always_guesses_whatever_it_costs() -> None:
    wager = Always()
    wager.plain(1, 1.0)
    choice = wager.choose([0.1, None, 0.2, None], [None, 0.1, 0.3, None], wager.most(4))
    assert (choice.depth, choice.text, choice.draft) == (3, (True, False, False, False), (False, True, True, False))
    assert not wager.choose([None], [None], wager.most(1)).depth

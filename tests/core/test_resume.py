from __future__ import annotations

from itertools import product

import pytest

from lumen.core.resume import MAX_SPLICES, NOTHING, Asked, Place, Rung, moves_down, rungs
from lumen.core.trace import MAX_PARTS, Trace

CHANNELS = ("text", "blank", "reasoning", "text and reasoning", "tool", "text and tool", "other choice")


def delivered(what: str, *, exact: bool, replayable: bool, answers: int = 1) -> Trace:
    trace = Trace(answers, replayable=replayable)
    ids = [7] if exact else None
    trace.add(False, (), ids, ("id", 1), data=b"role")
    if "reasoning" in what:
        trace.add(True, (), ids, None, None, False, True, b"reasoning")
    if "text" in what:
        trace.add(True, (), ids, None, "Hello", data=b"text")
    if what == "blank":
        trace.add(True, (), ids, None, "\n", data=b"text")
    if "tool" in what:
        trace.add(True, (), ids, None, None, True, False, b"tool")
    if what == "other choice":
        trace.add(True, (), ids, None, None, data=b"text of choice 1")
    return trace


def expected(what: str, trace: Trace, asked: Asked, at: Place, left: bool, mixed: bool) -> list[Rung]:
    """The table of the ladder, read row by row."""
    if not (left and asked.stream):
        return [Rung.NONE]
    found = []
    if at.same_model and at.token_ids and trace.exact and asked.answers == 1 and not mixed:
        found.append(Rung.TOKEN_EXACT)
    deterministic = asked.temperature == 0 or (asked.seed is not None and at.seed)
    if at.same_model and not mixed and deterministic and (trace.replayable or what in ("text", "blank")):
        found.append(Rung.REPLAY_EXACT)
    if what in ("reasoning", "blank"):
        found.append(Rung.RESTART)
    if what == "text" and asked.chat and asked.answers == 1 and not asked.json:
        found += [Rung.PREFILL, Rung.ANCHORED] if at.prefill else [Rung.ANCHORED]
    return found or [Rung.NONE]


@pytest.mark.parametrize("what", CHANNELS)
def test_the_table(what: str) -> None:
    flags = (False, True)
    seen: set[Rung] = set()
    for exact, replayable, chat, stream, json, same, ids, prefill, seed, mixed in product(flags, repeat=10):
        for answers, temperature, asked_seed, splices in product((1, 2), (None, 0.0, 0.7), (None, 3), (0, 1, 2, 3)):
            trace = delivered(what, exact=exact, replayable=replayable, answers=answers)
            asked = Asked(chat, stream, answers, json, temperature, asked_seed)
            at = Place(same, ids, prefill, seed)
            found = rungs(trace, asked, at, splices, mixed=mixed)
            assert list(found) == expected(what, trace, asked, at, splices < 2, mixed)
            seen.update(found)
    assert Rung.NONE in seen and Rung.TOKEN_EXACT in seen


def test_a_choice_that_ended_is_not_begun_again() -> None:
    trace = delivered("reasoning", exact=False, replayable=False, answers=2)
    trace.add(False, (1,), None, None)
    assert rungs(trace, Asked(True, True, 2, False, None, None), Place(False, False, True, True), 0) == NOTHING


def test_a_completion_of_one_text_is_continued_by_anybody() -> None:
    at, trace = Place(False, False, False, False), delivered("text", exact=False, replayable=False)
    for appends in (True, False):
        asked = Asked(False, True, 1, False, None, None, appends=appends)
        assert rungs(trace, asked, at, 0) == ((Rung.PREFILL,) if appends else NOTHING)


@pytest.mark.parametrize("rung", list(Rung))
def test_whose_refusal_moves_down(rung: Rung) -> None:
    changed = rung in (Rung.TOKEN_EXACT, Rung.PREFILL, Rung.ANCHORED)
    assert [moves_down(rung, status) for status in (400, 422, 401, 429, 500)] == [changed, changed, False, False, False]


@pytest.mark.parametrize(
    ("temperature", "seed", "repeats"), [(None, None, False), (0, None, True), (1.0, 5, True), (1.0, None, False)]
)
def test_repeatable(temperature: float | None, seed: int | None, repeats: bool) -> None:
    assert Asked(True, True, 1, False, temperature, seed).repeatable is repeats


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_splices_are_bounded_at_two_or_as_the_route_says(most: int) -> None:
    trace, asked = delivered("text", exact=True, replayable=True), Asked(True, True, 1, False, 0.0, 1)
    at = Place(True, True, True, True)
    found = [rungs(trace, asked, at, splices, most=most) != NOTHING for splices in range(7)]
    assert found == [splices < most for splices in range(7)]
    assert MAX_SPLICES == 2


def test_trace_gathers_text_and_parts() -> None:
    trace = delivered("text and tool", exact=False, replayable=True)
    assert (trace.text, trace.parts, trace.actionable, trace.reasoning) == ("Hello", [b"tool"], True, False)
    trace.add(True, (), None, None, " there", False, True, b"both")
    assert (trace.text, trace.parts, trace.reasoning) == ("Hello there", [b"tool", b"both"], True)
    assert trace.whole_text


def test_trace_keeps_no_parts_unless_asked() -> None:
    trace = delivered("text and tool", exact=False, replayable=False)
    assert trace.parts == []


def test_trace_parts_are_bounded() -> None:
    trace = Trace(1, replayable=True)
    for _ in range(3):
        trace.add(True, (), None, None, None, True, False, bytes(MAX_PARTS // 2))
    assert not trace.replayable
    assert trace.parts == []
    trace.add(True, (), None, None, None, True, False, b"more")
    assert trace.parts == []


def test_trace_counts_tokens() -> None:
    exact = delivered("text", exact=True, replayable=False)
    assert exact.tokens == 2
    loose = Trace(1)
    for word in ("one", " two", " three"):
        loose.add(True, (), None, None, word)
    assert loose.tokens == 3
    long = Trace(1)
    long.add(True, (), None, None, "nine" * 9)
    assert long.tokens == 8


@pytest.mark.parametrize("what", ["text", "blank", "reasoning", "tool"])
def test_who_replays_nothing_but_tokens_goes_on_with_text_alone(what: str) -> None:
    """And only where it told the tokens of its prompt, which it needs again."""
    for state, prompted in product((False, True), repeat=2):
        trace = delivered(what, exact=True, replayable=True)
        trace.prompt_ids = [1, 2] if prompted else ()
        asked = Asked(True, True, 1, False, 0.0, None, state)
        bare = rungs(trace, asked, Place(True, True, False, True, state=False), 0)
        whole = rungs(trace, asked, Place(True, True, False, True), 0)
        assert whole[0] is Rung.TOKEN_EXACT
        exact = what in ("text", "blank") and prompted and not state
        # What it cannot go on with it can still say again from the beginning.
        assert bare == (whole if exact else whole[1:])


def test_trace_knows_which_text_is_ahead_of_its_tokens() -> None:
    trace = Trace(1)
    for ids, text, ahead in (
        ([1], "a", ""), ([], "b", "b"), ([], "c", "bc"), ([2, 3, 4], "d", ""), ([], "e", "e"), (None, "f", "e"),
    ):  # fmt: skip
        trace.add(True, (), ids, None, text)
        assert trace.ahead == ahead
    assert trace.text == "abcdef" and trace.token_ids == [1, 2, 3, 4]

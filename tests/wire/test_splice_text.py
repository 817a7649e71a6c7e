"""Seams as text: any answer, cut anywhere, in any chunks, gives the answer; another answer gives nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lumen.core.resume import Rung
from lumen.wire.anchor import ANCHOR, MAX_ANCHOR, Folded, anchor, join, split
from lumen.wire.anchored import MAX_HOLD, MID_WORD, Anchored
from lumen.wire.matching import MIN_ECHO, Diverged, Fresh, Matcher, Prefill, Replay
from tests.wire.splicing import resumed

WORDS = (
    *("the", "The", "cat", "sat", "on", "a", "mat,", "and", "then", "it", "went.", "1", "2.", "- ", "...", "**bold**"),
    *("```python\n", "```", "def f():\n    return", "\n\n", "\n", "  ", "\t", "\u00e9t\u00e9", "e\u0301"),
    *("\u6f22\u5b57\u304c", "\U0001f469\u200d\U0001f4bb", "\u201cQuoted\u201d", "it\u2019s", "\u2026"),
)
prose = st.lists(st.sampled_from(WORDS), min_size=2, max_size=60).map(" ".join)
phrase = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
# The same words again and again, with others between.
refrain = st.tuples(phrase, st.lists(phrase, min_size=1, max_size=6)).map(
    lambda p: "".join(f"{p[0]} {x} {p[0]}" for x in p[1])
)
texts = st.one_of(prose, refrain, st.text(min_size=2, max_size=200))
FULL = "The quick brown fox jumps over the lazy dog. It does so every day, and nobody has ever asked it why it would."


@st.composite
def cuts(draw: st.DrawFn) -> tuple[str, str]:
    """An answer, and the part of it that the client has."""
    full = draw(texts)
    before = full[: draw(st.integers(1, len(full) - 1))]
    assume(before.strip())
    return full, before


def chunks(text: str, sizes: list[int]) -> list[str]:
    """`text` in pieces of these sizes, in turn."""
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces.append(text[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def run(matcher: Matcher, pieces: list[str]) -> str:
    return "".join([*map(matcher.push, pieces), matcher.end()])


def nothing_of(matcher: Matcher, pieces: list[str]) -> None:
    """The text is refused, and nothing of it was handed on."""
    given = ""
    with pytest.raises(Diverged):
        for piece in pieces:
            given += matcher.push(piece)
        given += matcher.end()
    assert given == ""


def repeats(sent: str, new: str) -> bool:
    """Whether going on looks like an echo or a start from scratch: nothing but knowledge of the target could tell."""
    tails = any(new.startswith(sent[-size:]) for size in range(3, len(sent) + 1))
    body = new.lstrip()
    return tails or any(body[:8] and body[:8] == head[: len(body[:8])] for head in (sent, sent.lstrip()))


class TestReplay:
    @given(cuts(), sizes)
    def test_any_cut(self, cut: tuple[str, str], pieces: list[int]) -> None:
        full, before = cut
        assert before + run(Replay(before), chunks(full, pieces)) == full

    @given(cuts(), sizes, st.integers(0, 200), st.characters())
    def test_another_text_gives_nothing(self, cut: tuple[str, str], pieces: list[int], at: int, char: str) -> None:
        full, before = cut
        at %= len(before)
        assume(full[at] != char)
        nothing_of(Replay(before), chunks(full[:at] + char + full[at + 1 :], pieces))
        nothing_of(Replay(before), chunks(full[:at], pieces))

    @given(cuts(), sizes)
    def test_as_a_stream(self, cut: tuple[str, str], pieces: list[int]) -> None:
        full, before = cut
        assert resumed(Rung.REPLAY_EXACT, before, chunks(full, pieces)) == full


class TestPrefill:
    @given(cuts(), sizes)
    def test_going_on(self, cut: tuple[str, str], pieces: list[int]) -> None:
        full, before = cut
        sent, _ = split(before)
        new = full[len(sent) :]
        assume(not repeats(sent, new))
        assert before + run(Prefill(before), chunks(new, pieces)) == full

    @given(phrase.filter(str.strip), st.integers(3, 8), st.integers(0, 400), sizes)
    def test_an_answer_in_a_loop_goes_on_in_it(self, unit: str, times: int, cut: int, pieces: list[int]) -> None:
        full = unit * times
        before = full[: len(unit) * 2 + cut % (len(full) - len(unit) * 2)]
        sent, _ = split(before)
        assume(len(sent) >= len(unit) * 2)
        assert before + run(Prefill(before), chunks(full[len(sent) :], pieces)) == full

    @given(cuts(), sizes)
    def test_known_echo(self, cut: tuple[str, str], pieces: list[int]) -> None:
        full, before = cut
        assert before + run(Prefill(before, echoes=True), chunks(full, pieces)) == full

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 500])
    def test_echo_of_any_tail(self, size: int) -> None:
        for cut in range(4, len(FULL)):
            before = FULL[:cut]
            sent, _ = split(before)
            word = re.search(r"[A-Za-z]{4,}$", sent)
            tails = {sent} | {sent[i:] for i in range(len(sent) - MIN_ECHO + 1) if not sent[i].isspace()}
            for tail in tails | ({word[0]} if word else set()):
                new = tail + FULL[len(sent) :]
                assert before + run(Prefill(before), chunks(new, [size])) == FULL, (before, tail)

    @pytest.mark.parametrize("size", [1, 3, 8, 500])
    @pytest.mark.parametrize("echoes", [False, True])
    def test_another_beginning_gives_nothing(self, size: int, echoes: bool) -> None:
        for cut in range(MIN_ECHO + 6, len(FULL)):
            for shared in range(MIN_ECHO, len(split(FULL[:cut])[0])):
                new = FULL[:shared] + "#" + FULL[shared + 1 :]
                if cut - shared > 1:
                    nothing_of(Prefill(FULL[:cut], echoes=echoes), chunks(new, [size]))

    @pytest.mark.parametrize("space", ["", " "])
    def test_a_capital_in_mid_sentence_is_suspicious_sooner(self, space: str) -> None:
        before = "The capital of France, as far as I know and"
        nothing_of(Prefill(before), [f"{space}The capital of France, as is known", " to all"])

    @pytest.mark.parametrize(
        ("before", "new", "rest"),
        [
            ("one ", " two", "two"),
            ("one ", "two", "two"),
            ("one", " two", " two"),
            ("o", "ne", "ne"),
            ("one\n", "\n\ntwo", "\ntwo"),
            ("one ", "\n\ntwo", "\n\ntwo"),
            ("one\n\n", "\ntwo", "two"),
            ("one\n", " two", "two"),
            ("one \n", "\n\ntwo", "\ntwo"),
            ("one:\n    ", "\n    two", "two"),
            ("one  ", " ", ""),
            ("cafe", "\u0301", "\u0301"),
            ("\U0001f469", "\u200d\U0001f4bb", "\u200d\U0001f4bb"),
            ("Java", "Script", "Script"),
            ("====", "====\n", "====\n"),
            ("|---|", "---|", "---|"),
            ("3", "3.3", "3.3"),
            ("ha", "haha", "haha"),
        ],
    )
    def test_seams(self, before: str, new: str, rest: str) -> None:
        for size in (1, 2, 99):
            assert run(Prefill(before), chunks(new, [size])) == rest

    def test_most_text_is_not_held(self) -> None:
        for cut in range(1, len(FULL) - 6):
            matcher = Prefill(FULL[:cut])
            new = FULL[len(split(FULL[:cut])[0]) :]
            told = [matcher.push(char) for char in new]
            assert "".join(told[:6]), FULL[:cut]


PREAMBLES = ("", "\n", "Sure, here is the rest:\n\n", "Apologies for the cut. ", "\u2026", "...", "```\n")
MARKS = (
    *(('"', '"'), ("\u201c", "\u201d"), ("'", "'"), ("**", "**"), ("`", "`"), ('"...', '..."')),
    *(("\u00ab", "\u00bb"), ("\u2026", "\u2026")),
)


class TestAnchored:
    @given(cuts(), sizes)
    def test_going_on(self, cut: tuple[str, str], pieces: list[int]) -> None:
        full, before = cut
        sent, _ = split(before)
        new = anchor(sent) + full[len(sent) :]
        assert before + run(Anchored(before), chunks(new, pieces)) == full

    @given(cuts(), sizes)
    def test_as_a_stream(self, cut: tuple[str, str], pieces: list[int]) -> None:
        full, before = cut
        sent, _ = split(before)
        assert resumed(Rung.ANCHORED, before, chunks(anchor(sent) + full[len(sent) :], pieces)) == full

    @pytest.mark.parametrize("size", [1, 4, 13, 500])
    def test_more_or_less_than_asked_for(self, size: int) -> None:
        for cut in range(MIN_ECHO, len(FULL)):
            before = FULL[:cut]
            sent, _ = split(before)
            for start in [0, *(i + 1 for i in range(len(sent) - 16) if sent[i] == " ")]:
                assert before + run(Anchored(before), chunks(FULL[start:], [size])) == FULL, (before, start)

    @pytest.mark.parametrize("size", [1, 4, 500])
    @pytest.mark.parametrize("lead", ["", " ", "\u2026", "..."])
    def test_from_the_middle_of_a_word(self, size: int, lead: str) -> None:
        for cut in range(ANCHOR + 20, len(FULL)):
            before = FULL[:cut]
            sent, _ = split(before)
            for start in range(len(sent) - 16):
                matcher, new = Anchored(before), chunks(lead + FULL[start:], [size])
                word = start == 0 or FULL[start].isspace() or not FULL[start - 1].isalnum()
                if word or len(sent) - start >= MID_WORD:
                    assert before + run(matcher, new) == FULL, (before, start)
                else:
                    nothing_of(matcher, new)

    @given(st.lists(st.text("abcdefghij", min_size=1, max_size=12), min_size=12, max_size=40, unique=True), st.data())
    def test_any_part_repeated_fits_or_gives_nothing(self, words: list[str], data: st.DataObject) -> None:
        full = " ".join(words)
        sent, _ = split(before := full[: data.draw(st.integers(len(full) // 2, len(full) - 1))])
        start = max(len(sent) - data.draw(st.integers(16, 60)), 0)
        mark = sent[start:].lstrip()
        # Where any of it is said elsewhere nothing in the text can tell the two places apart.
        assume(all(full.count(sent[-size:]) == 1 for size in range(8, len(mark) + 1)))
        assume(full.count(anchor(sent)) == 1)
        try:
            got = run(Anchored(before), chunks(full[start:], data.draw(sizes)))
        except Diverged:
            assert len(mark) < MID_WORD
            return
        assert before + got == full

    @given(st.integers(2, MID_WORD - 1), st.text(max_size=60), sizes)
    def test_what_is_changed_in_the_repetition_gives_nothing(self, at: int, rest: str, pieces: list[int]) -> None:
        """So much is right at its end, too little to know it by, and something before that is not."""
        part = FULL[-(MID_WORD + 6) :]
        new = part[:-at] + "#" + part[-at + 1 :] + rest
        assume(Folded(anchor(FULL)).text not in Folded(new).text)
        nothing_of(Anchored(FULL), chunks(new, pieces))

    @pytest.mark.parametrize("preamble", PREAMBLES)
    @pytest.mark.parametrize("size", [1, 7, 500])
    def test_preambles(self, preamble: str, size: int) -> None:
        for cut in range(ANCHOR, len(FULL)):
            before = FULL[:cut]
            sent, _ = split(before)
            new = preamble + anchor(sent) + FULL[len(sent) :]
            assert before + run(Anchored(before), chunks(new, [size])) == FULL

    @pytest.mark.parametrize(("left", "right"), MARKS)
    @pytest.mark.parametrize("size", [1, 7, 500])
    @pytest.mark.parametrize("around", ["words", "all"])
    def test_marks_around_it(self, left: str, right: str, size: int, around: str) -> None:
        for cut in range(ANCHOR, len(FULL)):
            before = FULL[:cut]
            sent, _ = split(before)
            rest = FULL[len(sent) :]
            new = left + anchor(sent) + (right + rest if around == "words" else rest + right)
            if around == "all" and right.startswith(("\u2026", "...")):
                continue
            assert before + run(Anchored(before), chunks(new, [size])) == FULL, new

    def test_forms_do_not_matter(self) -> None:
        before = "And he said: \u201cIt\u2019s not\n  the  end \u2013 it\u2019s the beginning\u2026 of"
        for new in ("And he said: \"It's not the end - it's the beginning... of it\"", before.upper() + " it\u201d"):
            assert run(Anchored(before), [new]) in (' it"', " it\u201d")

    def test_a_quote_of_the_answer_itself_is_closed(self) -> None:
        before = 'Then the old man looked up and said "there is no other way out of here than'
        for size in (1, 99):
            new = '"there is no other way out of here than this one", and left.'
            assert run(Anchored(before), chunks(new, [size])) == ' this one", and left.'
            assert run(Anchored(before), chunks(new[:-11], [size])) == ' this one"'

    def test_a_stray_quote_at_the_end(self) -> None:
        before = "There is no other way out of here than this one, the old man"
        for size in (1, 99):
            assert run(Anchored(before), chunks(f'"{before} said."', [size])) == " said."
            assert run(Anchored(before), chunks(f'"{before} said "no"', [size])) == ' said "no"'

    @given(st.text(max_size=900), sizes)
    def test_another_text_gives_nothing(self, new: str, pieces: list[int]) -> None:
        mark = Folded(anchor(FULL)).text
        assume(all(mark[-size:] not in Folded(new).text for size in (16,)))
        nothing_of(Anchored(FULL), chunks(new, pieces))

    def test_the_hold_is_bounded(self) -> None:
        matcher = Anchored(FULL)
        with pytest.raises(Diverged):
            for _ in range(MAX_HOLD + ANCHOR + 60):
                matcher.push("#")

    def test_an_answer_repeated_from_its_beginning(self) -> None:
        full = " ".join(f"Sentence number {i} of the answer." for i in range(80))
        before = full[:2000]
        assert before + run(Anchored(before), chunks(full, [5])) == full
        nothing_of(Anchored(before), chunks(full[:1200] + "#" + full[1200:], [5]))

    def test_short_answers_need_the_words_at_once(self) -> None:
        assert run(Anchored("I thi"), ["I think so."]) == "nk so."
        assert run(Anchored("I thi"), ['"I thi', 'nk so."']) == "nk so."
        nothing_of(Anchored("I thi"), ["Sure. I think so."])


class TestAnchor:
    @given(cuts())
    def test_it_is_the_end_of_the_answer(self, cut: tuple[str, str]) -> None:
        sent, _ = split(cut[1])
        mark = anchor(sent)
        assert sent.endswith(mark) and 0 < len(mark) <= MAX_ANCHOR
        assert len(mark) >= min(ANCHOR, len(sent)) - 24 and (mark == sent or not mark[0].isspace())

    def test_it_is_found_once_where_it_can_be(self) -> None:
        refrain = "All work and no play makes Jack a dull boy, they say. "
        sent = f"First line. {refrain}Second line, which is another. {refrain}".rstrip()
        assert sent.count(anchor(sent)) == 1
        assert sent.endswith(refrain.rstrip())

    @given(st.text(), sizes)
    def test_folding_in_pieces(self, text: str, pieces: list[int]) -> None:
        folded = Folded()
        for piece in chunks(text, pieces):
            folded.add(piece)
        whole = Folded(text)
        assert (folded.text, folded.ends) == (whole.text, whole.ends)
        assert len(whole.text) == len(whole.ends) and whole.ends == sorted(whole.ends)
        assert not whole.ends or whole.ends[-1] == len(text)

    @given(st.text(" \n\t", max_size=4), st.text(" \n\t", max_size=4))
    def test_whitespace_meets(self, gap: str, own: str) -> None:
        """Never fewer line breaks than either side has, and never both."""
        got = gap + join(gap, own + "x")
        assert got.endswith("x")
        assert got.count("\n") == max(gap.count("\n"), own.count("\n"))
        if own.startswith(gap):
            assert got == own + "x"


@given(st.text(" \n", min_size=1, max_size=3), prose, sizes)
def test_fresh_text_behind_whitespace(gap: str, text: str, pieces: list[int]) -> None:
    full = gap + text
    assert gap + run(Fresh(gap), chunks(full, pieces)) == full

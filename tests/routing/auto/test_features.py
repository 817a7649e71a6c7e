from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.routing.auto import features as reading
from lumen.routing.auto import hashing
from lumen.routing.auto.ask import HEAD, TAIL, Ask
from lumen.routing.auto.features import BITS, BUCKETS, PLAIN, SUBJECT_NAMES, features


def plain(text: str, name: str) -> float:
    return float(features(Ask(text)).plain[PLAIN.index(name)])


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300), st.text(max_size=40), st.integers(1, 9))
def test_any_text_has_features(text: str, system: str, turns: int) -> None:
    found = features(Ask(text, system=system, turns=turns))
    assert found.grams.shape == (BUCKETS,) and found.plain.shape == (len(PLAIN),)
    assert all(np.isfinite(part).all() for part in (found.grams, found.plain, found.subjects))
    assert np.isclose(np.linalg.norm(found.grams), 1.0, atol=1e-3) or not np.any(found.grams)


def test_hashes_never_change() -> None:
    # A model learnt by one version scores in the next: these numbers are part of the format.
    assert hashing.token("lumen") == 15136380307525468115
    assert [int(h) for h in hashing.words(b"One fish").hashes] == [2894128042705922400, 2163573299088762763]


def test_buckets_never_change() -> None:
    data = hashing.raw("  One fish, two  fish: 3 red ones\nA. é")
    found = hashing.buckets(hashing.words(data), 13).astype(np.int64)
    assert len(found) == 116 and int(found @ np.arange(len(found))) == 29027988
    assert not len(hashing.buckets(hashing.words(b""), 13))


@given(st.lists(st.text("abcXYZ09", min_size=1, max_size=8), min_size=1, max_size=8))
def test_a_words_hash_does_not_hang_on_its_place(words: list[str]) -> None:
    together = hashing.words(hashing.raw(" ".join(words))).hashes
    alone = [hashing.words(hashing.raw(word)).hashes[0] for word in words]
    assert together.tolist() == alone


def test_case_spaces_and_digits_are_folded() -> None:
    one, two = features(Ask("Add 12  and 34")), features(Ask("add 56 and 78"))
    assert np.allclose(one.grams, two.grams)


def test_counts() -> None:
    assert plain("What is it?\nA. one\nB. two\nC. three", "options") == pytest.approx(np.log(4))
    assert plain("What is it?\nA. one\nB. two\nC. three", "characters before the options") == pytest.approx(np.log(13))
    assert plain("so what?", "ends in a question") == 1.0
    assert plain("$x$ and \\frac", "LaTeX marks") == pytest.approx(np.log(4))
    assert plain("是的", "share of CJK") > 0


@pytest.mark.parametrize(
    ("text", "options", "before"),
    [
        ("A. one\nB) two\n(C) three", 3, 0),
        ("which\n(A: one\nK. no\na. no\nB.x", 1, 29),
        ("which\nA. one\nB.x", 1, 16),
        ("A.", 0, 2),
        ("pick\nJ. x", 1, 9),
    ],
)
def test_options_are_told_by_how_lines_begin(text: str, options: int, before: int) -> None:
    assert plain(text, "options") == pytest.approx(np.log1p(options), abs=1e-6)
    assert plain(text, "characters before the options") == pytest.approx(np.log1p(before), abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.text("aB1 é\n.?=$", max_size=400))
def test_what_is_counted_of_bytes_and_words(text: str) -> None:
    data = text.encode()
    words = "".join(c if c.isalnum() else " " for c in text).split()
    assert plain(text, "words") == pytest.approx(np.log1p(len(words)), abs=1e-6)
    assert plain(text, "numbers") == pytest.approx(np.log1p(sum(word[0] == "1" for word in words)), abs=1e-6)
    assert plain(text, "share of punctuation") == pytest.approx(
        sum(data.count(c) for c in b".?=$") / max(len(data), 1), abs=1e-6
    )
    distinct = {"".join(word).lower() for word in words}
    assert plain(text, "share of distinct words") == pytest.approx(len(distinct) / max(len(words), 1), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.text("ab c1", max_size=200), st.text("ab c", max_size=40), st.lists(st.integers(0, BUCKETS - 1), max_size=2))
def test_n_grams_are_counted_with_their_signs(text: str, beside: str, more: list[int]) -> None:
    words, other = hashing.words(hashing.raw(text)), reading._beside(beside)
    found, places, roots = reading._counted(words, [other], more)
    counts = np.zeros(BUCKETS)
    for worth, grams in ((1.0, hashing.buckets(words, BITS + 1)), (0.5, other)):
        for gram in grams.tolist():
            counts[gram >> 1] += -worth if gram & 1 else worth
    assert set(more) <= set(places.tolist()) and np.array_equal(places, found.nonzero()[0])
    row = np.zeros(BUCKETS)
    row[places] = roots
    assert row == pytest.approx(np.copysign(np.sqrt(np.abs(counts)), counts), abs=1e-6)


@given(st.lists(st.integers(-4096, 4096), max_size=50))
def test_roots_that_are_known_are_those_that_are_drawn(counts: list[int]) -> None:
    twice = np.array(counts, np.float64)
    assert np.array_equal(reading._roots(twice, 2048), reading._roots(twice, 2049))


def test_a_long_text_is_read_as_a_short_one() -> None:
    one, other = features(Ask("zig " * 120)).grams, features(Ask("zig " * 1900)).grams
    assert float(one @ other) == pytest.approx(1.0, abs=1e-2)


def test_a_system_prompt_counts_the_same_each_time() -> None:
    asks = [Ask("sum it up", system=f"You are number {i}, and terse.") for i in range(100)]
    first = [features(ask) for ask in asks]
    for ask, before in zip(asks, first, strict=True):
        assert np.array_equal(features(ask).grams, before.grams)
    assert len({one.grams.tobytes() for one in first}) > 90
    # What is read of it is its beginning; its end tells it apart all the same.
    long = "You are terse. " * 200
    assert not np.array_equal(features(Ask("x", long)).grams, features(Ask("x", long + "!")).grams)


def test_the_subject_is_read() -> None:
    found = features(Ask("What is the molar mass of the acid in this reaction?")).subjects
    assert SUBJECT_NAMES[int(np.argmax(found[: len(SUBJECT_NAMES)]))] == "chemistry"


def test_only_head_and_tail_are_read() -> None:
    long = "a " * 4000 + "middle " * 4000 + "z " * 3000
    assert len(Ask(long).shown()) == HEAD + TAIL
    assert np.array_equal(features(Ask(long)).grams, features(Ask(long.replace("middle", "centre"))).grams)


def test_what_stands_beside_counts() -> None:
    bare = features(Ask("sum it up"))
    for other in (
        Ask("sum it up", system="You are terse."),
        Ask("sum it up", tags=("app=a",)),
        Ask("sum it up", images=1),
    ):
        found = features(other)
        assert not (np.array_equal(found.grams, bare.grams) and np.array_equal(found.plain, bare.plain))


@given(st.lists(st.sampled_from(("acid", "torque", "the", "proof", "court", "zebra", "loop")), max_size=90))
def test_few_words_have_the_subjects_that_many_have(words: list[str]) -> None:
    found, many = hashing.words(hashing.raw(" ".join(words))), np.empty(2 * len(SUBJECT_NAMES), np.float32)
    few = np.array(reading._few_subjects(found.hashes.tolist()), np.float32)
    reading._subjects(found, many)
    assert few == pytest.approx(many, abs=1e-6)

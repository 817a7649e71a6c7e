from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.routing.auto import hashing
from lumen.routing.auto.ask import HEAD, TAIL, Ask
from lumen.routing.auto.features import BUCKETS, PLAIN, SUBJECT_NAMES, features


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

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.learning.judging import agreement, both, parse, question, turned, worth


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('{"better": "A"}', "first"),
        ('{"better":"b"}', "second"),
        ('```json\n{ "better" : "tie" }\n```', "tie"),
        ('{"verdict": "Answer B", "why": "A is shorter"}', "second"),
        ('I first thought {"better": "A"} but {"better": "B"}', "second"),
        ("Both are fine. [[C]]", "tie"),
        ("After comparing, [[B]]", "second"),
        ("A", "first"),
        ("**B**", "second"),
        ("Let me think.\n\nAnswer A.", "first"),
        ("The better answer is A because it is right.", "first"),
        ("Answer B is clearly better.", "second"),
        ('<think>A is better: {"better": "A"}</think>\n{"better": "B"}', "second"),
        ("", None),
        ("I cannot decide which of them to take.", None),
        ("Answer A is better. No, answer B is better.", None),
        ("A cat sat on the mat", None),
    ],
)
def test_what_a_judge_says_is_read(text: str, meant: str | None) -> None:
    assert parse(text) == meant


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert parse(text) in (None, "first", "second", "tie")


def test_only_a_preference_that_holds_in_both_orders_counts() -> None:
    assert both("first", turned("second")) == "first"
    assert both("second", turned("first")) == "second"
    assert both("first", turned("first")) == "tie"
    assert both("tie", turned("second")) == "tie"
    assert both("tie", turned("tie")) == "tie"
    assert both("first", None) is None and both(None, "tie") is None
    assert [worth(v) for v in ("first", "second", "tie")] == [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]  # type: ignore[arg-type]


def test_a_judge_sees_both_answers_behind_a_mark_and_long_ones_cut() -> None:
    (role, _), (_, shown) = question("why?", "x" * 40_000, "because", "#7f3a")
    assert role == "system"
    assert shown.count("#7f3a") == 4
    assert shown.index("why?") < shown.index("xxx") < shown.index("because")
    assert len(shown) < 20_000 and "[…]" in shown


def test_agreement_has_an_interval_and_a_floor() -> None:
    assert agreement(0, 0).trusted is None
    assert agreement(9, 9).trusted is None
    good, bad = agreement(19, 20), agreement(12, 20)
    # By the formula's author: 19 of 20 gives 0.764 to 0.991.
    assert (round(good.low, 3), round(good.high, 3)) == (0.764, 0.991)
    assert good.trusted is True and bad.trusted is False


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_around_the_share(counts: tuple[int, int]) -> None:
    found = agreement(*counts)
    assert 0.0 <= found.low <= found.share + 1e-9 and found.share - 1e-9 <= found.high <= 1.0

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.chat.gbnf import Grammar, Rules, choice, literal, repeat, until_rules
from lumen.workers.llamacpp.chat.jsonstream import MAX_DEPTH, JsonValue
from lumen.workers.llamacpp.chat.numeric import integer_range, number_range

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12
)
SCRAPS = st.lists(
    st.sampled_from(
        [
            '{"a":',
            "[",
            "]",
            "}",
            ",",
            ":",
            '"',
            "\\",
            "1",
            "-",
            "0",
            ".5",
            "e3",
            "true",
            "nul",
            "l",
            " ",
            "\\u00e9",
            "x",
        ]
    ),
    max_size=10,
).map("".join)


def grammar(body: str, rules: Rules | None = None) -> Grammar:
    return (rules or Rules()).grammar(body)


@given(value=VALUES, ascii=st.booleans(), indent=st.sampled_from([None, 1]))
def test_values_end_where_they_end(value: Any, ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    reader, out = JsonValue(), ""
    for char in text + "@":
        if reader.done:
            break
        fragment, used = reader.push(char)
        out += fragment
        if used == 0:
            break
    assert not reader.bad
    assert reader.done
    assert out == text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


@settings(max_examples=400)
@given(
    text=st.one_of(
        SCRAPS, VALUES.map(json.dumps).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n] + t[n + 1 :]))
    )
)
def test_what_is_done_is_json_and_json_is_done(text: str) -> None:
    text = text.strip()
    reader = JsonValue()
    _, used = reader.push(text + " ")  # a number ends only at what follows it
    try:
        # NaN and Infinity are Python's own; inside a string they are only words.
        json.loads(text, parse_constant=_refuse)
        valid = True
    except ValueError:
        valid = False
    assert (reader.done and not reader.bad and used == len(text)) is valid


def test_raw_controls_in_strings_are_mended() -> None:
    assert JsonValue().push('"a\nb\x01"') == ('"a\\nb\\u0001"', 6)


def test_depth_is_bounded() -> None:
    reader = JsonValue()
    _, used = reader.push("[" * 10_000)
    assert reader.bad
    assert used == MAX_DEPTH


@settings(max_examples=60, deadline=None)
@given(low=st.integers(-2000, 2000), span=st.integers(0, 3000), probes=st.lists(st.integers(-6000, 6000), max_size=12))
def test_integer_ranges_are_exact(engine: Any, low: int, span: int, probes: list[int]) -> None:
    high = low + span
    made = grammar(integer_range(low, high))
    for probe in {*probes, low, high, low - 1, high + 1, 0, -low, (low + high) // 2}:
        assert engine.matches(made, str(probe)) is (low <= probe <= high), probe


@settings(max_examples=80, deadline=None)
@given(
    low=st.decimals(-30, 30, places=2),
    high=st.decimals(-30, 30, places=3),
    edges=st.tuples(st.booleans(), st.booleans()),
    probes=st.lists(st.decimals(-35, 35, places=4), max_size=12),
)
def test_number_ranges_are_exact(
    engine: Any, low: Decimal, high: Decimal, edges: tuple[bool, bool], probes: list[Decimal]
) -> None:
    above, below = edges
    if low >= high:
        low, high = high, low
    if low == high:
        high += 1
    made = grammar(number_range(low, high, above, below))
    tick = Decimal("0.0001")
    near = {bound + step * tick for bound in (low, high) for step in (-1, 0, 1)}
    for probe in {*probes, *near, Decimal(0), Decimal(int(low)), Decimal(int(high)), (low + high) / 2}:
        inside = (low < probe if above else low <= probe) and (probe < high if below else probe <= high)
        text = format(probe, "f")
        if probe == 0 and text.startswith("-"):
            continue
        assert engine.matches(made, text) is inside, text
        if "." in text and text.rstrip("0")[-1] != ".":
            assert engine.matches(made, text.rstrip("0")) is inside, text


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (3, 3), (0, 64), (64, 65), (65, 130), (0, 300), (150, None)])
def test_repetitions_are_exact(engine: Any, low: int, high: int | None) -> None:
    rules = Rules()
    made = grammar(f'"<" {repeat(rules, "x", "[x]", low, high)} ">"', rules)
    for count in {0, 1, low - 1, low, low + 1, (high or 200) - 1, high or 200, (high or 200) + 1, 64, 65}:
        if count >= 0:
            assert engine.matches(made, f"<{'x' * count}>") is (low <= count and (high is None or count <= high)), count


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet='ab"\\é\n', max_size=5), min_size=1, max_size=9),
    probe=st.text(alphabet='ab"\\é\n', max_size=5),
)
def test_choices_are_exact(engine: Any, texts: list[str], probe: str) -> None:
    made = grammar(f'"<" ({choice(texts)}) ">"')
    for text in (*texts, probe):
        assert engine.matches(made, f"<{text}>") is (text in texts)


@settings(max_examples=60, deadline=None)
@given(closer=st.text(alphabet="ab-]", min_size=1, max_size=5), text=st.text(alphabet="ab-]^é", max_size=10))
def test_until_ends_at_the_first_closer(engine: Any, closer: str, text: str) -> None:
    made = Grammar(f"root ::= until\n{until_rules('until', closer)}")
    whole = text + closer
    assert engine.matches(made, whole) is (whole.index(closer) + len(closer) == len(whole))


@given(text=st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12))
@settings(max_examples=60, deadline=None)
def test_literals_are_what_they_say(engine: Any, text: str) -> None:
    assert engine.matches(grammar(f'"<" {literal(text)}'), "<" + text)

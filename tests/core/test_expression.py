"""Conditions over requests: what they mean, what they refuse, and that nothing of them is ever run as code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.expression import FIELDS, ExpressionError, condition

REQUEST: dict[str, Any] = {
    **dict.fromkeys(FIELDS),
    "text": "Write a haiku", "system": "", "turns": 4, "characters": 13, "tokens": 90, "tools": 0, "images": 0,
    "json": False, "stream": True, "limit": 0, "key": "batch-key", "operation": "chat/completions",
    "tags": {"app": "batch", "tier": "gold"}, "headers": {"x-team": "blue"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "holds"),
    [
        ("tags.app == 'batch' and turns > 3", True),
        ("tags.app == 'batch' and turns > 4", False),
        ("tags['tier'] in ['gold', 'silver']", True),
        ("tags.none == None and tags.none != 'x'", True),
        ("tags.none > 3 or tags.none < 3", False),
        ("headers['X-Team'] == 'blue'", True),
        ("contains(lower(text), 'haiku')", True),
        ("'haiku' in text", True),
        ("'ode' not in text", True),
        ("startswith(text, 'Write') and endswith(key, '-key')", True),
        ("1 < turns <= 4", True),
        ("not json and stream", True),
        ("length(system) == 0", True),
        ("turns > 'x'", False),
        ("limit > -1", True),
        ("contains(tags.none, 'x')", False),
    ],
)
def test_what_conditions_mean(written: str, holds: bool) -> None:
    assert condition(written)(REQUEST.__getitem__) is holds


@pytest.mark.parametrize(
    ("written", "at", "message"),
    [
        ("", 1, "not a condition"),
        ("turns >", 1, "not a condition"),
        ("trns > 3", 1, "no field 'trns'"),
        ("turns > 3 and tags", 15, "write tags.NAME"),
        ("__import__('os').system('x')", 1, "can be called"),
        ("text.upper() == 'A'", 1, "can be called"),
        ("text.upper", 1, "only tags and headers"),
        ("turns + 1 > 2", 1, "cannot stand"),
        ("[x for x in text]", 1, "cannot stand"),
        ("(lambda: 1)()", 1, "can be called"),
        ("lower()", 1, "takes 1 value"),
        ("turns is 3", 1, "write == or !="),
        ("tags[turns]", 1, "in quotes"),
        ("text == b'x'", 9, "a text in quotes"),
        ("not " * 60 + "json", 1, "nested"),
        ("(" * 500 + "json" + ")" * 500, 1, "not a condition"),
    ],
)
def test_what_is_no_condition_is_refused_where_it_stands(written: str, at: int, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        condition(written)
    assert caught.value.at >= 1
    if at > 1:
        assert caught.value.at == at


@given(st.text(alphabet="tagsurn.'[]()<>=!andotixy_0 1", max_size=60))
def test_any_text_is_a_condition_or_refused(written: str) -> None:
    try:
        found = condition(written)
    except ExpressionError:
        return
    assert found(REQUEST.__getitem__) in (True, False)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), _VALUES), st.dictionaries(st.just("app"), _VALUES))
def test_a_condition_never_fails_on_a_request(fields: dict[str, Any], tags: dict[str, Any]) -> None:
    request = {**dict.fromkeys(FIELDS), **fields, "tags": tags, "headers": {}}
    asked = condition("tags.app > turns or contains(text, key) or limit in [1, 'a'] or lower(text) < system")
    assert asked(request.__getitem__) in (True, False)

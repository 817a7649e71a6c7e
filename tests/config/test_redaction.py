from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.load import parse
from lumen.config.redaction import REDACTED, redact, redaction
from lumen.core.errors import ConfigError

ASKED: dict[str, Any] = {
    "model": "fast",
    "user": "joe@example.com",
    "messages": [{"role": "user", "content": "card 4111111111111111"}, {"role": "tool", "content": [{"text": "deep"}]}],
}


@pytest.mark.parametrize(
    ("rule", "gone", "stays"),
    [
        ("$.user", ["joe@"], ["4111", "deep", "fast"]),
        ("$.messages[*].content", ["4111", "deep"], ["joe@", "user"]),
        ("$.messages[1].content", ["deep"], ["4111"]),
        ("$.messages[1].content[*].text", ["deep"], ["4111"]),
        ("$..text", ["deep"], ["4111"]),
        ("$..content", ["4111", "deep"], ["joe@"]),
        ("$.*", ["joe@", "4111", "deep", "fast"], []),
        ("/[0-9]{13,16}/", ["4111"], ["card", "deep"]),
        ("/joe@[a-z.]+/", ["joe@", "example"], ["4111"]),
        ("$.nothing.here", [], ["joe@", "4111"]),
    ],
)
def test_what_a_rule_names_is_gone_and_nothing_else(rule: str, gone: list[str], stays: list[str]) -> None:
    left = str(redact(ASKED, [redaction(rule)]))
    assert not [word for word in gone if word in left]
    assert not [word for word in stays if word not in left]
    assert (REDACTED in left) is bool(gone)
    assert "4111111111111111" in str(ASKED), "the original is another's"


@pytest.mark.parametrize("rule", ["", "$", "messages", "$.a[", "$.a[-1]", "/(/", "//", "$.a b", "x" * 600])
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError):
        redaction(rule)


def test_what_is_told_token_by_token_cannot_hide_from_an_expression() -> None:
    rules = [redaction("/[0-9]{13,16}/")]
    digits = [{"token": "41111111", "bytes": [52]}, {"token": "11111111", "bytes": [49]}]
    answer = {"choices": [{"text": "4111111111111111", "logprobs": {"content": digits}, "token_ids": [52, 49]}]}
    assert "11111111" not in str(redact(answer, rules)) and "52" not in str(redact(answer, rules))
    assert redact({"prompt": [1, 2], "input": [[3, 4]]}, rules) == {"prompt": REDACTED, "input": REDACTED}
    plain = {"prompt": ["a", "b"], "input": "c", "logprobs": True, "top_logprobs": 3, "logit_bias": {"5": 1}}
    assert redact(plain, rules) == plain
    # A path leaves out what it names and nothing else.
    assert redact(answer, [redaction("$.user")]) == answer


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_text_looked_for_is_nowhere_left(value: Any) -> None:
    hidden = {"a": value, "b": ["x CANARY y", {"CANARY": "CANARY"}]}
    assert "CANARY" not in repr(redact(hidden, [redaction("/CANARY/")]))


def test_the_configuration_refuses_what_contradicts_itself_or_is_no_rule() -> None:
    start = "models:\n  a:\n    source: builtin:tiny\nroutes:\n  r:\n    targets: [a]\n"
    config = parse(start + "    payloads:\n      days: 3\n      redact: [$.user]\n", "c.yaml")
    payloads = config.routes["r"].payloads
    assert payloads is not None and (payloads.days, payloads.share) == (3, 1.0)
    for wrong, told in (
        ("    retention: none\n    payloads:\n      days: 3\n", "leave one of them out"),
        ("    payloads:\n      redact: [user]\n", "c.yaml:8"),
        ("    payloads:\n      share: 1.5\n", "from 0 to 1"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse(start + wrong, "c.yaml")
        assert told in str(caught.value)
    with pytest.raises(ConfigError, match="env:NAME"):
        parse("traces:\n  endpoint: https://otlp.example/v1/traces\n  headers:\n    Authorization: secret\n", "c.yaml")

from __future__ import annotations

from typing import Any

import pytest

from lumen.core.errors import ConfigError
from lumen.engines._options import Option, check_options

KNOWN = {
    "kv": Option(int, least=256, most=1000),
    "share": Option(float, least=0, most=1),
    "flash": Option(str, choices=("on", "off")),
    "deep": Option(bool),
    "env": Option(dict),
}


def test_good_options_pass_as_they_are() -> None:
    good = {"kv": 256, "share": 1, "flash": "on", "deep": False, "env": {"A": 1}}
    assert check_options("e", good, KNOWN) == good
    assert check_options("e", {}, KNOWN) == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kvv", 1, "engine 'e' has no option 'kvv'; did you mean 'kv'"),
        ("zzzz", 1, "valid: deep, env, flash, kv, share"),
        ("kv", "256", "'kv' of engine 'e' must be of type int, not '256'"),
        ("kv", True, "must be of type int"),
        ("kv", 2.5, "must be of type int"),
        ("kv", 255, "must be at least 256"),
        ("kv", 1001, "must be at most 1000"),
        ("share", 1.5, "must be at most 1"),
        ("share", True, "must be of type float"),
        ("flash", "auto", "must be one of on, off"),
        ("deep", 1, "must be of type bool"),
        ("env", [1], "must be of type dict"),
        ("flash", None, "must be of type str"),
    ],
)
def test_bad_options_are_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options("e", {name: value}, KNOWN)

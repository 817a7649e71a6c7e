"""For which models memory is kept free: those of routes, and of keys, that say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lumen.config.schema import Config, Model, Route, Target
from lumen.core.errors import ConfigError
from lumen.keys import Key, KeyRing
from lumen.reserves import claimed

MODELS = {"small": Model("a"), "large": Model("b", adapters={"sql": "c"}), "other": Model("d")}
CONFIG = Config(
    models=MODELS,
    routes={
        "fast": Route(targets=(Target("small"), Target("openai/gpt"))),
        "query": Route(targets=(Target("large:sql"),)),
    },
)
KEY = Key("key-1", "app", "0" * 64, created=0.0, reserve=True)


def of(**limits: object) -> set[str]:
    return claimed(CONFIG, [replace(KEY, **limits)], 10.0)  # type: ignore[arg-type]


def test_what_a_key_may_ask_is_kept_for_it() -> None:
    assert of(models=("small",)) == {"small"}
    assert of(models=("*",)) == set(MODELS)
    assert of(models=("large:*",)) == {"large"}
    assert of(routes=("fast",)) == {"small"}
    assert of(routes=("query",), models=("other",)) == {"large", "other"}
    assert of(models=("gpt-*",)) == set()


def test_only_keys_that_say_so_and_are_in_use_claim_something() -> None:
    assert of(models=("small",), reserve=False) == set()
    assert of(models=("small",), revoked=5.0) == set()
    assert of(models=("small",), expires=5.0) == set()
    assert of() == set(), "all that there is cannot be kept free"


def test_a_reserved_route_claims_its_local_models() -> None:
    routes = {**CONFIG.routes, "fast": replace(CONFIG.routes["fast"], reserve=True)}
    assert claimed(replace(CONFIG, routes=routes), (), 0.0) == {"small"}


def test_a_key_is_told_to_keep_and_no_longer() -> None:
    ring = KeyRing([replace(KEY, models=("small",), reserve=False), replace(KEY, id="key-2", name="all")])
    kept = ring.change("app", reserve=True)
    assert kept.in_use("app").reserve and not kept.change("app", reserve=False).in_use("app").reserve
    with pytest.raises(ConfigError, match="limited to models"):
        ring.change("all", reserve=True)

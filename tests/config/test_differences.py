from __future__ import annotations

from dataclasses import replace

from lumen.config.differences import differences
from lumen.config.schema import Budget, Config, Model, Route, Target


def test_what_changed_is_told_by_name_and_never_by_value() -> None:
    route = Route((Target("m"),))
    before = Config(models={"m": Model("x")}, routes={"a": route, "b": route, "c": route})
    assert differences(before, before) == []
    after = replace(
        before,
        retention="none",
        models={"m": Model("secret-place")},
        routes={"a": route, "b": replace(route, budget=Budget(daily=5)), "d": route},
    )
    assert differences(before, after) == ["models.m", "routes.b", "routes.c", "routes.d", "retention"]

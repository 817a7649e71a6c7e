"""Routes: set, changed, shown and removed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from lumen_cli import route_set

from lumen.config.load import load as load_config
from lumen.config.schema import Route, Target, Timeouts
from lumen.paths import Paths
from tests.cli.harness import CONFIG, MODEL, Fake, Ran


def test_a_route_is_set_changed_and_removed(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    ran = lumen("route", "set", "fast", "--target", "small=3", "--target", "acme/big", "--policy", "ordered",
                "--default", "temperature=0.7", "--default", 'stop=["a"]', "--default", "reasoning_effort=low",
                "--timeout", "first_token=5s", "--timeout", "min_rate=2.5")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "takes effect with the next `lumen up`" in ran.out
    route = load_config(home.config_file).routes["fast"]
    assert route.targets == (Target("small", 3.0), Target("acme/big"))
    assert route.defaults == {"temperature": 0.7, "stop": ["a"], "reasoning_effort": "low"}
    assert (route.policy, route.timeouts) == ("ordered", Timeouts(first_token=5.0, min_rate=2.5))
    assert home.config_file.read_text().startswith(CONFIG)

    assert lumen("route", "set", "fast", "--default", "temperature=", "--default", "seed=1").code == 0
    changed = load_config(home.config_file).routes["fast"]
    assert changed.defaults == {"stop": ["a"], "reasoning_effort": "low", "seed": 1}
    assert changed.targets == route.targets

    shown = lumen("route", "show", "fast")
    assert ["small", "3", "75", "%"] in [line.split() for line in shown.out.splitlines()]
    assert "limits    first_token=5s, min_rate=2.5 tokens/s" in shown.out
    assert "small=3, acme/big=1" in lumen("route", "ls").out
    assert lumen("route", "show", "fast", "--json").json["targets"][0] == {"model": "small", "weight": 3.0}

    assert lumen("route", "set", "fast", "--timeout", "min_rate=").code == 0
    assert load_config(home.config_file).routes["fast"].timeouts == Timeouts(first_token=5.0)

    assert lumen("route", "rm", "fast").code == 0
    assert load_config(home.config_file).routes == {}
    ran = lumen("route", "rm", "fast")
    assert (ran.code, ran.err) == (1, "lumen: there is no route 'fast'; see `lumen route ls`\n")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--target", "smal"], 1, "did you mean 'small'?"),
        (["--target", "small=x"], 2, "the weight must be a number"),
        (["--target", "small=nan"], 2, "the weight must be a number"),
        (["--target", "small=0"], 1, "every weight of route 'fast' is 0"),
        (["--target", "small", "--policy", "wieghted"], 1, "did you mean 'weighted'?"),
        (["--target", "small", "--default", "temprature=1"], 1, "did you mean 'temperature'?"),
        (["--target", "small", "--default", "temperature"], 2, "is not NAME=VALUE"),
        (["--target", "small", "--timeout", "gap=soon"], 1, "routes.fast.timeouts.gap: expected a duration"),
        (["--target", "small", "--timeout", "nap=1s"], 1, "did you mean 'gap'?"),
        (["--target", "small", "--hedge", "p59"], 1, "did you mean 'p95'?"),
        (["--target", "small", "--max-splices", "17"], 2, "0<=x<=16"),
        (["--policy", "weighted"], 1, "routes.fast needs 'targets'"),
        ([], 2, "nothing to set"),
    ],
)
def test_a_route_that_is_wrong_is_not_written(
    lumen: Callable[..., Ran], home: Paths, args: list[str], code: int, said: str
) -> None:
    home.config_file.write_text(CONFIG)
    ran = lumen("route", "set", "fast", *args)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert said in ran.err
    assert home.config_file.read_text() == CONFIG


def test_every_plain_setting_of_a_route_is_set_and_shown(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    made = lumen("route", "set", "fast", "--target", "small", "--max-splices", "8")
    assert made.code == 0, made.err
    assert load_config(home.config_file).routes["fast"].max_splices == 8
    assert "besides   max_splices=8\n" in lumen("route", "show", "fast").out
    ran = lumen("route", "set", "fast", "--hedge", "p95", "--content-filter", "next", "--exact", "--reserve",
                "--priority", "high", "--share-prefixes", "--retention", "none", "--learn", "nightly")  # fmt: skip
    assert ran.code == 0, ran.err
    route = load_config(home.config_file).routes["fast"]
    assert (route.hedge, route.content_filter, route.exact, route.reserve) == ("p95", "next", True, True)
    assert (route.priority, route.share_prefixes, route.retention, route.learn) == ("high", True, "none", "nightly")
    assert route.max_splices == 8, "what is not given stays"
    shown = lumen("route", "show", "fast").out
    assert (
        "besides   max_splices=8, hedge=p95, content_filter=next, exact, reserve, priority=high, share_prefixes, "
        "retention=none, learn=nightly\n" in shown
    )
    assert lumen("route", "set", "fast", "--max-splices", "2", "--hedge", "off", "--content-filter", "stop",
                 "--no-exact", "--no-reserve", "--priority", "normal", "--no-share-prefixes", "--retention", "usual",
                 "--learn", "off").code == 0  # fmt: skip
    assert "besides" not in lumen("route", "show", "fast").out


def test_only_a_route_that_goes_by_what_targets_are_worth_promises_something(
    lumen: Callable[..., Ran], home: Paths
) -> None:
    home.config_file.write_text(CONFIG)
    assert lumen("route", "set", "fast", "--target", "small", "--target", "acme/big").code == 0
    for policy, promises in (("ordered", False), ("auto", True), ("cheapest", False), ("quality", True)):
        assert lumen("route", "set", "fast", "--policy", policy).code == 0
        assert ("quality   against small" in lumen("route", "show", "fast").out) is promises
    assert lumen("route", "set", "fast", "--policy", "ordered", "--strong", "acme/big").code == 0
    assert "quality   against acme/big" in lumen("route", "show", "fast").out


def test_a_target_that_money_keeps_from_being_asked_is_told(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    assert lumen("route", "set", "fast", "--target", "small", "--target", "acme/big").err == ""
    ran = lumen("route", "set", "fast", "--daily", "5usd")
    how = "`lumen provider price acme/big --input … --output …` says it"
    why = f"acme/big has no known price and is not asked where money is limited; {how}"
    assert (ran.code, ran.err) == (0, f"{why}.\n")
    assert f"routes.fast: {why}" in lumen("config", "check", "--json").json["warnings"]
    assert lumen("provider", "price", "acme/big", "--input", "0.60/1M", "--output", "2.40/1M").code == 0
    assert lumen("route", "set", "fast", "--daily", "6usd").err == ""


def test_what_of_a_route_only_the_file_can_say() -> None:
    flags = set(inspect.signature(route_set.set_).parameters)
    # Under other names: a target is given by itself, a default and a limit one by one, a budget amount by amount.
    named = {"targets": "target", "rules": "rule", "defaults": "default", "timeouts": "timeout", "budget": "daily"}
    missing = {field.name for field in fields(Route) if named.get(field.name, field.name) not in flags}
    assert missing == {"payloads", "responses"}


def test_a_route_reaches_the_running_gateway_and_its_file(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, tmp_path: Path
) -> None:
    used = tmp_path / "used.yaml"
    fake.start(statuses=[{"models": [MODEL], "config": str(used)}])
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny")
    assert ran.out == f"Route fast is written to {used}: in force now.\n"
    assert len(fake.calls("/admin/reload")) == 1
    assert "fast" in load_config(used).routes
    assert not home.config_file.exists()
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny", "--config", str(tmp_path / "other.yaml"))
    assert f"the running gateway uses {used} and is not changed" in ran.out
    assert len(fake.calls("/admin/reload")) == 1
    ran = lumen("route", "rm", "fast")
    assert ran.out == f"Route fast is removed from {used}: in force now.\n"


def test_a_route_that_the_gateway_refuses_is_told(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    fake.start(statuses=[{"config": str(home.config_file)}], refuses="provider 'x' takes its key from $X, not set.")
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny")
    assert ran.code == 1
    assert "the running gateway refuses it: provider 'x' takes its key from $X, not set" in ran.err


def test_routes_of_a_running_gateway_are_those_in_force(lumen: Callable[..., Ran], fake: Fake) -> None:
    route = {"name": "m", "declared": False, "targets": [{"model": "m", "weight": 1.0}], "policy": "weighted",
             "defaults": {}, "timeouts": {"gap": 30.0, "total": None}, "ttft": 0.8, "late": ["m"]}  # fmt: skip
    fake.start(statuses=[{"models": [MODEL]}], routes=[route])
    assert lumen("route", "ls", "--json").json == [route]
    shown = lumen("route", "show", "m").out
    assert "limits    gap=30s" in shown and "ttft      800ms; left out now: m\n" in shown
    assert "did you mean 'm'?" in lumen("route", "show", "mm").err

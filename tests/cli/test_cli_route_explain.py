"""`lumen route set` for learning routes, and `lumen route explain` by the gateway and from the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lumen.core.money import DOLLAR
from lumen.learning.shelf import Shelf
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran
from tests.cli.test_cli_money import NOVEMBER, book
from tests.ledger.ledgers import attempt

Lumen = Callable[..., Ran]
CONFIG = """
providers:
  acme:
    base_url: https://api.example.com/v1
    models:
      small: {price: {input: 0.1/1M, output: 0.4/1M}, context: 4000}
      large: {price: {input: 2.5/1M, output: 10/1M}, context: 100000}
routes:
  smart:
    targets: [acme/small, acme/large]
    policy: auto
    strong: acme/large
    rules:
      - {when: turns > 1, target: acme/small}
  own:
    targets: [acme/small, acme/large]
    policy: mine.py
"""


@pytest.fixture
def written(home: Paths) -> Path:
    home.config_dir.mkdir(parents=True, exist_ok=True)
    (home.config_dir / "mine.py").write_text("def order(candidates, view):\n    return candidates\n")
    home.config_file.write_text(CONFIG)
    return home.config_file


def test_what_a_learning_route_promises_is_set_and_shown(lumen: Lumen, written: Path) -> None:
    ran = lumen(
        "route", "set", "smart", "--quality", "0.98", "--max-loss", "2%", "--confidence", "90%",
        "--rule", "tags.app == 'batch' -> acme/small",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    route = yaml.safe_load(written.read_text())["routes"]["smart"]
    assert (route["quality"], route["max_loss"], route["confidence"]) == (0.98, "2%", "90%")
    assert route["rules"] == [{"when": "tags.app == 'batch'", "target": "acme/small"}]
    shown = lumen("route", "show", "smart").out
    assert "against acme/large: at most 2% lost in all, at 90% confidence; 98% kept each" in shown
    assert "tags.app == 'batch' -> acme/small" in shown
    assert lumen("route", "set", "smart", "--quality", "none", "--rule", "none").code == 0
    route = yaml.safe_load(written.read_text())["routes"]["smart"]
    assert (route["quality"], route["rules"]) == (None, [])


def test_a_promise_that_the_policy_does_not_go_by_is_told(lumen: Lumen, written: Path) -> None:
    wanted = ("--quality", "0.98", "--max-loss", "1%", "--confidence", "95%")
    ran = lumen("route", "set", "plain", "--target", "acme/small", "--target", "acme/large", *wanted)
    assert ran.code == 0 and "only the policy auto goes by that, and plain has weighted" in ran.err
    for route, more in (("plain", ("--policy", "auto")), ("smart", wanted), ("own", wanted)):
        ran = lumen("route", "set", route, *more)
        assert ran.code == 0 and "goes by that" not in ran.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--max-loss", "lots"), "expected a share such as 1%"),
        (("--confidence", "100%"), "below 100%"),
        (("--strong", "acme/other"), "no target of route"),
        (("--rule", "turns > 3"), "no rule"),
        (("--rule", "trns > 3 -> acme/small"), "no field 'trns'"),
        (("--policy", "atuo"), "did you mean 'auto'?"),
        (("--policy", "none.py"), "no file 'none.py'"),
    ],
)
def test_what_cannot_be_promised_is_not_written(lumen: Lumen, written: Path, args: Any, message: str) -> None:
    before = written.read_text()
    ran = lumen("route", "set", "smart", *args)
    assert ran.code != 0
    assert message in ran.err
    assert written.read_text() == before


def test_a_decision_from_the_files(lumen: Lumen, written: Path) -> None:
    ran = lumen("route", "explain", "smart", "--prompt", "Why is the sky blue?")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("smart (auto) asks acme/large: strong: nothing is learnt yet")
    assert "no running gateway" in ran.err
    found = lumen("route", "explain", "smart", "--prompt", "x" * 17_000, "--json").json
    small = next(one for one in found["targets"] if one["target"] == "acme/small")
    assert small["left_out"].endswith("do not fit its 4000")
    assert small["place"] is None
    assert small["cost"] < next(one for one in found["targets"] if one["target"] == "acme/large")["cost"]


def test_a_whole_request_from_a_file(lumen: Lumen, written: Path, tmp_path: Path) -> None:
    asked = tmp_path / "ask.json"
    turns = [{"role": role, "content": "hi"} for role in ("user", "assistant", "user")]
    asked.write_text(json.dumps({"messages": turns, "max_tokens": 5}))
    found = lumen("route", "explain", "smart", "--file", str(asked), "--json").json
    assert (found["choice"], found["reason"]) == ("acme/small", "rule: turns > 1")
    assert (found["request"]["turns"], found["request"]["limit"]) == (2, 5)


def test_rules_over_headers_and_tags_are_explained(lumen: Lumen, written: Path) -> None:
    assert (
        lumen("route", "set", "smart", "--rule", "headers['x-team'] == 'red' and tags.app == 'b' -> acme/small").code
        == 0
    )
    asked = ("route", "explain", "smart", "--prompt", "hi", "--json")
    assert lumen(*asked).json["choice"] == "acme/large"
    found = lumen(*asked, "--header", "X-Team: red", "--header", "x-lumen-tags: app=b").json
    assert found["choice"] == "acme/small" and found["reason"].startswith("rule: headers")
    assert "no header" in lumen(*asked, "--header", "red").err
    found = lumen(*asked, "--header", "x-lumen-pin: acme/small").json
    assert (found["choice"], found["reason"]) == ("acme/small", "pinned by the client")
    assert "no target of 'smart'" in lumen(*asked, "--header", "x-lumen-pin: acme/none").err


def test_price_ceilings_and_lumen_auto_are_known_without_a_gateway(lumen: Lumen, written: Path, home: Paths) -> None:
    assert lumen("route", "set", "smart", "--max-cost", "1/1M").code == 0
    found = lumen("route", "explain", "smart", "--prompt", "hi", "--json").json
    assert found["choice"] == "acme/small"
    assert found["targets"][1]["left_out"] == "a token of it costs more than is allowed"
    shelf = Shelf(home.scorers_dir)
    shelf.use("smart", shelf.put("smart", b"no scorer", "test"))
    found = lumen("route", "explain", "lumen/auto", "--prompt", "hi", "--json").json
    assert found["route"] == "lumen/auto"
    assert "version 1 cannot be used" in found["learnt"]["why"]


def test_what_money_keeps_from_being_asked_is_known_without_a_gateway(lumen: Lumen, written: Path) -> None:
    written.write_text(written.read_text().replace("  own:", "  odd:\n    targets: [acme/odd, acme/large]\n  own:"))
    found = lumen("route", "explain", "odd", "--prompt", "hi", "--json").json
    assert {one["target"] for one in found["targets"] if one["place"] is not None} == {"acme/odd", "acme/large"}
    assert lumen("route", "set", "odd", "--daily", "5usd").code == 0
    found = lumen("route", "explain", "odd", "--prompt", "hi", "--json").json
    assert [(one["target"], one["place"]) for one in found["targets"]] == [("acme/large", 0), ("acme/odd", None)]
    assert found["targets"][1]["left_out"] == "its price is not known, and money is limited here"
    assert lumen("route", "set", "odd", "--max-cost", "0.01/1M").code == 0
    ran = lumen("route", "explain", "odd", "--prompt", "hi")
    assert ran.code != 0 and "no target of odd may be asked" in ran.err


def test_a_damaged_scorer_is_told(lumen: Lumen, written: Path, home: Paths) -> None:
    shelf = Shelf(home.scorers_dir)
    shelf.use("smart", shelf.put("smart", b"no scorer", "test"))
    found = lumen("route", "explain", "smart", "--prompt", "hi", "--json").json
    assert "version 1 cannot be used" in found["learnt"]["why"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("smrt", "--prompt", "x"), "did you mean 'smart'?"),
        (("smart",), "give --prompt or --file"),
        (("smart", "--file", "/nonexistent.json"), "cannot be read"),
        (("smart", "--prompt", "x" * 50_000), "too long"),
        (("own", "--prompt", "x"), "only a running gateway asks"),
    ],
)
def test_what_cannot_be_explained(lumen: Lumen, written: Path, args: Any, message: str) -> None:
    ran = lumen("route", "explain", *args)
    assert ran.code != 0
    assert message in ran.err


def test_the_running_gateway_is_asked(lumen: Lumen, written: Path, fake: Fake) -> None:
    fake.start()
    ran = lumen("route", "explain", "smart", "--prompt", "hi", "--json")
    assert ran.code == 0, ran.err
    (call,) = fake.calls("/admin/explain")
    assert call["body"]["route"] == "smart"
    assert json.loads(call["body"]["request"])["messages"] == [{"role": "user", "content": "hi"}]
    assert "no running gateway" not in ran.err


def test_what_a_route_saved(lumen: Lumen, written: Path, home: Paths) -> None:
    assert "nothing has been written down yet" in lumen("route", "saved", "smart").err
    tokens = {"route": "smart", "input": 1_000_000, "output": 100_000, "booked": NOVEMBER}
    book(
        home.ledger_file,
        attempt("a", target="acme/large", cost=7 * DOLLAR // 2, **tokens),
        attempt("b", target="acme/small", cost=14 * DOLLAR // 100, **tokens),
        attempt("s", target="acme/small", cost=DOLLAR // 100, operation="shadow", **tokens),
        attempt("x", target="acme/small", cost=DOLLAR, **tokens | {"route": "own"}),
    )
    found = lumen("route", "saved", "smart", "--since", "2026-11-01", "--json").json
    assert (found["strong"], found["requests"], found["away"], found["promise"]) == ("acme/large", 2, 1, None)
    assert (found["always_strong_usd"], found["paid_usd"], found["dark_usd"]) == (7.0, 3.65, 0.01)
    assert found["saved_usd"] == 3.35
    told = lumen("route", "saved", "smart", "--since", "2026-11-01").out
    assert "2 requests, 1 of them (50.0 %) answered by others" in told
    assert "asking acme/large always" in told and "$3.350000" in told and "nothing is promised" in told
    assert "did you mean 'smart'?" in lumen("route", "saved", "smrt").err

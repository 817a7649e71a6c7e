"""Plans over real sockets: pins, rules, reasons, what a route learnt, and the operator's own policies."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lumen.config.schema import Budget, Config, Route, Rule, Server, Target
from lumen.core.errors import ConfigError, LumenError, RequestError
from lumen.core.money import Price
from lumen.gateway import app, planning, policyfile
from lumen.gateway.billing import Billing
from lumen.gateway.health import Health
from lumen.gateway.http import Ingress
from lumen.gateway.live import Live
from lumen.gateway.planner import REMEMBERED, Planner
from lumen.gateway.settled import Settled
from lumen.gateway.state import State
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins, Table, learning
from lumen.gateway.upstream import Remote
from lumen.learning.shelf import Shelf
from lumen.providers.base import Capabilities, Dialect, module
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.certify import promised
from lumen.routing.auto.learner import Row, fit
from lumen.routing.plan import scorers
from lumen.wire.call import chat_call
from lumen.wire.parse import parse_chat
from tests.emulator.server import Emulator
from tests.gateway.conftest import TIMEOUTS, AllReady
from tests.gateway.told import AtOnce
from tests.ledger.ledgers import written

pytestmark = pytest.mark.anyio
PRICES = {"words-3": Price(100_000, 400_000), "words-5": Price(2_500_000, 10_000_000, 250_000)}
CHEAP, STRONG = "one/words-3", "two/words-5"
TWO = (Target(CHEAP), Target(STRONG))
OWN = """
def order(candidates, view):
    if view.facts.tags.get("app") == "broken":
        raise ValueError("no")
    return sorted(candidates, key=lambda c: -view.cost(c))
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Box:
    """A gateway before two emulated providers."""

    url: str
    state: State
    live: Live
    session: aiohttp.ClientSession
    told: list[str]

    async def ask(self, model: str, text: str = "hi", headers: dict[str, str] | None = None, **body: Any) -> Any:
        sent = {"model": model, "messages": [{"role": "user", "content": text}], **body}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=sent, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers


def of(name: str) -> Any:
    def one(model: str) -> tuple[Dialect, Capabilities, Offer]:
        can = Capabilities(tools=name != "one")
        context = 2000 if name == "one" else 100_000
        return module("openai").make(can), can, Offer(f"{name}/{model}", name, model, PRICES.get(model), context)

    return one


@pytest.fixture
async def box(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Box]:
    runners, origins = [], {}
    for name in ("one", "two"):
        provider = web.AppRunner(Emulator().app(), shutdown_timeout=0.1, handler_cancellation=True)
        await provider.setup()
        await web.TCPSite(provider, "127.0.0.1", 0).start()
        remote = Remote(f"http://127.0.0.1:{provider.addresses[0][1]}/v1", {})
        runners.append(provider)
        origins[name] = Origin(remote, of(name))
    (tmp_path / "mine.py").write_text(OWN)
    batch = Rule("tags.app == 'batch' and turns == 1", STRONG)
    routes = {
        "first": Route(TWO, policy="ordered"),
        "ruled": Route(TWO, policy="ordered", rules=(batch,)),
        "mine": Route(TWO, policy="mine.py"),
        "learnt": Route(TWO, policy="auto", strong=STRONG, max_loss=0.05),
        "failing": Route((Target("one/status-503"), Target(STRONG)), policy="cheapest"),
    }
    config = Config(server=Server(), routes=routes, timeouts=TIMEOUTS)
    told: list[str] = []
    own = policyfile.read_all([route.policy for route in routes.values()], tmp_path, told.append)
    billing = Billing(tmp_path / "ledger.db")
    await billing.start()
    billing.configure(config, None)
    live = Live()
    state = State(
        config=config,
        table=Table(config, Origins({}, origins), 1, own),
        ring=None,
        readiness=AllReady(),
        observers=(AtOnce(live),),
        draw=random.Random(1),
        health=Health(random.Random(2).random, asyncio.get_running_loop().time(), time.time()),
        billing=billing,
    )
    runner = web.ServerRunner(Ingress(app.handler(state), header_timeout=30, idle_timeout=30), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Box(f"http://127.0.0.1:{runner.addresses[0][1]}", state, live, session, told)
    await runner.cleanup()
    for origin in origins.values():
        origin.upstream.close()
    await billing.stop()
    for one in runners:
        await one.cleanup()


async def test_a_pin_is_obeyed_or_refused(box: Box) -> None:
    for stream in (False, True):
        status, _, headers = await box.ask("first", headers={"x-lumen-pin": STRONG}, stream=stream)
        assert (status, headers["x-lumen-target"]) == (200, STRONG)
        assert headers["x-lumen-reason"] == "pinned by the client"
    status, body, _ = await box.ask("first", headers={"x-lumen-pin": "two/other"})
    assert status == 400
    assert b"invalid_pin" in body


async def test_a_rule_comes_before_the_policy(box: Box) -> None:
    _, _, headers = await box.ask("ruled", headers={"x-lumen-tags": "app=batch"})
    assert headers["x-lumen-target"] == STRONG
    assert headers["x-lumen-reason"] == "rule: tags.app == 'batch' and turns == 1"
    _, _, headers = await box.ask("ruled", metadata={"app": "live"})
    assert (headers["x-lumen-target"], headers["x-lumen-reason"]) == (CHEAP, "first in order")


async def test_what_a_target_cannot_do_is_not_asked_of_it(box: Box) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    _, _, headers = await box.ask("first", tools=[tool])
    assert headers["x-lumen-target"] == STRONG
    _, _, headers = await box.ask("first", "x" * 30_000)
    assert headers["x-lumen-target"] == STRONG
    _, _, headers = await box.ask("first", "x" * 300)
    assert headers["x-lumen-target"] == CHEAP


async def test_the_reason_is_that_of_who_answered_and_whoever_watches_sees_it(box: Box) -> None:
    _, _, headers = await box.ask("failing")
    assert headers["x-lumen-target"] == STRONG
    # The first has no price, so it stood last anyway.
    assert headers["x-lumen-reason"].startswith("cheapest, about $0.00")
    assert box.live.since(0, 1)[1][0]["reason"] == headers["x-lumen-reason"]


async def test_an_operators_own_policy_orders_and_never_fails_a_request(box: Box) -> None:
    _, _, headers = await box.ask("mine")
    assert (headers["x-lumen-target"], headers["x-lumen-reason"]) == (STRONG, "mine.py")
    for _ in range(2):
        status, _, headers = await box.ask("mine", headers={"x-lumen-tags": "app=broken"})
        assert (status, headers["x-lumen-target"]) == (200, CHEAP)
        assert headers["x-lumen-reason"] == "mine.py failed; first in order"
    assert len(box.told) == 1
    assert "mine.py:4 failed: ValueError: no" in box.told[0]


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("x = 1\n\ndef order(:\n", 3, "invalid syntax"),
        ("x = 1\n", 1, "needs a function"),
        ("a = 1\nb = 1 / 0\n", 2, "ZeroDivision"),
    ],
)
def test_a_policy_that_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, source: str, line: int, message: str
) -> None:
    (tmp_path / "p.py").write_text(source)
    with pytest.raises(ConfigError, match=message) as caught:
        policyfile.read_all(["p.py", "ordered"], tmp_path, print)
    assert f"p.py:{line}" in caught.value.message


THINGS = (
    "rainbow",
    "sunset",
    "meadow",
    "ocean",
    "flower",
    "candle",
    "forest",
    "marble",
    "canyon",
    "feather",
    "harbour",
)
TELL = ("name a colour of", "which colour has", "what colour would you paint", "describe the shade of")


def asked(draw: random.Random, *, sums: bool) -> str:
    """A sum, or a question about colours; no two are quite alike."""
    if sums:
        return f"what is {draw.randint(1, 9999)} times {draw.randint(1, 999)} plus {draw.randint(1, 99)}"
    return f"{draw.choice(TELL)} a {draw.choice(THINGS)} beside a {draw.choice(THINGS)}"


def toy(shelf: Shelf, route: str) -> None:
    """A scorer that learnt that the cheap target is good at colours and bad at sums, put on the shelf."""
    draw = random.Random(5)
    rows = []
    for i in range(600):
        words, sums = asked(draw, sums=i % 2 == 0), i % 2 == 0
        cheap = float(not sums) if draw.random() < 0.97 else float(sums)
        rows.append(Row(Ask(words), {CHEAP: cheap, STRONG: 1.0}, {}))
    learnt = fit(rows, (CHEAP, STRONG), STRONG)
    import numpy as np

    ok = np.array([[row.ok[CHEAP], row.ok[STRONG]] for row in rows])
    shelf.use(route, shelf.put(route, promised(learnt, ok, 0.05, 0.95).to_bytes(), "toy"))


async def test_auto_stays_strong_until_it_learnt_and_then_saves(box: Box, tmp_path: Path) -> None:
    _, _, headers = await box.ask("learnt", "name colour 37 of a rainbow")
    assert (headers["x-lumen-target"], headers["x-lumen-reason"]) == (STRONG, "strong: nothing is learnt yet")
    shelf = Shelf(tmp_path / "scorers")
    await asyncio.to_thread(toy, shelf, "learnt")
    found = await asyncio.to_thread(scorers.read, shelf, learning(box.state.table))
    box.state.planner.learn(found)
    draw, went = random.Random(77), {True: [0, 0], False: [0, 0]}
    for i in range(40):
        sums = i % 2 == 0
        _, _, headers = await box.ask("learnt", asked(draw, sums=sums))
        cheap = headers["x-lumen-target"] == CHEAP
        assert headers["x-lumen-reason"].startswith("cheapest good enough" if cheap else "strong: no ")
        went[sums][cheap] += 1
    assert went[True] == [20, 0]
    assert went[False][1] >= 6
    tool = {"type": "function", "function": {"name": "f"}}
    _, _, headers = await box.ask("learnt", asked(draw, sums=False), tools=[tool])
    assert headers["x-lumen-target"] == STRONG
    assert not box.state.planner._open
    await marks_are_told(box)


async def marks_are_told(box: Box) -> None:
    """The score that a target was chosen by stands beside the reason, for whoever looks and in the books."""
    _, ended = box.live.since(0, 100)
    saved = [one for one in ended if one["target"] == CHEAP]
    assert saved and all(one["score"] is None is one["bar"] for one in ended if one["target"] != CHEAP)
    for one in saved:
        assert one["bar"] <= one["score"] <= 1.0
        assert f"expected loss {100 * (1 - one['score']):.1f} points" in one["reason"] or one["score"] == 1.0
        told = box.live.find(one["id"])
        assert told is not None and told["tries"][0]["score"] == one["score"]
    booked = await written(box.state.billing._ledger, "SELECT target, score, bar FROM attempts ORDER BY id")
    assert [row[1:] for row in booked if row[0] == CHEAP] == [(one["score"], one["bar"]) for one in saved]
    assert all(row[1:] == (None, None) for row in booked if row[0] != CHEAP)


async def test_lumen_auto_is_the_first_routes_targets_where_it_is_not_configured(box: Box) -> None:
    _, _, headers = await box.ask("lumen/auto")
    assert (headers["x-lumen-route"], headers["x-lumen-target"]) == ("lumen/auto", CHEAP)
    assert headers["x-lumen-reason"] == "strong: nothing is learnt yet"


async def test_lumen_auto_goes_by_what_the_route_has_learnt_whose_targets_it_has(box: Box, tmp_path: Path) -> None:
    """The route itself may be of any policy."""
    routes = {"chat": Route((Target(STRONG), Target(CHEAP)), policy="ordered", max_loss=0.05)}
    config = replace(box.state.config, routes=routes)
    box.state.config, box.state.table = config, Table(config, box.state.table._origins, 2)
    assert learning(box.state.table) == ["chat"]
    shelf = Shelf(tmp_path / "scorers")
    await asyncio.to_thread(toy, shelf, "chat")
    box.state.planner.learn(await asyncio.to_thread(scorers.read, shelf, learning(box.state.table)))
    draw = random.Random(77)
    told = [(await box.ask("lumen/auto", asked(draw, sums=False)))[2] for _ in range(20)]
    assert [one["x-lumen-target"] for one in told].count(CHEAP) >= 6
    assert any(one["x-lumen-reason"].startswith("cheapest good enough") for one in told)
    found = planning.explain(box.state, box.state.table.find("lumen/auto"), *chat("what is 4711 times 17 plus 3"))
    assert (found["route"], found["choice"], found["learnt"]["labels"]) == ("lumen/auto", STRONG, 600)


def test_a_damaged_scorer_is_told_and_not_used() -> None:
    scorer, why = scorers.one((3, b"lumen-route-model\nxx"))
    assert scorer is None
    assert why.startswith("version 3 cannot be used")
    assert scorers.one(None) == (None, "nothing is learnt yet")


def settled(number: int, target: str, tokens: int) -> Settled:
    from lumen.gateway.attempt import Record
    from lumen.wire.answers import Usage

    record = Record(target, "x", 0.0)
    record.usage = Usage(prompt_tokens=100, completion_tokens=tokens)
    return Settled(str(number), "chat/completions", "r", None, 0.0, 0.0, 1.0, "ok", False, [record])


def test_what_is_remembered_of_conversations_is_bounded_and_grows_old() -> None:
    now = [0.0]
    planner = Planner(Health(lambda: 0.5, 0.0, 0.0), lambda: now[0])
    for i in range(REMEMBERED + 10):
        planner.opened(str(i), i)
        planner.add(settled(i, "t", 50))
    assert planner.past(0) is None
    last = planner.past(REMEMBERED + 9)
    assert last is not None
    assert (last.target, last.tokens, last.since) == ("t", 150, 1)
    planner.opened("again", 50)
    planner.add(replace_id(settled(0, "t", 50), "again"))
    again = planner.past(50)
    assert again is not None and again.since == 2
    assert planner.answer("t") == 50.0
    now[0] = 301.0
    assert planner.past(50) is None


def replace_id(one: Settled, request_id: str) -> Settled:
    one.id = request_id
    return one


def chat(text: str, **more: Any) -> tuple[Any, int]:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode()
    return chat_call(parse_chat(raw)), len(raw)


async def test_a_decision_is_explained_target_by_target(box: Box, tmp_path: Path) -> None:
    entry = box.state.table.find("learnt")
    found = planning.explain(box.state, entry, *chat("name a colour"))
    assert (found["choice"], found["strong"]) == (STRONG, STRONG)
    assert found["learnt"] == {"version": None, "why": "nothing is learnt yet"}
    assert {one["target"]: one["left_out"] for one in found["targets"]} == {
        STRONG: None, CHEAP: "nothing is learnt yet"
    }  # fmt: skip
    shelf = Shelf(tmp_path / "scorers")
    await asyncio.to_thread(toy, shelf, "learnt")
    box.state.planner.learn(await asyncio.to_thread(scorers.read, shelf, learning(box.state.table)))
    found = planning.explain(box.state, entry, *chat("what is 4711 times 17 plus 3"))
    cheap = next(one for one in found["targets"] if one["target"] == CHEAP)
    assert found["choice"] == STRONG
    assert cheap["good"] < 0.5 < cheap["loss"]
    assert cheap["left_out"].startswith("expected loss")
    assert (found["learnt"]["version"], found["learnt"]["labels"]) == ("1", 600)
    assert found["learnt"]["certified"][CHEAP]["limit"] == 0.05
    found = planning.explain(box.state, entry, *chat("x" * 20_000))
    assert next(o for o in found["targets"] if o["target"] == CHEAP)["left_out"].endswith("do not fit its 2000")
    json.dumps(found)


async def test_an_explanation_heeds_what_stands_in_the_headers(box: Box) -> None:
    entry = box.state.table.find("ruled")
    found = planning.explain(box.state, entry, *chat("hi"), headers={"x-lumen-tags": "app=batch"})
    assert (found["choice"], found["reason"]) == (STRONG, "rule: tags.app == 'batch' and turns == 1")
    found = planning.explain(box.state, entry, *chat("hi"), headers={"x-lumen-pin": STRONG})
    assert (found["choice"], found["reason"]) == (STRONG, "pinned by the client")
    assert found["targets"][1]["left_out"] == "another target is pinned"
    with pytest.raises(RequestError, match="no target"):
        planning.explain(box.state, entry, *chat("hi"), headers={"x-lumen-pin": "two/other"})


async def test_explaining_counts_nothing_and_says_what_costs_too_much(box: Box) -> None:
    entry = replace(box.state.table.find("first"), within=box.state.table.find("first").candidates[:1])
    found = planning.explain(box.state, entry, *chat("hi"))
    assert [one["left_out"] for one in found["targets"]] == [None, "a token of it costs more than is allowed"]
    assert box.live.number == 0


async def test_a_request_without_a_plan_is_not_remembered(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(box.state.table.find("failing"), ttft=0.001)
    call, size = chat("hi", stream=True)

    def plan(request_id: str) -> Any:
        return planning.plan(box.state, entry, call, request_id, None, size, {}, 0.0)

    assert len(plan("req_1")[0]) == 2 and list(box.state.planner._open) == ["req_1"]
    monkeypatch.setattr(box.state.health, "within", lambda names, objective, now: [])
    monkeypatch.setattr(box.state.health, "usual", lambda name: 1.0)
    with pytest.raises(LumenError, match="first token within"):
        plan("req_2")
    # It never ends, so nothing would take it away again.
    assert list(box.state.planner._open) == ["req_1"]


async def test_what_money_keeps_from_being_asked_is_no_part_of_what_is_explained(box: Box) -> None:
    entry = box.state.table.find("failing")

    def limit(budget: Budget) -> None:
        routes = {**box.state.config.routes, "failing": replace(box.state.config.routes["failing"], budget=budget)}
        box.state.billing.configure(replace(box.state.config, routes=routes), None)

    found = planning.explain(box.state, entry, *chat("hi"))
    assert [one["place"] for one in found["targets"]] == [0, 1]
    limit(Budget(daily=10**12))
    found = planning.explain(box.state, entry, *chat("hi"))
    assert [(one["target"], one["place"], one["left_out"]) for one in found["targets"]] == [
        (STRONG, 0, None), ("one/status-503", None, "its price is not known, and money is limited here")
    ]  # fmt: skip
    with pytest.raises(LumenError, match="no target of 'failing' has a known price"):
        planning.explain(box.state, entry, *chat("hi"), headers={"x-lumen-pin": "one/status-503"})
    limit(Budget(max_cost=1))
    with pytest.raises(LumenError, match="costs at most"):
        planning.explain(box.state, entry, *chat("hi"))

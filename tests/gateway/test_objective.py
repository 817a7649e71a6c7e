"""The wanted time to the first token, seen from outside: who is asked, who is left out, what is told where none is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lumen.config.schema import Budget, Route, Target
from lumen.core.errors import WakingError
from lumen.core.money import Price
from lumen.core.pace import ENOUGH, IN_A_ROW
from lumen.gateway import planning
from lumen.gateway.objective import covered
from lumen.gateway.table import Origin, Origins, Table
from lumen.gateway.upstream import Limits
from lumen.wire.call import chat_call
from lumen.wire.parse import parse_chat
from tests.gateway.conftest import Up, fake

pytestmark = pytest.mark.anyio

SLOW, QUICK = "fake/words-4", "fake/words-2"


def routed(up: Up, *targets: str, prices: dict[str, Price] | None = None, **more: Any) -> None:
    """The route `fast` with an objective of 300 ms."""
    upstream = up.state.table._origins.remote["fake"].upstream

    def of(model: str) -> Any:
        dialect, can, offer = fake(model)
        return dialect, can, replace(offer, price=(prices or {}).get(model))

    route = Route(tuple(Target(name) for name in targets), policy="ordered", ttft=0.3, **more)
    up.state.config = replace(up.state.config, routes={"fast": route})
    up.state.table = Table(up.state.config, Origins({}, {"fake": Origin(upstream, of)}), 1)
    up.state.billing.configure(up.state.config, up.state.ring)


def seen(up: Up, name: str, seconds: float, count: int = ENOUGH, ago: float = 1.0) -> None:
    """First tokens that this target has given."""
    now = asyncio.get_running_loop().time() - ago
    for _ in range(count):
        given = up.state.health.begin(name, now - seconds, 100)
        assert given is not None
        up.state.health.serving(given, now, seconds)
        up.state.health.ended(given, now, True)


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": [{"role": "user", "content": "go"}], **more}


async def test_a_target_that_is_too_slow_is_left_out(up: Up) -> None:
    routed(up, SLOW, QUICK)
    assert (await up.stream(ask()))[2]["x-lumen-target"] == SLOW
    seen(up, SLOW, 0.5)
    for _ in range(10):
        assert (await up.stream(ask()))[2]["x-lumen-target"] == QUICK
    # Of a whole answer too.
    assert (await up.post("/v1/chat/completions", ask()))[2]["x-lumen-target"] == QUICK


@pytest.mark.parametrize(
    ("cover", "ttft", "wakes", "covers"),
    [(False, 0.3, 2.0, True), (False, 0.3, 0.2, False), (False, 0.3, 0.0, False), (False, None, 9.0, False),
     (True, None, 0.0, True), (True, 5.0, 0.0, True)],
)  # fmt: skip
def test_a_model_that_would_wake_too_late_is_covered_for(
    cover: bool, ttft: float | None, wakes: float, covers: bool
) -> None:
    entry: Any = SimpleNamespace(cover=cover, ttft=ttft)
    plan: Any = [(SimpleNamespace(name=name, can=SimpleNamespace(local=name == "m")), "told") for name in ("p/a", "m")]
    assert covered(entry, plan, lambda name: wakes if name == "m" else 99.0) is covers


class Sleeping:
    """A model that is woken by whoever asks, and there in eight seconds."""

    async def open(self, encode: Any, model: str, limits: Limits, *more: Any) -> Any:
        assert limits.ready == 0.0, "it was waited for"
        raise WakingError("The model is waking.")

    def spare(self) -> bool:
        return False

    def close(self) -> None: ...


async def test_while_the_cheapest_wakes_too_late_another_one_answers(up: Up) -> None:
    """As a request sees it: nothing was asked of the sleeping model but to wake."""
    routed(up, QUICK, SLOW)
    entry = up.state.table.find("fast")
    first, other = entry.targets
    asleep = replace(first, can=replace(first.can, local=True), upstream=Sleeping())  # type: ignore[arg-type]
    up.state.table._entries["fast"] = replace(entry, targets=(asleep, other))
    up.state.planner.wakes = lambda name: 8.0 if name == QUICK else 0.0
    assert (await up.stream(ask()))[2]["x-lumen-target"] == SLOW


async def test_what_is_too_slow_is_not_what_an_explanation_says_is_asked(up: Up) -> None:
    routed(up, SLOW, QUICK)
    seen(up, SLOW, 0.5)
    raw = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "go"}]}).encode()
    found = planning.explain(up.state, up.state.table.find("fast"), chat_call(parse_chat(raw)), len(raw))
    assert found["choice"] == QUICK
    assert {one["target"]: one["left_out"] for one in found["targets"]} == {
        QUICK: None, SLOW: "its first token usually comes later than is wanted",
    }  # fmt: skip


async def test_none_that_can_meet_it_is_told_with_what_would_have_been_needed(up: Up) -> None:
    routed(up, SLOW, QUICK)
    seen(up, SLOW, 0.5)
    seen(up, QUICK, 0.4015)
    status, text, _ = await up.stream(ask())
    assert status == 400
    assert '"code":"budget_unsatisfiable"' in text
    assert "within 300 ms" in text and "402 ms" in text
    # A whole answer has no first token that anybody waits for.
    status, _, headers = await up.post("/v1/chat/completions", ask())
    assert (status, headers["x-lumen-target"]) == (200, SLOW)
    assert up.state.counters.in_flight == 0


async def test_a_client_that_insists_on_a_target_is_held_to_it_too(up: Up) -> None:
    routed(up, SLOW, QUICK)
    seen(up, SLOW, 0.5)
    for pin, status in ((SLOW, 400), (QUICK, 200)):
        headers = {"Authorization": f"Bearer {up.secret}", "x-lumen-pin": pin}
        async with up.session.post(f"{up.url}/v1/chat/completions", json=ask(stream=True), headers=headers) as answer:
            assert answer.status == status
            assert (b"budget_unsatisfiable" in await answer.read()) is (status == 400)


async def test_a_target_that_is_well_again_is_found_out(up: Up) -> None:
    routed(up, SLOW)
    seen(up, SLOW, 0.5, ago=3600)
    # Nothing was heard of it for long: three tries, one after the other, and it is back.
    for _ in range(IN_A_ROW):
        status, _, _ = await up.stream(ask())
        assert status == 200
    answers = await asyncio.gather(*(up.stream(ask()) for _ in range(10)))
    assert {status for status, _, _ in answers} == {200}


async def test_one_try_at_a_time(up: Up) -> None:
    slow = "fake/headers-1"
    routed(up, slow, QUICK)
    seen(up, slow, 0.5, ago=3600)
    answers = await asyncio.gather(*(up.stream(ask()) for _ in range(10)))
    assert [status for status, _, _ in answers] == [200] * 10
    assert sum(request["model"] == "headers-1" for request in up.emulator.requests) <= 1


async def test_one_left_out_still_saves_an_answer_that_broke_off(up: Up) -> None:
    routed(up, "fake/anchor-words-6", "fake/cut-3")
    seen(up, "fake/anchor-words-6", 0.5)
    status, text, _ = await up.stream(ask())
    assert status == 200
    assert '"rung":"anchored"' in text and text.endswith("data: [DONE]\n\n")
    # But not one that has yet to begin. (What it took for the rest was a first token, too.)
    seen(up, "fake/anchor-words-6", 0.5, ago=0.0)
    routed(up, "fake/anchor-words-6", "fake/status-503")
    status, text, _ = await up.stream(ask())
    assert status == 503


async def test_quick_but_too_dear_and_cheap_but_too_slow(up: Up) -> None:
    prices = {"words-4": Price(output=1000), "words-2": Price(output=5_000_000)}
    routed(up, SLOW, QUICK, prices=prices, budget=Budget(max_cost=2_000_000))
    assert (await up.stream(ask()))[2]["x-lumen-target"] == SLOW
    seen(up, SLOW, 0.5)
    status, text, _ = await up.stream(ask())
    assert status == 400
    # Whichever limit is raised, to what is told, there is a target again.
    assert "needs a limit of 500ms or more" in text

"""`auto` between a model of this machine and a dear remote one, from nothing learnt to money saved."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from lumen_cli.client import Admin

from lumen.paths import paths
from tests.e2e.conftest import Box, until
from tests.learning.provider import Provider

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-auto-local")]
LOCAL, STRONG = "lumen-tiny", "p/solver"
CONFIG = """
auth: {required: false}
providers:
  p:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    models: {"*": {price: {input: 10, output: 20}}}
models:
  lumen-tiny: {source: "builtin:tiny", slots: 4}
routes:
  chat: {policy: auto, strong: p/solver, targets: [lumen-tiny, p/solver], max_loss: 3%}
"""
# What is asked for a product must have it; a greeting is answered by any word.
CHECK = r"""
import re

def check(request, answer):
    asked = re.search(r"(\d+) times (\d+)", request)
    return str(int(asked[1]) * int(asked[2])) in answer if asked else bool(re.search(r"[a-z]{2}", answer))
"""
# 10 tokens in and 8 out, as the provider counts them, in pico-dollars.
DEAR = (10 * 10 + 8 * 20) * 10**6
NAMES = ("Ada", "Ben", "Cleo", "Dara", "Emil", "Fay", "Gus", "Hana", "Ivo", "June", "Kai", "Lou")
PLACES = ("the harbour", "a small village", "the old town", "the mountains", "an island", "the north", "the valley")
MOODS = ("cheerful", "sleepy", "curious", "hungry", "busy", "calm")
ASKED = ("What is {} times {}?", "Please multiply: {} times {}.", "Work out {} times {} for me.", "{} times {} makes?")


def prompt(draw: random.Random, *, product: bool) -> str:
    """A product that the small model cannot know, or a greeting; hardly two are the same."""
    if product:
        return draw.choice(ASKED).format(draw.randint(211, 989), draw.randint(211, 989))
    return (
        f"Hello! I am {draw.choice(NAMES)} from {draw.choice(PLACES)}, {draw.choice(MOODS)} and "
        f"{draw.choice(MOODS)} today. How are you?"
    )


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with Provider() as provider:
        made = Box(tmp_path / "box")
        (made.home / "config").mkdir(parents=True)
        (made.home / "config" / "config.yaml").write_text(CONFIG.replace("PORT", str(provider.port)))
        (made.home / "check.py").write_text(CHECK)
        try:
            made.up()
            yield made
        finally:
            made.end()


def body(text: str) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0}


def ask(box: Box, prompts: list[str]) -> list[tuple[str, str]]:
    """Who answered each, and why."""

    async def one(session: aiohttp.ClientSession, gate: asyncio.Semaphore, text: str) -> tuple[str, str]:
        async with gate, session.post(f"{url}/chat/completions", json=body(text)) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
            return answer.headers["x-lumen-target"], answer.headers["x-lumen-reason"]

    async def every() -> list[tuple[str, str]]:
        gate = asyncio.Semaphore(4)
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(one(session, gate, text) for text in prompts))

    url = box.url
    return asyncio.run(every())


def shadow(box: Box) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMEN_HOME", str(box.home))
        return dict(Admin(paths().admin_socket).get("/admin/trials")["shadows"][0])


def explained(box: Box, text: str) -> dict[str, Any]:
    path = box.home / "request.json"
    path.write_text(json.dumps(body(text)))
    found: dict[str, Any] = json.loads(box.lumen("route", "explain", "chat", "--file", str(path), "--json").stdout)
    return found


def test_from_nothing_learnt_to_money_saved_by_a_local_model(box: Box) -> None:
    draw = random.Random(7)
    greeting, product = prompt(draw, product=False), prompt(draw, product=True)
    # Nothing is learnt: everything goes to the strong target, and it says so.
    assert ask(box, [greeting, product]) == [(STRONG, "strong: nothing is learnt yet")] * 2
    cold = explained(box, greeting)
    assert (cold["choice"], cold["learnt"]["version"]) == (STRONG, None)

    # Labels: the local model answers in the dark what clients had answered by the strong one.
    box.lumen(
        "shadow", "start", "chat", "--candidate", LOCAL, "--share", "100%", "--budget", "2usd",
        "--check", f"python:{box.home / 'check.py'}",
    )  # fmt: skip
    asked = [prompt(draw, product=i % 2 == 0) for i in range(360)]
    for begin in range(0, len(asked), 60):
        assert {target for target, _ in ask(box, asked[begin : begin + 60])} == {STRONG}
        until(lambda end=begin + 60: shadow(box)["pairs"] >= min(end, 360), "the shadow to have answered too")
    assert "labels so far: 360 by checker" in box.lumen("route", "explain", "chat", "--prompt", greeting).stdout
    report = json.loads(box.lumen("shadow", "report", "chat", "--json").stdout)["report"]
    assert (report["judged"], report["better"], report["by"]) == (360, 0, ["checker"])
    # The small model fails at the products, not at the greetings.
    assert 175 <= report["worse"] <= 185
    box.lumen("shadow", "stop", "chat")

    said = box.lumen("route", "learn", "chat").stdout
    assert "Version 1 is in force." in said

    # New requests of both kinds: the greetings stay on this machine, the products do not.
    fresh = random.Random(8)
    answered = ask(box, [prompt(fresh, product=i % 2 == 0) for i in range(60)])
    products, greetings = answered[::2], answered[1::2]
    assert [target for target, _ in products] == [STRONG] * 30
    at_home = [why for target, why in greetings if target == LOCAL]
    assert len(at_home) >= 20
    assert all(why.startswith("cheapest good enough: expected loss") for why in at_home)
    told = explained(box, prompt(fresh, product=False))
    assert told["choice"] == LOCAL and told["learnt"]["labels"] == 360 and told["learnt"]["version"] == "1"
    assert told["learnt"]["certified"][LOCAL]["bound"] <= 0.03
    told = explained(box, prompt(fresh, product=True))
    assert told["choice"] == STRONG
    kept = next(one for one in told["targets"] if one["target"] == LOCAL)
    assert kept["left_out"].startswith("expected loss") and kept["cost"] == 0
    # The books say what that saved: what stayed here cost nothing, each product what the strong target takes.
    used = {row["model"]: row for row in json.loads(box.lumen("usage", "--by", "model", "--json").stdout)["rows"]}
    assert used[LOCAL]["cost_micro_usd"] == 0 and used[LOCAL]["requests"] == 360 + len(at_home)
    assert used[STRONG]["requests"] == 2 + 360 + 60 - len(at_home)
    told = json.loads(box.lumen("route", "saved", "chat", "--json").stdout)
    assert (told["away"], told["requests"], told["dark_usd"]) == (len(at_home), 422, 0.0)
    assert told["paid_usd"] == pytest.approx(used[STRONG]["cost_micro_usd"] / 1e6)
    # At its price, for the tokens that the local model counted.
    assert told["saved_usd"] > len(at_home) * DEAR / 1e12 / 2
    assert told["saved_usd"] == pytest.approx(told["always_strong_usd"] - told["paid_usd"])
    assert told["promise"]["version"] == 1 and 0 < told["promise"]["targets"][LOCAL]["loss_at_most"] <= 0.03
    assert used[STRONG]["cost_micro_usd"] * 10**6 == used[STRONG]["requests"] * DEAR

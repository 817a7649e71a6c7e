"""Every fault, in every kind of answer, before every kind of next target, while healthy streams run beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from lumen.config.schema import Route, Target
from tests.gateway.failover_cells import Seen, cells
from tests.gateway.failover_rig import HEALTHY, matrix, rig
from tests.gateway.failover_table import PAGE, committed, table

pytestmark = pytest.mark.anyio


async def test_every_fault_of_every_answer_before_every_next_target(tmp_path: Path, anyio_backend: str) -> None:
    outcomes, wrong, healthy = await matrix(cells(), tmp_path, "openai")
    assert wrong == []
    assert healthy >= HEALTHY
    assert table(outcomes) == committed(PAGE.read_text()), "run: python -m tests.gateway.failover_table --write"


@pytest.mark.parametrize("dialect", ["anthropic", "gemini"])
async def test_streams_of_the_other_dialects(dialect: str, tmp_path: Path, anyio_backend: str) -> None:
    streamed = [cell for cell in cells() if cell.stream and not cell.then.replica]
    outcomes, wrong, healthy = await matrix(streamed, tmp_path, dialect)
    assert wrong == [] and len(outcomes) == len(streamed)
    assert healthy >= HEALTHY


HEDGED = {"fast": Route((Target("openai/slow-1-0"), Target("openai/words-3")), policy="ordered", hedge="p95")}
ASK = {"model": "fast", "messages": [{"role": "user", "content": "go"}]}


async def test_a_late_first_token_is_hedged_and_both_legs_are_on_the_bill(tmp_path: Path, anyio_backend: str) -> None:
    late = Route((Target("openai/headers-1"), Target("openai/words-3")), policy="ordered", hedge="p95")
    async with rig({"late": late}, tmp_path) as up:
        now = asyncio.get_running_loop().time()
        for _ in range(30):
            # What was learned of the first target: it used to answer within 20 ms.
            given = up.state.health.begin("openai/headers-1", now - 0.02, 100)
            assert given is not None
            up.state.health.serving(given, now, 0.02)
            up.state.health.ended(given, now, True)
        status, text, headers = await up.stream({**ASK, "model": "late"})
        seen = Seen.of(status, text)
        assert (status, seen.said, seen.done, seen.splices) == (200, "word0 word1 word2 ", True, [])
        assert headers["x-lumen-target"] == "openai/words-3"
        async with asyncio.timeout(100):
            while up.emulator.open:
                await asyncio.sleep(0.01)
        assert up.emulator.closed_early == 1
        path = up.ledger
    with closing(sqlite3.connect(path)) as ledger:
        rows = ledger.execute("SELECT seq, target, outcome, output, cost FROM attempts ORDER BY seq").fetchall()
    assert [row[:3] for row in rows] == [(1, "openai/headers-1", "hedged"), (2, "openai/words-3", "ok")]
    assert rows[1][3] == 3 and rows[1][4] > 0


async def test_no_hedge_before_enough_is_known(tmp_path: Path, anyio_backend: str) -> None:
    async with rig(HEDGED, tmp_path) as up:
        for _ in range(5):
            status, text, headers = await up.stream(ASK)
            assert (status, headers["x-lumen-target"]) == (200, "openai/slow-1-0")
            assert Seen.of(status, text).said == "word0 "
        assert len(up.emulator.requests) == 5


@pytest.mark.parametrize(("most", "rungs"), [(None, ["prefill"] * 2), (0, []), (3, ["prefill"] * 3)])
async def test_how_often_an_answer_goes_on_is_two_or_what_its_route_says(
    most: int | None, rungs: list[str], tmp_path: Path, anyio_backend: str
) -> None:
    # Numbers above a million are declared to continue a message.
    models = ("cut-2", "prefill-cut-4-0-0-1000001", "prefill-cut-6-0-0-1000002", "prefill-words-9-0-0-1000003")
    targets = tuple(Target(f"openai/{model}") for model in models)
    route = Route(targets, policy="ordered") if most is None else Route(targets, policy="ordered", max_splices=most)
    async with rig({"fast": route}, tmp_path) as up:
        seen = Seen.of(*(await up.stream(ASK))[:2])
    assert [splice["rung"] for splice in seen.splices] == rungs
    assert seen.done is (most == 3) is (seen.error is None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "word0 word1 word2 word3 word4 word5 "),
        ({"max_tokens": 50}, "word0 word1 word2 word3 word4 word5 "),
        ({"prompt": ["go"]}, None),
        ({"logprobs": 1}, None),
    ],
)
async def test_a_completion_goes_on_behind_its_prompt(
    more: dict[str, object], said: str | None, tmp_path: Path, anyio_backend: str
) -> None:
    route = Route((Target("openai/cut-3"), Target("openai/prefill-words-6")), policy="ordered")
    body = {"model": "fast", "prompt": "go on: ", "stream": True, "stream_options": {"include_usage": True}, **more}
    async with rig({"fast": route}, tmp_path) as up:
        headers = {"Authorization": f"Bearer {up.secret}"}
        async with up.session.post(f"{up.url}/v1/completions", json=body, headers=headers) as answer:
            raw = b""
            try:
                async for data in answer.content.iter_any():
                    raw += data
            except aiohttp.ClientPayloadError:
                raw += b"<CUT>"
        seen = Seen.of(answer.status, raw.decode())
        texts = [choice.get("text") or "" for choice in seen.choices()]
        if said is None:
            assert "".join(texts) == "word0 word1 word2 " and seen.error is not None and not seen.done
            return
        assert "".join(texts) == said and seen.done and len({chunk["id"] for chunk in seen.chunks}) == 1
        assert [splice["rung"] for splice in seen.splices] == ["prefill"]
        assert [choice["finish_reason"] for choice in seen.choices() if choice.get("finish_reason")] == ["stop"]
        assert seen.usages[0]["completion_tokens"] == 6
        sent = up.emulator.requests[-1]
        assert sent["prompt"] == "go on: word0 word1 word2" and sent.get("max_tokens") == (47 if more else None)

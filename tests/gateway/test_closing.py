"""The end of a stream whose target did not tell its counts, and targets that repeat what they continue."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lumen.config.schema import Route, Target
from lumen.core.money import Price
from lumen.core.resume import Rung
from lumen.gateway import attempt
from lumen.gateway.table import Origin, Origins, Table
from lumen.ledger.rows import ESTIMATED
from lumen.wire.splice import Seam
from tests.gateway.conftest import Up, fake
from tests.gateway.failover_cells import Seen
from tests.ledger.ledgers import written

pytestmark = pytest.mark.anyio

WANTED = {"stream_options": {"include_usage": True}}


def routed(up: Up, *targets: str, **can: Any) -> None:
    """The route `fast`, of targets with a price."""
    upstream = up.state.table._origins.remote["fake"].upstream

    def of(model: str) -> Any:
        dialect, known, offer = fake(model)
        return dialect, replace(known, **can), replace(offer, price=Price(output=1000))

    route = Route(tuple(Target(f"fake/{name}") for name in targets), policy="ordered")
    up.state.config = replace(up.state.config, routes={"fast": route})
    up.state.table = Table(up.state.config, Origins({}, {"fake": Origin(upstream, of)}), 1)
    up.state.billing.configure(up.state.config, up.state.ring)


def ask(**more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": [{"role": "user", "content": "go"}], **more}


@pytest.mark.parametrize("script", ["nocount-6", "cutcount-6"])
async def test_counts_that_were_never_told_are_estimated_and_say_so(up: Up, script: str) -> None:
    routed(up, script)
    status, text, _ = await up.stream(ask(**WANTED))
    seen = Seen.of(status, text)
    assert seen.done and seen.said == "".join(f"word{i} " for i in range(6))
    assert [c["finish_reason"] for c in seen.choices() if c["finish_reason"]] == ["stop"]
    last = seen.chunks[-1]
    assert last["choices"] == [] and (last["id"], last["created"], last["object"]) == (
        "up-1",
        1,
        "chat.completion.chunk",
    )
    usage = last["usage"]
    assert usage["estimated"] is True and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 6 <= usage["completion_tokens"] <= 12 and usage["prompt_tokens"] > 0
    assert seen.usages == [usage]
    # The ledger has the same, marked in the same way, as an answer that was served.
    ledger = up.state.billing._ledger
    assert await written(ledger, "SELECT outcome, input, output, flags, cost FROM attempts") == [
        ("ok", usage["prompt_tokens"], usage["completion_tokens"], ESTIMATED, usage["completion_tokens"] * 1000)
    ]
    assert up.state.counters.errors == 0


@pytest.mark.parametrize("script", ["nocount-3", "cutcount-3"])
async def test_nobody_gets_counts_unasked(up: Up, script: str) -> None:
    routed(up, script)
    status, text, _ = await up.stream(ask())
    seen = Seen.of(status, text)
    assert seen.done and seen.usages == []


async def test_counts_that_were_told_are_told_once(up: Up) -> None:
    routed(up, "words-3")
    status, text, _ = await up.stream(ask(**WANTED))
    assert Seen.of(status, text).usages == [{"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}]


async def test_of_a_spliced_answer_they_are_those_of_the_whole(up: Up) -> None:
    routed(up, "cut-3", "prefill-nocount-6", prefill="native")
    status, text, _ = await up.stream(ask(**WANTED))
    seen = Seen.of(status, text)
    assert [one["rung"] for one in seen.splices] == ["prefill"] and seen.done
    assert seen.said == "".join(f"word{i} " for i in range(6))
    assert len(seen.usages) == 1 and 6 <= seen.usages[0]["completion_tokens"] <= 12
    assert seen.chunks[-1]["id"] == "up-1"


async def test_completions_get_theirs_too(up: Up) -> None:
    routed(up, "nocount-4")
    headers = {"Authorization": f"Bearer {up.secret}"}
    body = {"model": "fast", "prompt": "go", "stream": True, **WANTED}
    async with up.session.post(f"{up.url}/v1/completions", json=body, headers=headers) as answer:
        chunks = [json.loads(line[6:]) for line in (await answer.text()).split("\n\n") if line.startswith("data: {")]
    assert chunks[-1]["object"] == "text_completion" and chunks[-1]["usage"]["estimated"]


@pytest.mark.parametrize("echoes", [False, True])
async def test_a_seam_knows_who_repeats_what_it_continues(
    up: Up, monkeypatch: pytest.MonkeyPatch, echoes: bool
) -> None:
    told = []

    def made(rung: Rung, trace: Any, *, echoes: bool = False) -> Seam:
        told.append(echoes)
        return Seam(rung, trace, echoes=echoes)

    monkeypatch.setattr(attempt, "Seam", made)
    routed(up, "cut-3", "startover-words-6", prefill="prefix", prefill_echo=echoes)
    status, text, _ = await up.stream(ask())
    assert Seen.of(status, text).said == "".join(f"word{i} " for i in range(6))
    assert set(told) == {echoes}

"""What targets are told of who asks: local models whose turn it is and what may be kept, all others nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lumen.config.schema import Config
from lumen.gateway.callers import line
from lumen.gateway.retention import Retention
from lumen.keys import mint
from lumen.providers.base import module
from lumen.workers.llamacpp.caller import HEADER, read
from lumen.workers.llamacpp.fair import CLASSES
from tests.gateway.conftest import Up


def test_a_key_that_has_a_turn_of_its_own_goes_by_that() -> None:
    plain, hurried = mint("a")[0], mint("b", priority="high")[0]
    for key, rank in ((None, "low"), (plain, "low"), (hurried, "high")):
        told = line(key, "low", shared=False, keep=True).decode().partition(": ")[2]
        assert read(told).rank == CLASSES.index(rank)


@pytest.mark.anyio
@pytest.mark.parametrize("retention", ["usual", "none"])
async def test_only_local_models_are_told_who_asks(up: Up, retention: Any) -> None:
    entry = next(iter(up.state.table.entries()))
    up.state.retention = Retention(Config(retention=retention))
    body = {"model": entry.name, "messages": [{"role": "user", "content": "x"}]}
    status, _, _ = await up.post("/v1/chat/completions", body)
    assert status == 200
    assert HEADER not in up.emulator.headers[-1]
    targets = tuple(replace(target, can=replace(target.can, local=True)) for target in entry.targets)
    local = replace(entry, targets=targets, priority="high")
    up.state.table._entries[entry.name] = local
    status, _, _ = await up.post("/v1/chat/completions", body)
    assert status == 200
    told = read(up.emulator.headers[-1][HEADER])
    assert told.rank == CLASSES.index("high")
    assert told.keep is (retention == "usual")
    assert told.id and told.salt == told.id
    up.state.table._entries[entry.name] = replace(local, shared=True)
    await up.post("/v1/chat/completions", body)
    other = read(up.emulator.headers[-1][HEADER])
    assert (other.id, other.salt) == (told.id, "")
    # vLLM takes no such header: its prefixes are kept apart by a field, which no client can set.
    targets = tuple(replace(target, dialect=module("vllm").make(target.can)) for target in targets)
    for shared in (False, True):
        up.state.table._entries[entry.name] = replace(local, targets=targets, shared=shared)
        await up.post("/v1/chat/completions", body)
        assert up.emulator.requests[-1].get("cache_salt") == (None if shared else told.id)
    await up.post("/v1/chat/completions", {**body, "cache_salt": "another's", "priority": -9})
    assert "cache_salt" not in up.emulator.requests[-1]
    assert up.emulator.requests[-1]["priority"] == -1

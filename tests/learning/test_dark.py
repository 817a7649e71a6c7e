"""Whom jobs in the dark make way for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lumen.core.errors import RequestError
from lumen.gateway.shadow import Dark, Job

pytestmark = pytest.mark.anyio


def target(name: str, *, local: bool) -> Any:
    return SimpleNamespace(name=name, can=SimpleNamespace(local=local))


ENTRY: Any = SimpleNamespace(targets=(target("here", local=True), target("far", local=False)))


def dark(asked: str) -> Dark:
    """Where a client is asking this target."""

    def find(name: str) -> Any:
        raise RequestError("there is none")

    state: Any = SimpleNamespace(
        draining=False,
        counters=SimpleNamespace(in_flight=1),
        active={"req": SimpleNamespace(journey=SimpleNamespace(target=asked))},
        table=SimpleNamespace(find=find, entries=list),
    )
    return Dark(state, print)


def test_only_targets_of_this_machine_are_in_each_others_way() -> None:
    assert dark("").local(ENTRY, "here", "far", "gone", None) == {"here"}


@pytest.mark.parametrize(("asked", "cancelled"), [("here", 1), ("far", 0)])
async def test_a_job_at_a_local_model_goes_where_a_client_comes(asked: str, cancelled: int) -> None:
    one, may_end = dark(asked), asyncio.Event()

    async def work() -> None:
        await may_end.wait()

    assert one.offer(Job(work, one.local(ENTRY, "here")))
    await asyncio.sleep(0)
    one._look()
    may_end.set()
    async with asyncio.timeout(100):
        while one.standing()["running"]:
            await asyncio.sleep(0)
    assert (one.standing()["cancelled"], one.standing()["done"]) == (cancelled, 1 - cancelled)
    await one.close()

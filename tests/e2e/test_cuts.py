"""Real answers of the real engine, cut at every position: the client must have one whole answer all the same.

On a route with `exact: true` it must be the unbroken one, byte for byte, whatever else the replica is doing. The
default run samples the positions; `LUMEN_ALL_CUTS=1` takes all of them. Figures are printed (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lumen.engines.registry import engine
from tests.e2e.cut_box import Box, box, every, survey
from tests.e2e.cuts import ASKED

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.xdist_group("e2e-cuts"),
    pytest.mark.timeout(14400 if os.environ.get("LUMEN_ALL_CUTS") else 600),
    pytest.mark.skipif(engine("llamacpp").missing() is not None, reason="llama-cpp-python is not installed"),
]
ALL = bool(os.environ.get("LUMEN_ALL_CUTS"))


async def _all_kinds(one: Box, route: str, places: Callable[[int], Iterable[int]], *, kill: bool = False) -> None:
    for name in ASKED:
        found = await survey(one, name, route, every(1) if ALL else places, kill=kill)
        sys.stdout.write(f"{name}, {route}, {'kill -9' if kill else 'abort'}: {found}\n")
        sys.stdout.flush()
        assert route == "default" or found.equal == found.cuts, (name, found)


@pytest.mark.parametrize("route", ["exact", "default"])
def test_a_connection_aborted_anywhere(route: str, tmp_path: Path) -> None:
    """The only replica goes on, while it may still compute the answer that was aborted."""

    async def work() -> None:
        async with box(tmp_path, 1) as one:
            await _all_kinds(one, route, every(23))

    asyncio.run(work())


@pytest.mark.parametrize("replicas", [1, 2])
def test_kill_9_of_the_worker_anywhere(replicas: int, tmp_path: Path) -> None:
    """The other replica goes on; where there is none, the same one started again."""

    async def work() -> None:
        async with box(tmp_path, replicas) as one:
            await _all_kinds(one, "exact", lambda events: [events // 3], kill=True)

    asyncio.run(work())


def test_exact_answers_beside_others_on_the_same_replica(tmp_path: Path) -> None:
    """Other answers come and go, and leave what they computed behind; an exact one must not notice."""

    async def work() -> None:
        async with box(tmp_path, 1) as one:
            alone = {name: await one.ask("exact", body) for name, body in ASKED.items()}
            over = asyncio.Event()
            noise = asyncio.create_task(_noise(one, over))
            try:
                for name, answer in alone.items():
                    assert (await one.ask("exact", ASKED[name])).said == answer.said, name
                    for after in range(5, len(answer.deltas) - 5, 1 if ALL else 31):
                        cut = await one.ask("exact", ASKED[name], after)
                        assert (cut.said, cut.rungs) == (answer.said, ["token-exact"]), (name, after)
            finally:
                over.set()
                assert await noise > len(ASKED)

    asyncio.run(work())


async def _noise(one: Box, over: asyncio.Event) -> int:
    """Answers of every kind, one after another, with questions of every length; how many there were."""
    made = 0
    while not over.is_set():
        body = list(ASKED.values())[made % len(ASKED)]
        more = {"role": "user", "content": f"{made} " + "and so on " * (made * 7 % 60)}
        await one.heard({**body, "messages": [more, *body["messages"]], "seed": made, "max_tokens": 40 + made % 50})
        made += 1
    return made

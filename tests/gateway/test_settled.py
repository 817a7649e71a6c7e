"""Who watches is told of every request, in order, many together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lumen.gateway.settled import Later, Settled

pytestmark = pytest.mark.anyio


class Seen:
    def __init__(self, order: list[tuple[str, str]], name: str) -> None:
        self._order, self._name = order, name

    def take(self, settled: Sequence[Settled]) -> None:
        self._order += [(self._name, one.id) for one in settled]


def over(name: str) -> Settled:
    return Settled(name, "chat", "fast", None, 0.0, 0.0, 1.0, "ok", False, [])


async def test_everybody_is_told_of_everything_in_order() -> None:
    order: list[tuple[str, str]] = []
    later = Later((Seen(order, "a"), Seen(order, "b")))
    for name in "xyz":
        later.add(over(name))
    assert order == []
    later.flush()
    assert order == [(who, name) for who in "ab" for name in "xyz"]
    later.flush()
    assert len(order) == 6


async def test_nobody_has_to_ask() -> None:
    order: list[tuple[str, str]] = []
    later = Later((Seen(order, "a"),))
    for name in "xy":
        later.add(over(name))
        async with asyncio.timeout(100):
            while not order or order[-1] != ("a", name):
                await asyncio.sleep(0.01)


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.gateway.settled._TOGETHER", 3)
    order: list[tuple[str, str]] = []
    later = Later((Seen(order, "a"),))
    for number in range(7):
        later.add(over(str(number)))
        assert number + 1 - len(order) < 3

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lumen.config.schema import Hub
from lumen.hub.pull import Puller
from lumen.hub.store import Store
from lumen.hub.wanted import Limits
from tests.hub.server import FakeHub

Result = TypeVar("Result")
PIECE = 64 * 1024
QUICK = Limits(
    piece=PIECE,
    span=4,
    connect=5.0,
    stall=0.5,
    tries=3,
    backoff=0.01,
    longest_backoff=0.05,
    longest_wait=0.2,
    patience=5.0,
    spare=0,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def puller(store: Store) -> Callable[..., Puller]:
    """`puller(hub, limits=…, free=…, token=…)`: a Puller into this test's store."""

    def make(hub: FakeHub, *, connections: int = 3, token: str | None = None, **rest: Any) -> Puller:
        settings = Hub(endpoint=hub.hub, token=token, connections=connections)
        return Puller(store, settings, rest.pop("limits", QUICK), **rest)

    return make


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Result]], Result]:
    """Run a coroutine to its end, within a limit."""

    def within(coroutine: Coroutine[Any, Any, Result]) -> Result:
        async def limited() -> Result:
            async with asyncio.timeout(100):
                return await coroutine

        return asyncio.run(limited())

    return within

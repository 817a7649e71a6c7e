"""How long a request waits for a model that is down: on a clock that leaps to the next thing that is due."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lumen.config.schema import Model
from lumen.core.errors import UnavailableError, WakingError
from lumen.engines.base import ModelFiles
from lumen.workers.group import Group
from lumen.workers.habits import Rate
from lumen.workers.lifecycle import Event, Life, Timing, step
from lumen.workers.load import Lease, Load
from lumen.workers.probe import Address
from lumen.workers.spec import Spec
from tests.workers.supervision import Fake

START = 600.0


class _Leaping(selectors.SelectSelector):
    """Waits for nothing: what it was to wait is added to the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "it would wait for ever"
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


class _Replica(SimpleNamespace):
    """What a group sees of a replica: where it stands. `tell` moves it on."""

    def __init__(self, group: Group) -> None:
        clock = asyncio.get_running_loop().time
        load = Load(lambda: None, clock)
        super().__init__(
            life=Life(start_timeout=START), stopping=False, loaded=0.0, slots=1, index=0, load=load,
            run=SimpleNamespace(begun=0.0, number=1, at_once=None),
            lease=lambda: Lease(load, Address("http://here", None), "m", 0, "m"),
        )  # fmt: skip
        self._clock = clock
        group.replicas.append(self)  # type: ignore[arg-type]
        self.tell(Event.START)

    @property
    def open(self) -> bool:
        return bool(self.life.state.value == "ready")

    def tell(self, *events: Event) -> None:
        for event in events:
            self.life, _ = step(self.life, event, self._clock(), Timing())


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(work)


def down() -> tuple[Group, _Replica]:
    """A group whose only replica waits for its turn."""
    home, watcher = SimpleNamespace(), SimpleNamespace(asked=lambda group: None)
    group = Group("m", home, watcher, Rate())  # type: ignore[arg-type]
    model = Model("x", engine="fake", start_timeout=START)
    group.want(Spec("m", model, ModelFiles("m", Path("/none")), Fake()), 16, True)
    return group, _Replica(group)


async def told(group: Group, timeout: float) -> float:
    """When the request is told that the model still starts."""
    with pytest.raises(WakingError):
        await group.acquire(timeout)
    return asyncio.get_running_loop().time()


def test_a_limit_is_kept_whatever_the_start_may_take() -> None:
    async def work() -> None:
        group, replica = down()
        replica.tell(Event.TURN)
        assert await told(group, 120.0) == 120.0

    run(work())


def test_without_one_it_waits_as_long_as_a_start_may_take() -> None:
    async def work() -> None:
        group, replica = down()
        replica.tell(Event.TURN)
        waiting = asyncio.create_task(group.acquire(math.inf))
        await asyncio.sleep(START - 1)
        replica.tell(Event.LISTENING, Event.ANSWERED)
        group.serve_waiters()
        (await waiting).release()

    run(work())


def test_a_start_that_began_while_it_waited_has_its_own_time() -> None:
    async def work() -> None:
        group, replica = down()
        waiting = asyncio.create_task(group.acquire(math.inf))
        await asyncio.sleep(START / 2)  # the memory was not free before
        replica.tell(Event.TURN)
        await asyncio.sleep(START - 1)
        assert not waiting.done()
        replica.tell(Event.LISTENING, Event.ANSWERED)
        group.serve_waiters()
        (await waiting).release()

    run(work())


@pytest.mark.parametrize("turn", [None, 0.0, START / 2])
def test_it_does_not_wait_for_ever(turn: float | None) -> None:
    """Neither where nothing starts, nor where a start that began early or late does not come to its end."""

    async def work() -> None:
        group, replica = down()
        waiting = asyncio.create_task(told(group, math.inf))
        if turn is not None:
            await asyncio.sleep(turn)
            replica.tell(Event.TURN)
        assert await waiting == START + (turn or 0.0)

    run(work())


def test_a_start_that_failed_and_is_tried_again_is_not_waited_for_for_ever() -> None:
    async def work() -> None:
        group, replica = down()
        replica.tell(Event.TURN)
        waiting = asyncio.create_task(told(group, math.inf))
        await asyncio.sleep(START / 2)
        replica.tell(Event.EXITED, Event.DUE, Event.TURN)
        assert await waiting == START * 1.5

    run(work())


def test_room_is_looked_for_again_for_requests_that_are_refused_but_not_for_each_of_many() -> None:
    async def work() -> None:
        group, _ = down()
        asked: list[float] = []
        clock = asyncio.get_running_loop().time
        group._watcher.asked = lambda group: asked.append(clock())  # type: ignore[method-assign]
        group.deny("It does not fit.")
        for _ in range(30):
            with pytest.raises(UnavailableError, match="does not fit"):
                await group.acquire(math.inf)
            await asyncio.sleep(0.125)
        assert asked == [0.0, 1.0, 2.0, 3.0]

    run(work())

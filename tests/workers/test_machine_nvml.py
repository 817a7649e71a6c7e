"""The byte ledger over NVIDIA's library as it answers for real cards: strangers, late returns, lost cards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.hardware.readings import Monitor
from lumen.workers.machine import Machine
from lumen.workers.memory import Ledger
from lumen.workers.spec import Spec
from tests.hardware.conftest import Fake, _fake, fake

__all__ = ["_fake", "fake"]

GIB = 1024**3
TINY = Path(__file__).parents[2] / "lumen" / "tiny" / "lumen-tiny.gguf"
SPEC = Spec("m", Model(source="x", gpu_layers=-1, context=4096, slots=4), ModelFiles("m", TINY), engine("llamacpp"))


@pytest.fixture
def two(fake: Fake) -> Iterator[Machine]:
    """A machine with two cards of 24 GiB, all free."""
    for name in "ab":
        fake.card("NVIDIA GeForce RTX 4090", f"GPU-{name}", total=24 * GIB, free=24 * GIB, compute=(8, 9))
    here = Machine(Monitor(Path("/"), {}, fake.open), None, offloads=True)
    yield here
    asyncio.run(here.close())


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 100))


def free(here: Machine) -> dict[str, int]:
    return {one.device.id: one.free + one.device.margin for one in here.ledger.standing() if one.device.kind == "cuda"}


def load(ledger: Ledger, owner: str, size: int, card: str = "cuda:0") -> None:
    assert ledger.reserve(owner, {card: size}) is None and ledger.start(owner)
    ledger.measured(owner, {card: size})


def test_a_stranger_s_memory_is_not_counted_on_and_another_card_is_taken(two: Machine, fake: Fake) -> None:
    async def work() -> None:
        await two.read({})
        assert [seat.gpus for seat in two.seats(SPEC, 1)] == [(0,), (1,)]
        fake.free(0, 10 * GIB)
        fake.process(0, os.getppid(), 14 * GIB)
        await two.read({})
        assert free(two) == {"cuda:0": 10 * GIB, "cuda:1": 24 * GIB}
        assert [seat.gpus for seat in two.seats(SPEC, 1)] == [(1,), (0,)]
        # It goes, and its memory is there at once.
        fake.free(0, 24 * GIB)
        await two.read({})
        assert free(two)["cuda:0"] == 24 * GIB

    run(work())


def test_memory_that_an_ended_process_left_taken_is_not_given_before_the_card_shows_it(
    two: Machine, fake: Fake
) -> None:
    """A driver gives back what a killed process had some time after its end."""

    async def work() -> None:
        load(two.ledger, "m/0", 20 * GIB)
        fake.free(0, 4 * GIB)
        fake.process(0, os.getpid(), 20 * GIB)
        await two.read({"m/0": os.getpid()})
        assert free(two)["cuda:0"] == 4 * GIB
        two.ledger.release("m/0")
        for back in (0, 5, 12):
            # The process is in no list any more, and most of its memory is taken all the same.
            fake.free(0, (4 + back) * GIB)
            await two.read({})
            assert free(two)["cuda:0"] == (4 + back) * GIB
        assert two.ledger.reserve("m/1", {"cuda:0": 18 * GIB}) is not None
        fake.free(0, 24 * GIB)
        await two.read({})
        assert two.ledger.reserve("m/1", {"cuda:0": 18 * GIB}) is None

    run(work())


def test_on_a_card_that_is_lost_nothing_is_started_until_it_is_back(two: Machine, fake: Fake) -> None:
    async def work() -> None:
        load(two.ledger, "m/0", 4 * GIB, "cuda:1")
        fake.free(1, 20 * GIB)
        fake.process(1, os.getpid(), 4 * GIB)
        fake.codes(0, memory=15)
        await two.read({"m/0": os.getpid()})
        assert free(two) == {"cuda:0": 0, "cuda:1": 20 * GIB}, "the other card is seen as before"
        assert two.ledger.reserve("m/1", {"cuda:0": GIB}) is not None
        fake.codes(0)
        await two.read({"m/0": os.getpid()})
        assert two.ledger.reserve("m/1", {"cuda:0": GIB}) is None

    run(work())


@pytest.mark.parametrize("code", [3, 4])
def test_where_the_driver_does_not_list_processes_its_use_counts(two: Machine, fake: Fake, code: int) -> None:
    """In a container, or without rights: what is not ours by the books is somebody else's."""

    async def work() -> None:
        load(two.ledger, "m/0", 6 * GIB)
        fake.free(0, 15 * GIB)
        fake.codes(0, process=code)
        await two.read({"m/0": os.getpid()})
        assert free(two)["cuda:0"] == 15 * GIB

    run(work())

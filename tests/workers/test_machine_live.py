"""The pool with real workers over this machine's own memory, made as small as a test needs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

import lumen
from lumen.config.schema import Model
from lumen.core.errors import UnavailableError
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.hardware.devices import RAM, Device
from lumen.hardware.readings import Reading
from lumen.hub.needs import examine, needs
from lumen.workers.machine import Machine
from lumen.workers.supervisor import Supervisor
from tests.workers.supervision import marked, run, until
from tests.workers.test_measure import Scripted

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(engine("llamacpp").missing() is not None, reason="llama-cpp-python is not installed"),
]
TINY = Path(lumen.__file__).parent / "tiny" / "lumen-tiny.gguf"
MODEL = Model("x", slots=1, context=512, threads=1, min_residency=0.0, idle_after=0.1)


def room_for(models: float) -> Machine:
    """A machine whose memory holds so many of the model; what it is told to have free stays as it is."""
    size = needs(examine(TINY), MODEL)
    assert size is not None
    memory = Device("ram", "ram", 0, "memory", int(size.by_device()[RAM] * models / 0.95))
    return Machine(Scripted(Reading(memory, memory.total)))


async def serve(machine: Machine, run_dir: Path, models: dict[str, Model]) -> Supervisor:
    supervisor = Supervisor(engine, run_dir, run_dir / "logs", lambda state: None, memory=machine)
    await supervisor.start()
    wanted = {name: (model, ModelFiles(name, TINY)) for name, model in models.items()}
    await machine.adopt(wanted)
    await supervisor.apply(wanted)
    return supervisor


def holders(machine: Machine) -> set[str]:
    return {one.owner.partition("/")[0] for one in machine.ledger.holdings() if any(one.charged.values())}


def test_what_idles_gives_everything_back_and_the_next_one_gets_it(run_dir: Path) -> None:
    async def work() -> None:
        machine = room_for(1.2)
        supervisor = await serve(machine, run_dir, {"a": MODEL, "b": MODEL})
        try:
            for name in ("a", "b"):
                lease = await supervisor.acquire(name, 90)
                assert holders(machine) == {name}
                lease.release(True)
                await until(lambda: machine.ledger.holdings() == ())
                assert (
                    machine.ledger.free(RAM) == machine.ledger.devices[RAM].total - machine.ledger.devices[RAM].margin
                )
        finally:
            await supervisor.stop(10)
        assert marked(run_dir) == {}

    run(work(), 110)


def test_what_is_reserved_is_kept_free_and_can_be_had(run_dir: Path) -> None:
    async def work() -> None:
        machine = room_for(1.2)
        supervisor = await serve(machine, run_dir, {"a": replace(MODEL, reserve=True, idle_after=600.0), "b": MODEL})
        try:
            with pytest.raises(UnavailableError):
                await supervisor.acquire("b", 2)
            lease = await supervisor.acquire("a", 90)
            assert holders(machine) == {"a"}
            lease.release(True)
            with pytest.raises(UnavailableError):
                await supervisor.acquire("b", 2)
            assert holders(machine) == {"a"}
        finally:
            await supervisor.stop(10)

    run(work(), 110)


def test_a_model_that_is_too_large_says_so(run_dir: Path) -> None:
    async def work() -> None:
        supervisor = await serve(room_for(0.05), run_dir, {"a": MODEL})
        try:
            with pytest.raises(UnavailableError, match="does not fit"):
                await asyncio.wait_for(supervisor.acquire("a", 90), 100)
        finally:
            await supervisor.stop(10)

    run(work(), 110)

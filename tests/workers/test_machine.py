"""Estimate, reserve, load, measure, correct, remember: over scripted cards and this machine's own memory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.hardware.devices import RAM, Device
from lumen.hardware.processes import Memory
from lumen.hardware.readings import Reading
from lumen.hub.needs import examine, needs
from lumen.workers.machine import Machine
from lumen.workers.spec import Spec
from tests.workers.test_measure import Scripted

GIB = 1024**3
MIB = 1024**2
TINY = Path(__file__).parents[2] / "lumen" / "tiny" / "lumen-tiny.gguf"
MEMORY = Device("ram", "ram", 0, "memory", 64 * GIB)
ON_CARDS = Model(source="x", gpu_layers=-1, context=4096, slots=4)


def cards(*gib: int) -> list[Device]:
    return [Device(f"cuda:{index}", "cuda", index, "A card", size * GIB) for index, size in enumerate(gib)]


def machine(*gib: int, kept: Path | None = None) -> Machine:
    devices = [*cards(*gib), MEMORY]
    return Machine(Scripted(*(Reading(device, device.total) for device in devices)), kept, offloads=True)


def tell(here: Machine, *readings: Reading) -> None:
    """What the devices say from now on."""
    here.monitor.readings = readings  # type: ignore[attr-defined]


def spec(model: Model, name: str = "m") -> Spec:
    return Spec(name, model, ModelFiles(name, TINY), engine("llamacpp"))


def estimated(model: Model, *on: str) -> Mapping[str, int]:
    found = needs(examine(TINY), model, on)
    assert found is not None
    return found.by_device()


def test_without_cards_everything_lies_in_the_machine_s_memory() -> None:
    (seat,) = machine().seats(spec(replace(ON_CARDS, gpu_layers=0)), 1)
    assert seat.gpus == () and seat.holds == estimated(replace(ON_CARDS, gpu_layers=0))
    assert set(seat.asleep) == {RAM} and 0 < seat.asleep[RAM] < seat.holds[RAM]


def test_who_watches_sees_how_full_and_busy_the_devices_are() -> None:
    async def run() -> None:
        here = machine(24)
        card, memory = cards(24)[0], MEMORY
        tell(here, Reading(card, 6 * GIB, busy=87, celsius=61), Reading(memory, 60 * GIB))
        assert here.ledger.reserve("m/0", {"cuda:0": 2 * GIB}) is None
        assert here.watched() == []  # nobody has looked before, and nobody waits
        await here.close()
        first, last = here.watched()
        assert (first["used"], first["total"], first["charged"]) == (18 * GIB, 24 * GIB, 2 * GIB)
        assert (first["busy"], first["celsius"], last["busy"], last["used"]) == (87, 61, None, 4 * GIB)
        await here.close()

    asyncio.run(run())


def test_llama_cpp_goes_on_cards_only_where_it_can_and_was_told_to() -> None:
    here = machine(24)
    assert here.seats(spec(ON_CARDS), 1)[0].gpus == (0,)
    assert here.seats(spec(replace(ON_CARDS, gpu_layers=0)), 1)[0].gpus == ()
    here.offloads = False
    assert here.seats(spec(ON_CARDS), 1)[0].gpus == ()


def test_the_emptiest_card_first_and_those_that_were_assigned() -> None:
    here = machine(24, 24, 24)
    assert here.ledger.reserve("other", {"cuda:0": 9 * GIB, "cuda:2": 4 * GIB}) is None
    seats = here.seats(spec(ON_CARDS), 1)
    assert [seat.gpus for seat in seats] == [(1,), (2,), (0,)]
    assert seats[0].holds == estimated(ON_CARDS, "cuda:1")
    assert [seat.gpus for seat in here.seats(spec(replace(ON_CARDS, gpus=(0, 2))), 2)] == [(2,), (0,)]
    assert [seat.gpus for seat in here.seats(spec(replace(ON_CARDS, gpus=(0, 2))), 1)] == [(0, 2)]


async def live(here: Machine, one: Spec, owner: str, on_card: int, told: bool = True) -> dict[str, int]:
    """Load a replica that takes `on_card` bytes on its card; this very process stands for it."""
    (seat, *_) = here.seats(one, 1)
    assert here.ledger.reserve(owner, seat.holds) is None and here.ledger.start(owner)
    card = here.ledger.devices["cuda:0"]
    processes = ((os.getpid(), on_card),) if told else None
    memory = Reading(MEMORY, MEMORY.total // 2)
    tell(here, Reading(card, card.total - on_card - GIB, 0, 30, processes), memory)
    found = dict(await here.held(one, owner, os.getpid(), asleep=False))
    here.ledger.measured(owner, found)
    return found


@pytest.mark.parametrize("told", [True, False])
def test_what_was_measured_is_reserved_next_time(told: bool, tmp_path: Path) -> None:
    async def run() -> None:
        here, kept = machine(24, kept=tmp_path / "memory.json"), tmp_path / "memory.json"
        await here.adopt({"m": (ON_CARDS, ModelFiles("m", TINY))})
        card = here.ledger.devices["cuda:0"]
        tell(here, Reading(card, card.total - GIB, 0, 30, () if told else None), Reading(MEMORY, MEMORY.total // 2))
        await here.read({})
        assert here.ledger.standing()[0].foreign == GIB
        guess = here.seats(spec(ON_CARDS), 1)[0].holds
        found = await live(here, spec(ON_CARDS), "m:0", 3 * GIB, told)
        assert found["cuda:0"] == 3 * GIB != guess["cuda:0"] and found[RAM] >= guess[RAM]
        assert here.seats(spec(ON_CARDS), 1)[0].holds["cuda:0"] == 3 * GIB
        await here.read({"m:0": os.getpid()})
        here.ledger.release("m:0")
        tell(here, Reading(card, card.total - GIB, 0, 30, () if told else None), Reading(MEMORY, MEMORY.total // 2))
        await here.read({})
        assert here.ledger.holdings() == () and here.ledger.standing()[0].free == card.total - card.margin - GIB
        await here.close()
        again = machine(24, kept=kept)
        holds = again.seats(spec(ON_CARDS), 1)[0].holds
        assert holds["cuda:0"] == 3 * GIB and holds[RAM] >= guess[RAM]
        other = replace(ON_CARDS, context=2048)
        assert again.seats(spec(other), 1)[0].holds == estimated(other, "cuda:0")

    asyncio.run(run())


def test_the_most_of_a_life_is_what_is_expected_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run() -> None:
        here = machine(24, kept=tmp_path / "memory.json")
        one = spec(ON_CARDS)
        await live(here, one, "m:0", GIB)
        grown = [700 * GIB]
        monkeypatch.setattr("lumen.hardware.processes.memory", lambda *_: Memory(grown[0], 0))
        await here.read({"m:0": os.getpid()})
        grown[0] = 5  # less at its end, also after a sleep
        await here.held(one, "m:0", os.getpid(), asleep=True)
        await here.held(one, "m:0", os.getpid(), asleep=False)
        await here.read({"m:0": os.getpid()})
        await here.read({})
        assert here.seats(one, 1)[0].holds[RAM] == MEMORY.total - MEMORY.margin

    asyncio.run(run())


def test_sleep_is_measured_as_it_is() -> None:
    async def run() -> None:
        here = machine(24)
        one = spec(replace(ON_CARDS, engine="vllm"))
        await live(here, one, "m:0", 3 * GIB)
        assert here.ledger.reserve("m:0", {"cuda:0": GIB, RAM: GIB}) is None
        card = here.ledger.devices["cuda:0"]
        asleep = Reading(card, card.total - 600 * MIB, 0, 30, ((os.getpid(), 500 * MIB),))
        tell(here, asleep, Reading(MEMORY, MEMORY.total // 2))
        found = await here.held(one, "m:0", os.getpid(), asleep=True)
        # This very process is measured, whatever else it has tested before.
        assert found["cuda:0"] == 500 * MIB and 0 < found[RAM] <= 2 * psutil.Process().memory_info().rss
        here.ledger.measured("m:0", found)
        # An engine of which nothing is known is expected to take what it took.
        (seat, *_) = here.seats(one, 1)
        assert seat.holds == {"cuda:0": 3 * GIB} and seat.asleep == found
        assert here.seats(replace(one, model=replace(one.model, context=1)), 1)[0].holds == {"cuda:0": MIB}

    asyncio.run(run())


def test_what_operators_are_told() -> None:
    here = machine(24)
    assert here.ledger.reserve("m:0", {"cuda:0": GIB}, pinned=True) is None
    found = here.describe()
    card = here.ledger.devices["cuda:0"]
    assert found["devices"][0] == {
        "id": "cuda:0", "total": 24 * GIB, "margin": card.margin, "foreign": 0, "charged": GIB, "returning": 0,
        "set_aside": 0, "free": 23 * GIB - card.margin, "pressure": 0,
    }  # fmt: skip
    assert found["holdings"] == [
        {"owner": "m:0", "stage": "reserved", "pinned": True, "charged": {"cuda:0": GIB}, "returning": {}}
    ]


def test_reserved_capacity() -> None:
    async def run() -> None:
        here = machine(24, 24)
        reserved = replace(ON_CARDS, reserve=True, gpus=(1,))
        files = ModelFiles("m", TINY)
        holds = estimated(reserved, "cuda:1")
        await here.adopt({"m": (reserved, files), "n": (replace(reserved, reserve=False), files)})
        one, other, memory = here.ledger.standing()
        assert (one.set_aside, other.set_aside, memory.set_aside) == (0, holds["cuda:1"], 0)
        assert here.ledger.free("cuda:1", draws=("model:m",)) - here.ledger.free("cuda:1") == holds["cuda:1"]
        await here.adopt({"m": (replace(reserved, replicas=2, gpus=(0, 1)), files)}, claims=["gone"])
        assert [one.set_aside for one in here.ledger.standing()] == [holds["cuda:1"], holds["cuda:1"], 0]
        await here.adopt({"m": (replace(ON_CARDS, gpu_layers=0), files)}, claims=["m"])
        assert [one.set_aside > 0 for one in here.ledger.standing()] == [False, False, True]
        await here.adopt({})
        assert not any(one.set_aside for one in here.ledger.standing())

    asyncio.run(run())


def test_capacity_is_set_aside_on_cards_of_their_own_and_stays_where_its_model_is() -> None:
    async def run() -> None:
        here = machine(24, 24)
        models = {name: (replace(ON_CARDS, reserve=True), ModelFiles(name, TINY)) for name in "mn"}

        def aside() -> list[bool]:
            return [one.set_aside > 0 for one in here.ledger.standing()]

        # One on each card, though both would go on the first one if they were alone.
        await here.adopt(models)
        assert aside() == [True, True, False]
        await here.adopt({"m": models["m"]})
        assert aside() == [True, False, False]
        # Others fill its card half: it is put where its capacity is all the same.
        assert here.ledger.reserve("other", {"cuda:0": 9 * GIB}) is None
        assert here.seats(spec(models["m"][0]), 1)[0].gpus == (0,)
        # Once it has it, looking again at the configuration claims nothing anew.
        found = await live(here, spec(models["m"][0]), "m/0", estimated(ON_CARDS, "cuda:0")["cuda:0"])
        assert here.ledger.reserve("m/0", found, draws=("model:m",)) is None
        before = [one.free for one in here.ledger.standing()]
        await here.adopt({"m": models["m"]})
        assert [one.free for one in here.ledger.standing()] == before and aside() == [False, False, False]

    asyncio.run(run())


def test_what_was_learned_of_a_card_is_kept_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        here, kept = machine(24, kept=tmp_path / "memory.json"), tmp_path / "memory.json"
        await live(here, spec(ON_CARDS), "m:0", 3 * GIB)
        # As after a `kill -9`: nobody has closed it.
        assert machine(24, kept=kept).seats(spec(ON_CARDS), 1)[0].holds["cuda:0"] == 3 * GIB
        await here.close()

    asyncio.run(run())


def test_a_process_that_is_gone_teaches_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        here, one = machine(24), spec(ON_CARDS)
        (seat, *_) = here.seats(one, 1)
        assert here.ledger.reserve("m:0", seat.holds) is None and here.ledger.start("m:0")
        card = here.ledger.devices["cuda:0"]
        tell(here, Reading(card, card.total - GIB, 0, 30, ((os.getpid(), GIB),)), Reading(MEMORY, MEMORY.total // 2))
        gone = 2**22 + 1  # beyond the largest number that Linux gives
        assert await here.held(one, "m:0", gone, asleep=False) == {}
        assert here.seats(one, 1)[0].holds == seat.holds
        assert await here.held(one, "m:0", gone, asleep=True) == {}
        assert here.seats(one, 1)[0].asleep == seat.asleep

    asyncio.run(run())


def test_a_small_machine_has_little_room_for_finished_prefixes() -> None:
    model = replace(ON_CARDS, gpu_layers=0)
    found = needs(examine(TINY), model)
    assert found is not None
    small = Device("ram", "ram", 0, "memory", found.least()[RAM] * 11 // 10)
    (seat,) = Machine(Scripted(Reading(small, small.total))).seats(spec(model), 1)
    assert seat.holds == found.least() != found.by_device()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    here = machine(24)
    missing = Spec("m", ON_CARDS, ModelFiles("m", tmp_path / "gone.gguf"), engine("llamacpp"))
    assert here.seats(missing, 1)[0].holds == {"cuda:0": MIB}


def test_what_cannot_be_kept_is_told_and_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    here = machine(24, kept=tmp_path / "file" / "memory.json")
    asyncio.run(here.close())
    assert "cannot be written" in caplog.text


def test_cards_that_are_assigned_and_not_there_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        here, files = machine(24, 24), ModelFiles("m", TINY)
        await here.adopt({"m": (replace(ON_CARDS, gpus=(1, 7)), files), "n": (replace(ON_CARDS, gpus=(0,)), files)})
        assert caplog.messages == ["model m is assigned to card 7, which is not here"]
        await here.adopt({"m": (replace(ON_CARDS, gpus=(8, 7)), files)})
        assert caplog.messages[1:] == ["model m is assigned to cards 8, 7, which are not here; it may use any"]

    asyncio.run(run())


def test_vllm_gets_as_many_cards_as_it_can_be_divided_by(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"num_hidden_layers": 2, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 64})
    )
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(60 * GIB)  # a hole: more than two of the cards hold, less than three do
    here = machine(24, 24, 24)

    def cards_of(**options: int) -> list[tuple[int, ...]]:
        model = Model(source="x", engine="vllm", context=512, slots=1, options=options)
        return [one.gpus for one in here.seats(Spec("m", model, ModelFiles("m", tmp_path), engine("vllm")), 1)]

    assert all(len(gpus) < 3 for gpus in cards_of())
    assert cards_of(tensor_parallel_size=3) == [(0, 1, 2)]
    assert cards_of(tensor_parallel_size=2) == [(0, 1)]
    assert cards_of(pipeline_parallel_size=3) == [(0, 1, 2)]

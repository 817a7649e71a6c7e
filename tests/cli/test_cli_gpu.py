from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lumen.hardware.devices import Device
from lumen.hardware.machine import Note
from lumen.hardware.readings import Reading
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran

Run = Callable[..., Ran]
GIB = 1024**3
CARDS = [Device(f"cuda:{index}", "cuda", index, "NVIDIA H100", 80 * GIB) for index in (0, 1)]
MEMORY = Device("ram", "ram", 0, "memory", 64 * GIB)
CONFIG = (
    "models:\n  m:\n    source: builtin:tiny  # the one\n    replicas: 1\n"
    "  v:\n    source: hf://o/r\n    engine: vllm\n"
)


class Cards:
    """A monitor of a machine with two cards, one of them half full."""

    driver: str | None = "570.86.15"
    notes: tuple[Note, ...] = ()
    readings: tuple[Reading, ...] = (
        Reading(CARDS[0], 30 * GIB, 93, 61, ((os.getpid(), 40 * GIB), (999_999, None))),
        Reading(CARDS[1], 79 * GIB, 0, 30, None),
        Reading(MEMORY, 60 * GIB),
    )

    def __init__(self) -> None:
        self.devices = tuple(reading.device for reading in self.readings)

    def read(self) -> tuple[Reading, ...]:
        return self.readings

    def close(self) -> None:
        return None


class NoCards(Cards):
    driver = None
    notes = (Note("NVIDIA's driver answers: Driver Not Loaded", "load it"),)
    readings = (Reading(MEMORY, 60 * GIB),)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.hardware.readings.Monitor", Cards)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.hardware.readings.Monitor", NoCards)


def test_cards_and_memory_without_a_gateway(lumen: Run, cards: None) -> None:
    shown = lumen("gpu")
    assert shown.code == 0
    for part in ("cuda:0", "NVIDIA H100", "50.0 GiB", "80.0 GiB", "93 %", "61 °C", "40.0 GiB", "(999999)", "ram"):
        assert part in shown.out
    assert "the driver does not tell" in shown.out and "given" not in shown.out


def test_for_programs(lumen: Run, cards: None) -> None:
    found = lumen("gpu", "--json").json
    assert found["driver"] == "570.86.15" and [one["id"] for one in found["devices"]] == ["cuda:0", "cuda:1", "ram"]
    first, second, memory = found["devices"]
    assert (first["used"], first["busy"], first["celsius"]) == (50 * GIB, 93, 61)
    assert first["holders"][0] == {"pid": os.getpid(), "name": first["holders"][0]["name"], "replica": None,
                                   "bytes": 40 * GIB}  # fmt: skip
    assert second["holders"] is None and memory["holders"] == [] and memory["ledger"] is None


def test_this_machine_as_it_is(lumen: Run) -> None:
    found = lumen("gpu", "--json").json
    memory = found["devices"][-1]
    assert memory["id"] == "ram" and 0 < memory["used"] < memory["total"]


def test_a_driver_in_trouble(lumen: Run, bare: None) -> None:
    assert "Driver Not Loaded: load it" in lumen("gpu").out


def test_what_a_running_gateway_has_given(lumen: Run, cards: None, fake: Fake) -> None:
    fake.start(
        memory={
            "devices": [{"id": "cuda:0", "charged": 41 * GIB, "free": -5, "set_aside": 0}],
            "holdings": [{"owner": "m:0"}],
        }
    )
    shown = lumen("gpu").out
    assert "given" in shown and "41.0 GiB" in shown and "0 B" in shown
    assert lumen("gpu", "--json").json["holdings"] == [{"owner": "m:0"}]


def test_a_gateway_that_does_not_tell(lumen: Run, cards: None, fake: Fake) -> None:
    fake.start()
    assert "given" not in lumen("gpu").out


@pytest.fixture
def written(home: Paths) -> Paths:
    home.config_file.write_text(CONFIG)
    return home


def test_a_model_is_assigned_to_cards(lumen: Run, cards: None, written: Paths, fake: Fake) -> None:
    fake.start(statuses=[{"config": str(written.config_file)}])
    done = lumen("gpu", "assign", "m", "--gpus", "1,0", "--replicas", "2", "--reserve")
    assert done.code == 0 and "m may use cards 1, 0: in force now." in done.out and "gpu_layers: -1" in done.err
    assert len(fake.calls("/admin/reload")) == 1
    text = written.config_file.read_text()
    assert "source: builtin:tiny  # the one" in text and "replicas: 2" in text and "reserve: true" in text
    done = lumen("gpu", "assign", "m", "--gpus", "any", "--no-reserve")
    text = written.config_file.read_text()
    assert (
        "any card with room" in done.out and "gpus" not in text and "reserve: false" in text and "replicas: 2" in text
    )
    # Layers are set for llama.cpp alone, and only where nothing says how many.
    assert lumen("gpu", "assign", "v", "--gpus", "0").err == ""
    assert lumen("gpu", "assign", "m", "--gpus", "0").err == ""
    assert lumen("gpu", "assign", "v", "--gpus", "any").code == lumen("gpu", "assign", "v", "--gpus", "any").code == 0


@pytest.mark.parametrize(
    ("args", "says", "code"),
    [
        (["x", "--gpus", "0"], "has no model 'x'", 1),
        (["mm", "--gpus", "0"], "did you mean 'm'?", 1),
        (["m", "--gpus", "0,7"], "there is no card 7: this machine has 0, 1", 1),
        (["m", "--gpus", "0,0"], "each once", 2),
        (["m", "--gpus", "first"], "write --gpus 0,1 or --gpus any", 2),
        (["m"], "--gpus", 2),
        (["m", "--gpus", "0", "--replicas", "0"], "--replicas", 2),
    ],
)
def test_what_cannot_be_assigned(
    args: list[str], says: str, code: int, lumen: Run, cards: None, written: Paths
) -> None:
    done = lumen("gpu", "assign", *args)
    assert done.code == code and says in done.err
    assert written.config_file.read_text() == CONFIG


def test_no_card_to_assign(lumen: Run, bare: None, written: Paths) -> None:
    done = lumen("gpu", "assign", "m", "--gpus", "0")
    assert done.code == 1 and "no card can be seen" in done.err and "Driver Not Loaded" in done.err


def test_a_bound_that_the_new_number_breaks_is_refused(lumen: Run, cards: None, home: Paths) -> None:
    home.config_file.write_text("models:\n  m:\n    source: builtin:tiny\n    max_replicas: 1\n")
    before = home.config_file.read_text()
    done = lumen("gpu", "assign", "m", "--gpus", "0", "--replicas", "4")
    assert done.code == 1 and "max_replicas" in done.err and home.config_file.read_text() == before

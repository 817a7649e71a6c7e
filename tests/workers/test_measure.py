from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumen.hardware.devices import RAM, Device
from lumen.hardware.machine import Note
from lumen.hardware.readings import Monitor, Reading
from lumen.workers.measure import Life, charge, enter, on_card, survey
from lumen.workers.memory import Ledger

GIB = 1024**3
CARD = Device("cuda:0", "cuda", 0, "A card", 80 * GIB)
MEMORY = Device("ram", "ram", 0, "memory", 64 * GIB)


class Scripted(Monitor):
    """A monitor of a machine that a test makes up."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = readings
        self.devices = tuple(reading.device for reading in readings)
        self.driver = None
        self.notes: tuple[Note, ...] = ()

    def read(self) -> tuple[Reading, ...]:
        return self.readings

    def close(self) -> None:
        self.readings = ()


def card(free: int, *processes: tuple[int, int | None], told: bool = True) -> Reading:
    return Reading(CARD, free * GIB, 0, 30, tuple((pid, size) for pid, size in processes) if told else None)


@contextmanager
def machine(root: Path, **processes: int) -> Iterator[Path]:
    """A /proc with leaders `pN` of N gigabytes, a third of them mapped files."""
    for name, gib in processes.items():
        pid = name.removeprefix("p")
        folder = root / "proc" / pid
        folder.mkdir(parents=True)
        (folder / "stat").write_text(f"{pid} (worker) S 1 {pid} {pid} 0 -1 0")
        kilobytes = gib * 1024**2
        (folder / "smaps_rollup").write_text(
            f"Pss: {3 * kilobytes} kB\nPss_Anon: {2 * kilobytes} kB\nPss_Shmem: 0 kB\n"
        )
    yield root


def test_a_survey(tmp_path: Path) -> None:
    with machine(tmp_path, p10=1, p20=2) as root:
        monitor = Scripted(card(50, (10, 20 * GIB), (99, 5 * GIB)), Reading(MEMORY, 40 * GIB))
        (root / "proc/99").mkdir()
        found = survey(monitor, {"a": Life(10, ["cuda:0", "ram"]), "b": Life(20, ["ram"])}, root)
    assert found.present == {"cuda:0": {"a": 20 * GIB}, "ram": {"a": 2 * GIB, "b": 4 * GIB}}
    assert found.held == {"a": {"cuda:0": 20 * GIB, "ram": 3 * GIB}, "b": {"ram": 6 * GIB}}
    books = Ledger([CARD, MEMORY], margins={"cuda:0": 0, "ram": 0})
    assert books.reserve("a", {"cuda:0": 20 * GIB, "ram": 3 * GIB}) is None and books.start("a")
    enter(books, found, books.epoch)
    first, second = books.standing()
    assert first.foreign == 10 * GIB  # five of another process, five of the driver
    assert second.foreign == (24 - 2) * GIB  # `b` is not in these books


def test_a_device_that_the_ledger_does_not_know_is_passed_over() -> None:
    found = survey(Scripted(card(50), Reading(MEMORY, GIB)), {})
    enter(Ledger([MEMORY]), found, 0)


def everybody(_: int) -> bool:
    return True


def test_whether_a_list_of_processes_can_be_trusted() -> None:
    here: dict[str, set[int]] = {"a": {10, 11}, "b": {20}}
    assert on_card(card(50, (10, GIB), (11, GIB), (99, GIB)), here, everybody) == {"a": 2 * GIB, "b": 0}
    # The driver hides it, or hides the sizes.
    assert on_card(card(50, told=False), here, everybody) is None
    assert on_card(card(50, (10, None)), here, everybody) is None
    # In a container: nothing listed, or numbers of another world.
    assert on_card(card(50), here, everybody) is None
    assert on_card(card(50, (4242, GIB)), here, lambda pid: pid != 4242) is None
    # Nobody of ours is there, so an empty list says so.
    assert on_card(card(50), {"a": set()}, everybody) == {"a": 0}


def test_what_a_loaded_replica_is_charged_with() -> None:
    estimated = {"cuda:0": 10, "ram": 5}
    assert charge(estimated, {"cuda:0": 12, "ram": 2}, {"cuda:0": 99}) == {"cuda:0": 12, "ram": 5}
    assert charge(estimated, {"cuda:0": 8, "ram": 9}, {}) == {"cuda:0": 8, "ram": 9}
    assert charge(estimated, {RAM: 2}, {"cuda:0": 11}) == {"cuda:0": 11, "ram": 5}
    assert charge(estimated, {}, {}) == estimated

"""What replicas really hold: a look at the devices and at /proc, and how it goes into the byte ledger.

`survey` blocks for some milliseconds: call it in a thread. The rest is pure.

    epoch = books.epoch
    found = await asyncio.to_thread(survey, monitor, lives)
    enter(books, found, epoch)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lumen.hardware import processes
from lumen.hardware.devices import RAM
from lumen.hardware.readings import Monitor, Reading
from lumen.workers.memory import Ledger


@dataclass(frozen=True, slots=True)
class Life:
    """A replica that has, or had, a process. `pid`: of the one that was started; keep it until the memory is seen
    back, for what it left behind is found by it. `devices`: ids of those it is charged on."""

    pid: int
    devices: Collection[str]


@dataclass(frozen=True, slots=True)
class Survey:
    """One look. `present`: device → owner → bytes that cannot be taken back, for `Ledger.seen`; `None`: the driver
    does not tell. `held`: owner → device → bytes, for `Ledger.measured`; devices that do not tell are left out.
    `lost`: cards that their driver does not tell of any more."""

    readings: tuple[Reading, ...]
    present: Mapping[str, Mapping[str, int] | None]
    held: Mapping[str, Mapping[str, int]]
    lost: tuple[str, ...] = ()


def survey(monitor: Monitor, lives: Mapping[str, Life], root: Path = Path("/")) -> Survey:
    """What every device has free and what each owner's processes hold. Blocking."""
    readings = monitor.read()
    families = processes.families((life.pid for life in lives.values()), root)
    members = {owner: families[life.pid] for owner, life in lives.items()}
    present: dict[str, Mapping[str, int] | None] = {}
    held: dict[str, dict[str, int]] = {owner: {} for owner in lives}
    for reading in readings:
        device = reading.device.id
        if device == RAM:
            sizes = {owner: processes.memory(pids, root) for owner, pids in members.items()}
            present[device] = {owner: size.kept for owner, size in sizes.items()}
            taken: Mapping[str, int] | None = {owner: size.held for owner, size in sizes.items()}
        else:
            here = {owner: members[owner] for owner, life in lives.items() if device in life.devices}
            taken = present[device] = on_card(reading, here, lambda pid: processes.exists(pid, root))
        for owner, size in (taken or {}).items():
            held[owner][device] = size
    return Survey(readings, present, held, monitor.lost)


def enter(books: Ledger, found: Survey, epoch: int) -> None:
    """Put a survey into the ledger. `epoch`: the ledger's when the survey began."""
    for reading in found.readings:
        if reading.device.id in books.devices:
            books.seen(reading.device.id, reading.free, found.present[reading.device.id], epoch=epoch)
    for card in found.lost:
        # What cannot be seen is not given away. What was given there stays with those who have it.
        if card in books.devices:
            books.seen(card, 0, None, epoch=epoch)


def on_card(
    reading: Reading, members: Mapping[str, Collection[int]], visible: Callable[[int], bool]
) -> dict[str, int] | None:
    """Bytes that each owner's processes hold on a card; `None` where its driver's list cannot be trusted. Pure.

    In a container of its own the driver lists nothing, or numbers that mean other processes here. So a list counts
    only if all that it names is seen from here, and if it names anything where an owner has living processes.
    """
    listed = reading.processes
    if listed is None or any(size is None or not visible(pid) for pid, size in listed):
        return None
    if not listed and any(members.values()):
        return None
    sizes = {pid: size or 0 for pid, size in listed}
    return {owner: sum(sizes.get(pid, 0) for pid in pids) for owner, pids in members.items()}


def charge(estimated: Mapping[str, int], found: Mapping[str, int], grown: Mapping[str, int]) -> dict[str, int]:
    """What to charge a replica with once it has loaded, by device. Pure.

    On a card everything is allocated by then: what was found, or where nobody tells whose memory is whose, by how much
    its use has `grown` since the start (starts on a card take turns). In the machine's memory, buffers fill with use:
    there never less than what was estimated.
    """
    charged = {}
    for device, size in estimated.items():
        seen = found.get(device, grown.get(device) or size)
        charged[device] = max(seen, size) if device == RAM else seen
    return charged

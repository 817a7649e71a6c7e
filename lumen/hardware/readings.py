"""What every memory of this machine is doing now: how much is free, how busy its card is, whose processes hold it.

A `Monitor` looks once at what there is and is then asked again and again. Its methods block, for milliseconds usually
and for some seconds at most: call them in a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lumen.hardware import amd, detection
from lumen.hardware.devices import RAM, Device, card_id
from lumen.hardware.gpus import Opener, patiently, shown, split, trouble
from lumen.hardware.machine import Note
from lumen.hardware.nvml import Nvml, NvmlError

_ANSWER = 3.0  # seconds for one reading of all cards


@dataclass(frozen=True, slots=True)
class Reading:
    """One memory at one moment. Bytes.

    `busy`: per cent, `celsius`: of the card; `None` where nothing tells. `processes`: (process id, bytes) of those
    that use a card, numbers as its driver sees them, bytes `None` where it does not tell; `None`: it tells of none at
    all. For the machine's own memory it is always `None`.
    """

    device: Device
    free: int
    busy: int | None = None
    celsius: int | None = None
    processes: tuple[tuple[int, int | None], ...] | None = None

    @property
    def used(self) -> int:
        return max(0, self.device.total - self.free)


class Monitor:
    """The memories of this machine. `devices`: cards first, the machine's own last. `notes`: what is wrong.

    `lost`: cards that their driver did not tell of when it was last asked; all of them while it is silent.
    """

    lost: tuple[str, ...] = ()

    def __init__(
        self, root: Path = Path("/"), env: Mapping[str, str] | None = None, opener: Opener | None = None
    ) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._nvml: Nvml | None = None
        self._answered = threading.Event()  # no question to the driver is open
        self._answered.set()
        self._amd: dict[str, amd.Card] = {}
        self.driver: str | None = None
        self.notes: tuple[Note, ...] = ()
        self._lasting: tuple[Note, ...] = ()
        total, _ = detection.memory(root)
        cards = self._nvidia(os.environ if env is None else env, opener or Nvml.open) or self._of_amd()
        self.devices: tuple[Device, ...] = (*cards, Device(RAM, "ram", 0, "memory", total))

    def read(self) -> tuple[Reading, ...]:
        """A reading of each device that can be read, in the order of `devices`.

        A card that the driver refuses to tell of is left out, all of them where it does not answer; `notes` say why.
        After silence it is not asked again before it has answered.
        """
        with self._lock:
            found = self._read_nvidia()
            found += [self._read_amd(device) for device in self.devices if device.kind == "rocm"]
            total, free = detection.memory(self._root)
            return (*found, Reading(Device(RAM, "ram", 0, "memory", total), free))

    def close(self) -> None:
        """Let go of the driver."""
        with self._lock:
            # Where a thread hangs in there, the end of this process has to do.
            if self._nvml is not None and self._answered.is_set():
                self._nvml.close()
            self._nvml = None

    def _nvidia(self, env: Mapping[str, str], opener: Opener) -> list[Device]:
        def look() -> tuple[Nvml, str, list[Device]] | None:
            library = opener()
            if library is None:
                return None
            cards = shown(library.cards(), env.get("CUDA_VISIBLE_DEVICES"))
            devices = [Device(card_id("cuda", one.index), "cuda", one.index, one.name, one.memory) for one in cards]
            return library, library.driver(), devices

        try:
            found = patiently(look)
        except (NvmlError, TimeoutError) as error:
            self.notes = (trouble(error),)
            return []
        if found is None:
            return []
        self._nvml, self.driver, devices = found
        self.notes = self._lasting = tuple(split(self._nvml.split))
        return devices

    def _of_amd(self) -> list[Device]:
        self._amd = {card_id("rocm", card.index): card for card in amd.cards(self._root)}
        return [Device(id_, "rocm", card.index, card.name, card.memory) for id_, card in self._amd.items()]

    def _read_nvidia(self) -> list[Reading]:
        library, cards = self._nvml, [device for device in self.devices if device.kind == "cuda"]
        if library is None or not cards or not self._answered.is_set():
            return []

        def look() -> tuple[list[Reading], dict[str, NvmlError]]:
            try:
                return _asked(library, cards)
            finally:
                self._answered.set()

        self._answered.clear()
        try:
            found, failed = patiently(look, _ANSWER)
        except TimeoutError as error:
            self.lost, self.notes = tuple(device.id for device in cards), (*self._lasting, trouble(error))
            return []
        self.lost = tuple(failed)
        self.notes = (*self._lasting, *(_about(card, error) for card, error in failed.items()))
        return found

    def _read_amd(self, device: Device) -> Reading:
        card = self._amd[device.id]
        free = max(0, device.total - amd.used(card))
        return Reading(device, free, amd.busy(card), amd.celsius(card), amd.processes(self._root, card))


def _asked(library: Nvml, cards: Iterable[Device]) -> tuple[list[Reading], dict[str, NvmlError]]:
    """What the driver says of each card, and of which it refuses to."""
    found, failed = [], {}
    for device in cards:
        try:
            use = library.use(device.index)
            found.append(Reading(device, use.free, use.busy, use.celsius, use.processes))
        except NvmlError as error:
            failed[device.id] = error
    return found, failed


def _about(card: str, error: NvmlError) -> Note:
    said = trouble(error)
    return Note(f"{card}: {said.what}", said.mend)

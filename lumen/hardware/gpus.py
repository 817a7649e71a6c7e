"""GPUs on Linux: NVIDIA's by their driver's library, AMD's by the kernel's files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from lumen.hardware import amd
from lumen.hardware.machine import Gpu, Note
from lumen.hardware.nvml import Card, Nvml, NvmlError

# Seconds that a driver has to answer; without its persistence daemon it brings up each card for the first question.
PATIENCE = 8.0

_T = TypeVar("_T")
Opener = Callable[[], Nvml | None]


def on_linux(root: Path, env: Mapping[str, str], opener: Opener | None = None) -> tuple[list[Gpu], list[Note]]:
    """Usable GPUs, and what could not be found out about them."""
    nvidia, notes = _nvidia(env, opener or Nvml.open)
    return nvidia or _amd(root), notes


def shown(cards: Iterable[Card], visible: str | None) -> list[Card]:
    """Only the cards that `CUDA_VISIBLE_DEVICES` shows, in its order."""
    found = list(cards)
    if visible is None:
        return found
    picked: list[Card] = []
    for wish in (part.strip() for part in visible.split(",")):
        fits = [card for card in found if wish == str(card.index) or (wish and card.uuid.startswith(wish))]
        if not fits:
            break  # CUDA stops at the first device it does not know
        picked.append(fits[0])
    return picked


def patiently(call: Callable[[], _T], limit: float = PATIENCE) -> _T:
    """`call()` in a thread of its own, for at most `limit` seconds: a broken driver may never answer.

    Raises:
        TimeoutError: it did not answer; the thread is left behind and ends with the process.
        Exception: whatever `call` raises.
    """
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(call())
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            failed.append(error)

    thread = threading.Thread(target=run, name="driver", daemon=True)
    thread.start()
    thread.join(limit)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"the driver did not answer within {limit:.0f} s")
    return done[0]


def trouble(error: NvmlError | TimeoutError) -> Note:
    """What a driver's refusal or silence means."""
    if isinstance(error, NvmlError):
        return Note(str(error), error.mend)
    return Note(f"NVIDIA's driver: {error}", "see the end of `dmesg`; restarting the machine often helps")


def split(cards: Iterable[int]) -> list[Note]:
    """That cards are left out, because each is several smaller ones."""
    told = "is split by MIG, which is not supported, and left out"
    return [Note(f"card {index} {told}", f"make it whole: `nvidia-smi -i {index} -mig 0`") for index in cards]


def _nvidia(env: Mapping[str, str], opener: Opener) -> tuple[list[Gpu], list[Note]]:
    def look() -> tuple[list[Gpu], list[Note]]:
        library = opener()
        if library is None:
            return [], []
        try:
            driver = library.driver()
            cards = shown(library.cards(), env.get("CUDA_VISIBLE_DEVICES"))
            found = [
                Gpu(card.index, "nvidia", card.name, card.memory, library.use(card.index).free, driver, card.compute)
                for card in cards
            ]
            return found, split(library.split)
        finally:
            library.close()

    try:
        return patiently(look)
    except (NvmlError, TimeoutError) as error:
        return [], [trouble(error)]


def _amd(root: Path) -> list[Gpu]:
    return [
        Gpu(card.index, "amd", card.name, card.memory, max(0, card.memory - amd.used(card))) for card in amd.cards(root)
    ]

"""What looks after the health of targets in the background: it is kept on disk, and idle targets are checked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from lumen.core.errors import LumenError
from lumen.files import write_atomic
from lumen.gateway.health import Health

# Seconds: between two looks at what changed, and between two writes where no state changed but times were measured.
SAVE_EVERY = 2.0
SAVE_TIMES_EVERY = 60.0
# Seconds: between two looks for open targets, between two checks of one, and what a check may take.
LOOK_EVERY = 1.0
CHECK_EVERY = 5.0
CHECK_LIMIT = 3.0
CHECKS_AT_ONCE = 8
_MAX_FILE = 16 * 1024 * 1024


class Keeper:
    """Keeps the health of targets in a file, so that it survives a restart. A lost file costs what was learned."""

    def __init__(self, health: Health, path: Path, say: Callable[[str], None]) -> None:
        """`say`: tells the operator about trouble with the file."""
        self._health = health
        self._path = path
        self._say = say
        self._troubled = False
        # A write that a cancelled `run` left behind in its thread must not undo a later one.
        self._writing = threading.Lock()
        self._saved = health.changes, health.last_used()
        self._dumped = 0
        self._written = 0

    def load(self, now: float) -> None:
        """Take over what an earlier gateway left. `now`: the loop's time. What cannot be read is set aside."""
        try:
            if self._path.stat().st_size > _MAX_FILE:
                raise ValueError("too large")
            self._health.load(msgspec.json.decode(self._path.read_bytes()), now)
            self._saved = self._health.changes, self._health.last_used()
        except FileNotFoundError:
            return
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt")
            try:
                self._path.replace(aside)
            except OSError as trouble:
                self._say(f"the health of targets cannot be read nor set aside: {trouble.strerror}")
                return
            self._say(f"the health of targets could not be read and was set aside as {aside.name}: {error}")
        except OSError as trouble:
            self._say(f"the health of targets cannot be read: {trouble.strerror}")

    def save(self) -> None:
        """Write it now; for the end of the process."""
        self._write(*self._dump())

    async def run(self, every: float = SAVE_EVERY, times_every: float = SAVE_TIMES_EVERY) -> None:
        """Write it when it changed, at most every `every` seconds, off the loop. Until cancelled."""
        loop = asyncio.get_running_loop()
        wrote = loop.time()
        while True:
            await asyncio.sleep(every)
            changes, used = self._health.changes, self._health.last_used()
            aged = used != self._saved[1] and loop.time() - wrote >= times_every
            if changes != self._saved[0] or aged:
                self._saved, wrote = (changes, used), loop.time()
                await asyncio.to_thread(self._write, *self._dump())

    def _dump(self) -> tuple[int, dict[str, Any]]:
        self._dumped += 1
        return self._dumped, self._health.dump()

    def _write(self, number: int, kept: dict[str, Any]) -> None:
        try:
            with self._writing:
                if number < self._written:
                    return
                write_atomic(self._path, msgspec.json.encode(kept), mode=0o600)
                self._written = number
            self._troubled = False
        except OSError as trouble:
            # Once, not every two seconds: a full disk does not empty by being told about.
            if not self._troubled:
                self._say(f"the health of targets cannot be written: {trouble.strerror}")
            self._troubled = True


async def prober(
    health: Health,
    ask: Callable[[str], Awaitable[int | None]],
    *,
    look: float = LOOK_EVERY,
    pace: float = CHECK_EVERY,
    limit: float = CHECK_LIMIT,
) -> None:
    """Check open targets that nobody asks, so that one that is back is probed earlier. Until cancelled.

    Args:
        ask: one request to the target that costs no money (its list of models), and the status it answered with;
            `None` where there is no such request (local models have a supervisor). May raise `LumenError`, `OSError`.
        look, pace, limit: seconds between two looks, between two checks of one target, and that a check may take.
    """
    loop = asyncio.get_running_loop()
    checked: dict[str, float] = {}
    while True:
        await asyncio.sleep(look)
        now = loop.time()
        checked = {name: at for name, at in checked.items() if now - at < pace}
        due = [name for name in health.suspects(now) if name not in checked][:CHECKS_AT_ONCE]
        checked.update(dict.fromkeys(due, now))
        answered = await asyncio.gather(*(_answers(ask, name, limit) for name in due))
        for name, alive in zip(due, answered, strict=True):
            if alive:
                health.alive(name, loop.time())


async def _answers(ask: Callable[[str], Awaitable[int | None]], name: str, limit: float) -> bool:
    """Whether the target says anything that is not its own failure: also a refusal shows that it lives."""
    try:
        async with asyncio.timeout(limit):
            status = await ask(name)
    except (LumenError, OSError):
        return False
    return status is not None and status < 500

"""A JSON document that outlives the process: written whole, soon after it changed, or at once where that matters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lumen.files import write_atomic

# Seconds for which changes are gathered.
_SOON = 1.0
_MOST = 16 * 1024 * 1024


class Kept:
    """`dump`: makes the document, on the loop; it is written off the loop. `say`: tells of trouble, once."""

    def __init__(self, path: Path, dump: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> None:
        self._path = path
        self._dump = dump
        self._say = say
        self._timer: asyncio.TimerHandle | None = None
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._troubled = False

    def load(self) -> dict[str, Any]:
        """What an earlier process left; what cannot be read is set aside. Blocks."""
        try:
            if self._path.stat().st_size > _MOST:
                raise ValueError("too large")
            found = msgspec.json.decode(self._path.read_bytes())
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return {}
        except (ValueError, msgspec.MsgspecError) as error:
            aside = self._path.with_name(f"{self._path.name}.corrupt")
            self._path.replace(aside)
            self._say(f"what is tried on routes could not be read and was set aside as {aside.name}: {error}")
            return {}

    def soon(self) -> None:
        """It changed, and a second of it may be lost."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SOON, self._due)

    async def now(self) -> bool:
        """Write it; whether it is on the disk."""
        async with self._writing:
            data = msgspec.json.encode(self._dump())
            try:
                await asyncio.to_thread(write_atomic, self._path, data, mode=0o600)
            except OSError as error:
                if not self._troubled:
                    self._say(f"what is tried on routes cannot be written: {error.strerror}")
                self._troubled = True
                return False
            self._troubled = False
            return True

    async def close(self) -> None:
        """Write it a last time."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await self._task
        await self.now()

    def _due(self) -> None:
        self._timer = None
        self._task = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        await self.now()

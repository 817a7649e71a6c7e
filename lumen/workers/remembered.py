"""What is known of models from before, kept in a file. A lost file costs what was learned, nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path

from lumen.files import write_atomic
from lumen.workers import habits
from lumen.workers.habits import Habits

_logger = logging.getLogger(__name__)
_SAVE_EVERY = 60.0
_MAX_FILE = 16 * 1024 * 1024


class Remembered:
    """`models`: by name, filled by `start`. `path`: `None` remembers nothing beyond this process."""

    def __init__(self, path: Path | None) -> None:
        self.models: dict[str, Habits] = {}
        self._path = path
        self._saved: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file, and write it from now on whenever something was learned."""
        if self._path is None:
            return
        self.models.update(habits.load(await asyncio.to_thread(_read, self._path)))
        self._saved = self._dumped()
        self._task = asyncio.create_task(self._run(self._path), name="remembering")

    async def stop(self) -> None:
        """Write what is new."""
        if self._task is None or self._path is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._save(self._path)

    async def _run(self, path: Path) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            await self._save(path)

    async def _save(self, path: Path) -> None:
        text = self._dumped()
        if text == self._saved:
            return
        self._saved = text
        try:
            await asyncio.to_thread(write_atomic, path, text.encode(), mode=0o600)
        except OSError as trouble:
            _logger.warning("what was learned of models cannot be written: %s", trouble.strerror)

    def _dumped(self) -> str:
        return json.dumps(habits.dump(self.models), sort_keys=True)


def _read(path: Path) -> object:
    try:
        if path.stat().st_size <= _MAX_FILE:
            return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        _logger.warning("what was learned of models cannot be read and begins anew")
    return None

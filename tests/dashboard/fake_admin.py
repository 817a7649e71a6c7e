"""An admin API that says what a test wants, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning


class FakeAdmin(Admin):
    """`frames`: put one in to have it shown; `None` ends the connection. `calls`: what was asked.

    `refuses`: what every call comes to.
    """

    def __init__(self, *frames: dict[str, Any] | None) -> None:
        super().__init__(Path("/nowhere"))
        self.frames: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        for frame in frames:
            self.frames.put_nowait(frame)
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.refuses: CliError | None = None

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        while (frame := await self.frames.get()) is not None:
            yield frame
        raise NotRunning

    def get(self, path: str) -> Any:
        return self._told(path, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._told(path, body)

    def _told(self, path: str, body: dict[str, Any] | None) -> Any:
        self.calls.append((path, body))
        if self.refuses is not None:
            raise self.refuses
        return self.answers.get(path, {})

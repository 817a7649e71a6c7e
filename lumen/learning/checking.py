"""An operator's checker in a process of its own, which may take its time, hang or crash without harm to the gateway."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from lumen.learning.checks import CheckerError

# Seconds: for a checker to be loaded, and for one answer.
START = 20.0
EACH = 5.0
_LINE = 1024 * 1024


_T = TypeVar("_T")


class _Failed(Exception):
    """The checker failed at one answer."""


class Checking:
    """One checker. Its process starts with the first answer, and again after it ended. `close` it."""

    def __init__(self, written: str, *, each: float = EACH) -> None:
        self.written = written
        self._each = each
        self._process: asyncio.subprocess.Process | None = None
        self._closed = False
        self._turn = asyncio.Lock()

    async def rate(self, request: str, answer: str, incumbent: str) -> float:
        """How good an answer is, 0 to 1, perhaps beside what the incumbent said.

        Raises:
            CheckerError: it cannot be loaded, took too long, or failed; the text says which.
        """
        return await self._within(self._each if self._running else START, self._ask(request, answer, incumbent))

    async def ready(self) -> None:
        """Start its process, and see that the checker can be loaded.

        Raises:
            CheckerError: it cannot.
        """
        await self._within(START, self._start())

    async def _within(self, seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
        async with self._turn:
            try:
                async with asyncio.timeout(seconds):
                    return await work
            except TimeoutError:
                await self._end()
                raise CheckerError("the checker took too long and was stopped") from None
            except _Failed as error:
                raise CheckerError(str(error)) from None
            except (OSError, msgspec.MsgspecError, ValueError) as error:
                await self._end()
                raise CheckerError(str(error) or "the checker ended") from None
            except BaseException:
                # Half an answer would be taken for the next one's.
                await self._end()
                raise
            finally:
                work.close()

    async def close(self) -> None:
        """End its process for good: whoever asks it afterwards is told."""
        self._closed = True
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    @property
    def _running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _start(self) -> None:
        if self._closed:
            raise ValueError("the checker was closed")
        if not self._running:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lumen.learning.checker", self.written,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                limit=_LINE,
            )  # fmt: skip
            if self._closed:
                # While it was being started; whoever waits for it ends it.
                raise ValueError("the checker was closed")
            said = await self._line()
            if "ready" not in said:
                raise ValueError(said["error"])

    async def _ask(self, request: str, answer: str, incumbent: str) -> float:
        await self._start()
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode([request, answer, incumbent]) + b"\n")
        await self._process.stdin.drain()
        said = await self._line()
        if isinstance(said, dict):
            # Of this answer alone: the process goes on.
            raise _Failed(said["error"])
        return float(said)

    async def _line(self) -> Any:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ValueError("the checker ended")
        return msgspec.json.decode(line)

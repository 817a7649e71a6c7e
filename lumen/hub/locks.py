"""One download of a file at a time, across processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lumen.hub.errors import BusyError
from lumen.hub.part import journal_path, part_path

_POLL = 0.1


@asynccontextmanager
async def exclusive(target: Path, patience: float) -> AsyncIterator[bool]:
    """Hold the right to fetch `target`; yields whether it had to wait for somebody else.

    Waits as long as the other one gets on: until its part file stood still for `patience` seconds. The lock
    ends with the process that holds it; its empty file stays, since removing it would let two hold it.

    Raises:
        BusyError: another process holds the lock and fetches nothing.
        OSError: the folder cannot be written.
    """
    fd = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield await _take(fd, target, patience)
    finally:
        os.close(fd)


async def _take(fd: int, target: Path, patience: float) -> bool:
    waited, seen, since = False, _trace(target), time.monotonic()
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return waited
        except BlockingIOError:
            waited = True
        now, trace = time.monotonic(), _trace(target)
        if trace != seen:
            seen, since = trace, now
        elif now - since > patience:
            raise BusyError(f"another process fetches {target.name} but stands still; end it and pull again")
        await asyncio.sleep(_POLL)


def _trace(target: Path) -> tuple[int, ...]:
    """Changes whenever a download of `target` writes."""
    times = []
    for path in (part_path(target), journal_path(target), target):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:
            times.append(0)
    return tuple(times)

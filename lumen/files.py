"""Writing small files so that a crash or a second writer never leaves half of one."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK_WAIT = 10.0
_LOCK_POLL = 0.02


def write_atomic(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace `path` by `data` in one step: temporary file beside it, fsync, rename, fsync of the folder.

    `mode`: the file's permissions; `None` keeps those it has (0600 for a new file). A symbolic link is
    followed, so that a configuration kept elsewhere stays there.

    Raises:
        OSError: the folder cannot be written; the old file is untouched then.
    """
    target = path.resolve()
    if mode is None:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def locked(path: Path, *, wait: float = _LOCK_WAIT) -> Iterator[None]:
    """Hold the lock that belongs to `path` (`.NAME.lock` beside it) against other processes and threads.

    The lock file stays: removing it would let two holders lock two different files of the same name.

    Raises:
        TimeoutError: another process holds it for more than `wait` seconds.
    """
    target = path.resolve()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(handle, target, time.monotonic() + wait)
        yield
    finally:
        os.close(handle)


def _take(handle: int, target: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{target.name} is being changed by another process; try again") from None
            time.sleep(_LOCK_POLL)

"""The log file of a replica: written by the engine itself, kept small, read back when it crashes. Blocking."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

LARGEST = 10 * 1024 * 1024
SHOWN = 30
# Enough for the traces of several processes that fail one after the other: the cause stands in the first.
READ = 1000
_LINE_BYTES = 512
_CHUNK = 64 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def slug(model: str) -> str:
    """A model's name as part of a file name."""
    return _UNSAFE.sub("_", model).lstrip(".")[:64] or "model"


def log_path(log_dir: Path, model: str, index: int) -> Path:
    return log_dir / f"{slug(model)}-{index}.log"


def open_log(path: Path) -> tuple[int, int]:
    """(descriptor, offset of what comes now). Appending, so several writers and `trim` do not disturb it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    trim(path)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return log, os.fstat(log).st_size


def trim(path: Path, largest: int = LARGEST) -> bool:
    """Move a log that grew too large aside, keeping one older one; its writers go on undisturbed.

    The file is copied and emptied, not renamed: an engine holds it open for as long as it runs.
    """
    try:
        if path.stat().st_size <= largest:
            return False
        aside = path.with_name(f"{path.name}.new")
        shutil.copyfile(path, aside)
        aside.chmod(0o600)
        aside.replace(path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True


def tail(path: Path, since: int, lines: int = SHOWN) -> tuple[str, ...]:
    """The last `lines` written after offset `since`; bounded in bytes too, by half a kilobyte for each."""
    most = lines * _LINE_BYTES
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            # Trimmed meanwhile: everything there is newer.
            start = max(since if since <= size else 0, size - most)
            log.seek(start)
            text = log.read(most).decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def read_from(path: Path, offset: int) -> tuple[bytes, int]:
    """What was written after `offset`, at most 64 KiB of it, and the offset to go on from."""
    try:
        with path.open("rb") as log:
            # Trimmed meanwhile: it begins anew.
            log.seek(offset if offset <= log.seek(0, os.SEEK_END) else 0)
            data = log.read(_CHUNK)
            return data, log.tell()
    except OSError:
        return b"", offset

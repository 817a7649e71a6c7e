"""Rows of free requests on their way into the ledger, so that kill -9 does not lose them.

A commit for each of them would cost more than the rest of such a request. A line at the end of a file costs two
microseconds: what the operating system has taken over, the death of this process cannot undo. Many rows are
committed together a moment later, and their lines are then dropped; what a dead gateway left is taken over at the
next start. There are two files: one takes new lines while the rows of the other are being committed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from lumen.ledger.rows import AttemptRow

# More is not read back: as many rows as ever wait, at twice their usual size.
_MOST = 32 * 1024 * 1024
_encode = msgspec.json.Encoder().encode
_row = msgspec.json.Decoder(AttemptRow).decode


class Journal:
    """The two files beside the ledger at `path`. Nothing here raises: without them rows are only in memory."""

    def __init__(self, path: Path) -> None:
        self._files: tuple[int | None, ...] = tuple(_opened(one) for one in _paths(path))
        self._at = 0
        # A number that was closed may be another file's in the next moment: nothing is done to it while it is closed.
        self._lock = threading.Lock()

    def add(self, rows: Sequence[AttemptRow]) -> None:
        """Write these down; they survive kill -9 when this returns."""
        # A disk that is full may have taken half a line: the next one begins with the end of it.
        lines = b"".join([b"\n" + _encode(row) for row in rows]) + b"\n"
        with self._lock, suppress(OSError):
            if (file := self._files[self._at]) is not None:
                os.write(file, lines)

    def turn(self) -> int:
        """Write to the other file from now on; returns the one that has the lines so far."""
        at, self._at = self._at, 1 - self._at
        return at

    def clear(self, which: int) -> None:
        """The rows of that file are in the ledger."""
        with self._lock, suppress(OSError):
            if (file := self._files[which]) is not None:
                os.ftruncate(file, 0)

    def close(self) -> None:
        """What is in it stays there: the next start takes it over, or finds it in the ledger. Any thread may call."""
        with self._lock:
            for file in self._files:
                if file is not None:
                    os.close(file)
            self._files = (None, None)


def left(path: Path) -> list[AttemptRow]:
    """What the journal of the ledger at `path` holds, perhaps of rows that are in the ledger already. Blocks."""
    found = []
    for one in _paths(path):
        with suppress(OSError), one.open("rb") as file:
            for line in file.read(_MOST).split(b"\n"):
                # Half a line is of a request that nobody was told the end of.
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    found.append(_row(line))
    return found


def _paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-free0"), path.with_name(f"{path.name}-free1")


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        return None

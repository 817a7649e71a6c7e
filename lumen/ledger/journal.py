"""Rows of free requests on their way into the ledger, so that kill -9 does not lose them.

A commit for each of them would cost more than all else that is done for such a request, and a system call is not free
either. A mapped file takes a few microseconds and no call: what is in its pages is the operating system's, which the
death of this process cannot undo. Many rows are committed together a moment later, and their pages are then free
again; what a dead gateway left is taken over at the next start. There are two files: one takes rows while those of
the other are being committed.

A file is blocks: four bytes of length, then so many of JSON; a length of zero ends them. The length is written last, so
that half a block is none.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from lumen.ledger.rows import AttemptRow

# Bytes of one file: rows of several seconds under the heaviest load. What does not fit is only in memory until then.
SIZE = 2 * 1024 * 1024
_END = bytes(4)
_encode = msgspec.json.Encoder().encode
_rows = msgspec.json.Decoder(list[AttemptRow]).decode


class Journal:
    """The two files beside the ledger at `path`. Nothing here raises: without them rows are only in memory."""

    def __init__(self, path: Path) -> None:
        self._files = tuple(_mapped(one) for one in _paths(path))
        self._ends = [0, 0]
        self._at = 0
        for which in (0, 1):
            self.clear(which)

    def add(self, rows: Sequence[AttemptRow]) -> None:
        """Write these down; they survive kill -9 when this returns."""
        file, begin = self._files[self._at], self._ends[self._at]
        if file is None:
            return
        data = _encode(rows)
        end = begin + 4 + len(data)
        if end + 4 > SIZE:
            return
        # Closed by another thread at the end of the process: then there is nobody left to tell.
        with suppress(ValueError):
            file[begin + 4 : end + 4] = data + _END
            file[begin : begin + 4] = len(data).to_bytes(4, "little")
            self._ends[self._at] = end

    def turn(self) -> int:
        """Write to the other file from now on; returns the one that has the rows so far."""
        at, self._at = self._at, 1 - self._at
        return at

    def clear(self, which: int) -> None:
        """The rows of that file are in the ledger."""
        file = self._files[which]
        if file is not None:
            with suppress(ValueError):
                file[:4] = _END
                self._ends[which] = 0

    def close(self) -> None:
        """What is in it stays there: the next start takes it over, or finds it in the ledger. Any thread may call."""
        for file in self._files:
            if file is not None:
                file.close()


def left(path: Path) -> list[AttemptRow]:
    """What the journal of the ledger at `path` holds, perhaps of rows that are in the ledger already. Blocks."""
    found: list[AttemptRow] = []
    for one in _paths(path):
        with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), one.open("rb") as file:
            data, at = file.read(SIZE), 0
            while size := int.from_bytes(data[at : at + 4], "little"):
                found += _rows(data[at + 4 : at + 4 + size])
                at += 4 + size
    return found


def _paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-free0"), path.with_name(f"{path.name}-free1")


def _mapped(path: Path) -> mmap.mmap | None:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # All of it now: a page that the disk has no room for would end the process when it is written to.
            os.posix_fallocate(file, 0, SIZE)
            return mmap.mmap(file, SIZE)
        finally:
            os.close(file)
    except OSError:
        return None

"""What a gateway writes down when another one keeps the ledger already: it finishes requests, the other one commits.

Mapped files as those of `journal.py`, so that a record survives kill -9 when `add` returns, and nobody waits for the
other process. They are numbered `-old0`, `-old1` …: where one is full the next is made. The first records are the holds
of all that is under way, so these files alone tell how it ended. The other gateway reads them as they grow, and removes
them once this one has ended and all of it is committed; where either is killed, the next opening takes them over.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

from lumen.ledger.journal import BEGIN, SIZE, Record, handed, mapped, put, taken


class Outbox:
    """The writing end.

    Raises:
        OSError: there is no room, or files of an earlier gateway are still there.
    """

    def __init__(self, path: Path) -> None:
        if handed(path):
            raise FileExistsError("what an earlier gateway handed on is not committed yet")
        self._path = path
        self._number = 0
        self._file = mapped(_named(path, 0))
        self._end = BEGIN

    def add(self, record: Record) -> bool:
        """Write this down; it survives kill -9 when this returns `True`. `False`: there is no room on the disk."""
        end = put(self._file, self._end, record)
        if end is None:
            try:
                fresh = mapped(_named(self._path, self._number + 1))
            except OSError:
                return False
            self._file.close()
            self._number, self._file = self._number + 1, fresh
            end = put(fresh, BEGIN, record)
            if end is None:
                return False
        self._end = end
        return True

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        """It is not needed after all. Blocks."""
        self.close()
        discard(self._path)


class Inbox:
    """The reading end, in another process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._at = BEGIN
        self._file: mmap.mmap | None = None

    def read(self) -> list[Record]:
        """What was written since the last time."""
        found: list[Record] = []
        while self._open():
            assert self._file is not None
            # Looked for first: whoever begins a file writes no more to the one before.
            more = _named(self._path, self._number + 1).exists()
            records, self._at = taken(self._file, self._at)
            found += records
            if not more:
                break
            self.close()
            self._number, self._at = self._number + 1, BEGIN
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """All of it is committed, and nothing more will come. Blocks."""
        self.close()
        discard(self._path)

    def _open(self) -> bool:
        if self._file is None:
            with suppress(OSError, ValueError):
                file = os.open(_named(self._path, self._number), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self._file = mmap.mmap(file, SIZE, prot=mmap.PROT_READ)
                finally:
                    os.close(file)
        return self._file is not None


def discard(path: Path) -> None:
    """Remove what gateways before this one handed on, which is in the ledger at `path` now. Blocks."""
    for one in handed(path):
        one.unlink(missing_ok=True)


def _named(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-old{number}")

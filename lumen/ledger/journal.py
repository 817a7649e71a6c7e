"""What is on its way into the ledger, so that kill -9 does not lose it and nobody waits for a commit.

A commit for each request would cost more than all else that is done for it, and a system call is not free either. A
mapped file takes a few microseconds and no call: what is in its pages is the operating system's, which the death of
this process cannot undo. Many records are committed together a moment later, and their pages are then free again; what
a dead gateway left is taken over at the next start. There are two files: one takes records while those of the other
are being committed.

A file is eight bytes that number it among those that took turns, and blocks: four bytes of length, four of CRC-32, then
so many of MessagePack; a length of zero ends them. The length is written last, so that half a block is none; the sum
tells pages that a loss of power took back.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import msgspec

from lumen.ledger.rows import AttemptRow, HoldRow

# Bytes of one file: records of several seconds under the heaviest load.
SIZE = 2 * 1024 * 1024
_NUMBER = 8
_FRAME = 8
_END = bytes(4)
_FILES = 2


class Record(msgspec.Struct, array_like=True, gc=False):
    """One thing that happened; what it has of these happens in this order.

    `hold`: money is set aside. `known`: what is charged for requests under way should this process die (pico-dollars,
    request). `rows`: tries that are over. `drop`: the request whose hold ends.
    """

    hold: HoldRow | None = None
    rows: list[AttemptRow] = []
    drop: str | None = None
    known: list[tuple[int, str]] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Journal:
    """The two files beside the ledger at `path`, emptied.

    Raises:
        OSError: they cannot be made, or there is no room for them.
    """

    def __init__(self, path: Path) -> None:
        self._files = tuple(_mapped(one) for one in _paths(path))
        self._ends = [_NUMBER] * _FILES
        self._at = 0
        self._number = 0
        for which in range(_FILES):
            self.clear(which)
        self._begin()

    @property
    def roomy(self) -> bool:
        """Whether there is room for what is new, beside the ends of what has begun."""
        return self._ends[self._at] < SIZE // 2

    def add(self, record: Record) -> bool:
        """Write this down; it survives kill -9 when this returns `True`. `False`: there is no room."""
        file, begin = self._files[self._at], self._ends[self._at]
        data = _encode(record)
        end = begin + _FRAME + len(data)
        if end + len(_END) > SIZE:
            return False
        try:
            file[begin + _FRAME : end + len(_END)] = data + _END
            file[begin : begin + _FRAME] = (crc32(data) << 32 | len(data)).to_bytes(_FRAME, "little")
        except ValueError:
            # Closed, at the end of the process.
            return False
        self._ends[self._at] = end
        return True

    def turn(self) -> int:
        """Write to the other file from now on, which is empty; returns the one that has the records so far."""
        at, self._at = self._at, 1 - self._at
        self._begin()
        return at

    def clear(self, which: int) -> None:
        """The records of that file are in the ledger."""
        # Closed by another thread at the end of the process: then there is nobody left to tell.
        with suppress(ValueError):
            self._files[which][_NUMBER : _NUMBER + len(_END)] = _END
            self._ends[which] = _NUMBER

    def close(self) -> None:
        """What is in it stays there: the next start takes it over, or finds it in the ledger. Any thread may call."""
        for file in self._files:
            file.close()

    def _begin(self) -> None:
        self._number += 1
        with suppress(ValueError):
            self._files[self._at][:_NUMBER] = self._number.to_bytes(_NUMBER, "little")


def left(path: Path) -> list[Record]:
    """What the journal of the ledger at `path` holds, in order, perhaps of what is in the ledger already. Blocks."""
    files: list[tuple[int, list[Record]]] = []
    for one in _paths(path):
        with suppress(OSError):
            data = one.read_bytes()[:SIZE]
            files.append((int.from_bytes(data[:_NUMBER], "little"), _records(data)))
    files.sort(key=lambda file: file[0])
    return [record for _, records in files for record in records]


def _records(data: bytes) -> list[Record]:
    """The whole blocks of a file, up to the first that is none."""
    found, at = [], _NUMBER
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        while size := int.from_bytes(data[at : at + 4], "little"):
            body = data[at + _FRAME : at + _FRAME + size]
            if len(body) < size or crc32(body) != int.from_bytes(data[at + 4 : at + _FRAME], "little"):
                break
            found.append(_decode(body))
            at += _FRAME + size
    return found


def _paths(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}-new{which}") for which in range(_FILES)]


def _mapped(path: Path) -> mmap.mmap:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # All of it now: a page that the disk has no room for would end the process when it is written to.
        os.posix_fallocate(file, 0, SIZE)
        return mmap.mmap(file, SIZE)
    finally:
        os.close(file)

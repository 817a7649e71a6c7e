"""What is on its way into the ledger, so that kill -9 does not lose it and nobody waits for a commit.

A commit for each request would cost more than all else that is done for it, and a system call is not free either. A
mapped file takes a few microseconds and no call: what is in its pages is the operating system's, which the death of
this process cannot undo. Many records are committed together a moment later, and their pages are then free again; what
a dead gateway left is taken over at the next start. There are two files: one takes records while those of the other
are being committed.

A file is eight bytes that number it among those that took turns, and blocks: four bytes of length, four of CRC-32, then
so many of MessagePack; a length of zero ends them. The length is written last, so that half a block is none; the sum
tells pages that a loss of power took back.

A gateway that another one has taken over from writes into files of its own, see `outbox.py`.
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
# Where the blocks begin, after the number.
BEGIN = 8
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
        self._files = tuple(mapped(one) for one in _paths(path))
        self._ends = [BEGIN] * _FILES
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
        end = put(self._files[self._at], self._ends[self._at], record)
        if end is None:
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
            self._files[which][BEGIN : BEGIN + len(_END)] = _END
            self._ends[which] = BEGIN

    def close(self) -> None:
        """What is in it stays there: the next start takes it over, or finds it in the ledger. Any thread may call."""
        for file in self._files:
            file.close()

    def _begin(self) -> None:
        self._number += 1
        with suppress(ValueError):
            self._files[self._at][:BEGIN] = self._number.to_bytes(BEGIN, "little")


def put(file: mmap.mmap, begin: int, record: Record) -> int | None:
    """Write a record into a mapped file; where the next one begins. `None`: there is no room, or it is closed."""
    data = _encode(record)
    end = begin + _FRAME + len(data)
    if end + len(_END) > SIZE:
        return None
    try:
        file[begin + _FRAME : end + len(_END)] = data + _END
        file[begin : begin + _FRAME] = (crc32(data) << 32 | len(data)).to_bytes(_FRAME, "little")
    except ValueError:
        # Closed, at the end of the process.
        return None
    return end


def taken(data: bytes | mmap.mmap, at: int = 0) -> tuple[list[Record], int]:
    """The whole blocks of a file from `at` on, up to the first that is none, and where that would be."""
    found, at = list[Record](), at or BEGIN
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        while size := int.from_bytes(data[at : at + 4], "little"):
            body = data[at + _FRAME : at + _FRAME + size]
            if len(body) < size or crc32(body) != int.from_bytes(data[at + 4 : at + _FRAME], "little"):
                break
            found.append(_decode(body))
            at += _FRAME + size
    return found, at


def left(path: Path, *, handed_on: bool = True) -> list[Record]:
    """What stands beside the ledger at `path`, in order for each request, perhaps in the ledger already. Blocks.

    `handed_on`: with that of a gateway which another one has taken over from.
    """
    files: list[tuple[int, list[Record]]] = []
    for one in _paths(path):
        with suppress(OSError):
            data = one.read_bytes()[:SIZE]
            files.append((int.from_bytes(data[:BEGIN], "little"), taken(data)[0]))
    files.sort(key=lambda file: file[0])
    found = [record for _, records in files for record in records]
    for one in handed(path) if handed_on else ():
        with suppress(OSError):
            found += taken(one.read_bytes()[:SIZE])[0]
    return found


def handed(path: Path) -> list[Path]:
    """The files of a gateway that another one has taken over from, the oldest first; see `outbox.py`."""
    start = f"{path.name}-old"
    with suppress(OSError):
        named = ((one, one.name.removeprefix(start)) for one in path.parent.iterdir() if one.name.startswith(start))
        numbers = {int(number): one for one, number in named if number.isdecimal()}
        return [numbers[number] for number in sorted(numbers)]
    return []


def _paths(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}-new{which}") for which in range(_FILES)]


def mapped(path: Path) -> mmap.mmap:
    """A file of `SIZE` bytes, made where it is not there. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # All of it now: a page that the disk has no room for would end the process when it is written to.
        os.posix_fallocate(file, 0, SIZE)
        return mmap.mmap(file, SIZE)
    finally:
        os.close(file)

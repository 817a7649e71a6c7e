"""Which pieces of a half-finished download are safely on the disk.

A download writes into `<name>.part`; beside it `<name>.part.journal` holds one JSON line that says what is
being fetched, then one line for each finished piece. A piece is marked only after its bytes were synced, so
after a power cut or `kill -9` everything the journal names is really there. A torn last line is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lumen.files import write_atomic

_VERSION = 1
_LARGEST = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Header:
    """What is being fetched. Two runs with different headers never share a part file."""

    size: int
    piece: int
    digest: str | None
    etag: str | None

    @property
    def pieces(self) -> int:
        return -(-self.size // self.piece)

    def length(self, index: int) -> int:
        """Bytes of one piece; the last one is shorter."""
        return min(self.piece, self.size - index * self.piece)

    def fits(self, other: Header) -> bool:
        """Whether pieces fetched under `other` are pieces of this file, by digest or else by ETag."""
        if (self.size, self.piece) != (other.size, other.piece):
            return False
        if self.digest or other.digest:
            return self.digest == other.digest
        return self.etag is not None and self.etag == other.etag


def spans(done: set[int], count: int, longest: int) -> Iterator[range]:
    """Runs of missing pieces in file order, none longer than `longest` pieces. Pure."""
    start = 0
    while start < count:
        if start in done:
            start += 1
            continue
        end = start
        while end < count and end not in done and end - start < longest:
            end += 1
        yield range(start, end)
        start = end


def decode(text: bytes) -> tuple[Header, set[int]] | None:
    """Header and finished pieces of a journal; `None` if it is no journal of this version. Pure."""
    lines = text.split(b"\n")
    try:
        head = json.loads(lines[0])
        if not isinstance(head, dict) or head.pop("version", None) != _VERSION:
            return None
        header = Header(**head)
    except (ValueError, TypeError):
        return None
    if not _sound(header):
        return None
    # What follows the last line break was torn off by a crash.
    marked = {int(line) for line in lines[1:-1] if line.isdigit() and len(line) < 12}
    return header, {index for index in marked if index < header.pieces}


def _sound(header: Header) -> bool:
    numbers = isinstance(header.size, int) and isinstance(header.piece, int)
    texts = all(value is None or isinstance(value, str) for value in (header.digest, header.etag))
    return numbers and texts and header.size > 0 and header.piece > 0


class Journal:
    """The journal of one part file, open for appending. Not shared between processes: hold the lock first."""

    def __init__(self, path: Path, header: Header) -> None:
        self.header = header
        self.done: set[int] = set()
        self._path = path
        self._file: int | None = None

    @property
    def bytes_done(self) -> int:
        return sum(self.header.length(index) for index in self.done)

    def open(self, part: Path) -> None:
        """Take over what an earlier run finished, or begin afresh with both files empty.

        Raises:
            OSError: the files cannot be written.
        """
        earlier = self._read()
        if earlier is not None and self.header.fits(earlier[0]) and part.is_file():
            self.done = earlier[1]
            write_atomic(self._path, _encode(self.header, self.done))
        else:
            part.unlink(missing_ok=True)
            self.done = set()
            write_atomic(self._path, _encode(self.header, self.done))
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def mark(self, index: int) -> None:
        """Record a piece. Its bytes must have been synced already."""
        if self._file is None:
            raise RuntimeError("the journal is not open")
        os.write(self._file, b"%d\n" % index)
        os.fsync(self._file)
        self.done.add(index)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read(self) -> tuple[Header, set[int]] | None:
        try:
            with self._path.open("rb") as file:
                return decode(file.read(_LARGEST))
        except FileNotFoundError:
            return None


def _encode(header: Header, done: set[int]) -> bytes:
    head = json.dumps({"version": _VERSION, **asdict(header)})
    return (head + "\n" + "".join(f"{index}\n" for index in sorted(done))).encode()

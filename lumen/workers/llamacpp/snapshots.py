"""Computed prefixes on a disk, so that the first request after a restart need not compute them again.

A file holds one sequence: its tokens, its salt, the bytes of its cells, and a digest of all of these. It is written
beside its place and renamed, so that no end, however sudden, leaves half of one; what a power cut tears the digest
finds out. A file is of use only to a worker of the same fingerprint, which covers the model's file, the version of the
engine and whatever decides how cells look; one of another is deleted when it is found, and so is what nobody has used
for a week. The processes of one model share a folder, and find what the others leave there.

The folder is held open: once it is deleted, because nothing may be kept any more, nothing can be written into it.
"""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

State = NDArray[np.uint8]

LEAST = 64
"""Shorter sequences are as soon computed as read."""

SECONDS = 4.0
"""Of one saving; what has not been begun by then is left out."""

_MAGIC = b"LUMENKV1"
_MOST_HEADER = 1 << 16
_MOST_FILES = 256
_OLD = 7 * 86400.0
_HALF = 60.0
"""Seconds after which what is being written is not being written any more."""

_SAMPLES = 256
_SAMPLE = 1 << 16


class _Header(msgspec.Struct):
    fingerprint: str
    salt: str
    tokens: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A sequence on the disk; `digest` has been compared with nothing yet."""

    name: str
    tokens: list[int]
    salt: str
    size: int  # bytes of its cells
    digest: str
    used: float  # Unix seconds


class Snapshots:
    """The files of one model under `root`, at most `limit` bytes. `open` first. Not thread-safe."""

    def __init__(self, root: Path, name: str, limit: int, fingerprint: Callable[[], str]) -> None:
        """`fingerprint` may take a while: it is asked once, by `open`."""
        self._root = root
        self._path = root / hashlib.sha256(name.encode()).hexdigest()[:24]
        self._limit = limit
        self._ask = fingerprint
        self._fingerprint = ""
        self._folder = -1
        self._seen = -1  # when the folder was changed last, as far as it is known
        self._known: set[str] = set()

    @property
    def count(self) -> int:
        """How many files there are, as far as it is known."""
        return len(self._known)

    def open(self) -> list[Kept]:
        """Have the folder, and what there is in it for this worker; see `news`. Deletes what is of no use to anybody.

        Raises:
            OSError: the folder cannot be used.
        """
        self._fingerprint = self._ask()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.mkdir(mode=0o700, exist_ok=True)
        self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._folder)
        now = time.time()
        for path in self._root.glob("*/*"):
            with suppress(FileNotFoundError):  # another replica's, and gone by now
                if now - path.stat().st_mtime > (_OLD if path.suffix == ".kv" else _HALF):
                    path.unlink()
        return self.news()

    def changed(self) -> bool:
        """Whether somebody else has written or deleted since `news` was asked last."""
        return os.fstat(self._folder).st_mtime_ns != self._seen

    def news(self) -> list[Kept]:
        """What is there now and was not, the longest unused first. Deletes what no worker of this fingerprint wrote.

        Raises:
            OSError: the folder cannot be read.
        """
        self._seen = os.fstat(self._folder).st_mtime_ns
        there = set(self._names())
        found = []
        for name in there - self._known:
            with suppress(FileNotFoundError):
                one = self._head(name)
                if one is not None:
                    found.append(one)
                else:
                    there.discard(name)
                    os.unlink(name, dir_fd=self._folder)
        self._known = there
        return sorted(found, key=_used)[-_MOST_FILES:]

    def fetch(self, kept: Kept) -> State | None:
        """The cells; `None` where the file is gone, or not what it was, which deletes it."""
        try:
            with os.fdopen(os.open(kept.name, os.O_RDONLY, dir_fd=self._folder), "rb") as file:
                data = file.read()
        except OSError:
            return None
        state = np.frombuffer(data, np.uint8)[-kept.size :] if 0 < kept.size <= len(data) else None
        if state is None or _digest(self._fingerprint, kept.salt, kept.tokens, state) != kept.digest:
            with suppress(OSError):
                os.unlink(kept.name, dir_fd=self._folder)
            return None
        with suppress(OSError):
            os.utime(kept.name, dir_fd=self._folder)
        return state

    def save(self, entries: Iterable[tuple[Sequence[int], str, Callable[[], State | None]]]) -> None:
        """Write (tokens, salt, cells) each, the hottest first, until the bytes or the time are used up.

        Cells are asked for only of what is not on the disk yet; `None` is left out.

        Raises:
            OSError: they cannot be written; those before are.
        """
        deadline, now = time.monotonic() + SECONDS, time.time_ns()
        total = 0
        there: set[str] = set()
        for rank, (tokens, salt, cells) in enumerate(entries):
            if len(there) >= _MOST_FILES or time.monotonic() > deadline:
                break
            name = f"{_name(self._fingerprint, salt, tokens)}.kv"
            size = self._size(name) or self._put(name, tokens, salt, cells(), total, there)
            if not size or total + size > self._limit:
                continue
            with suppress(FileNotFoundError):  # deleted by another replica, which needed the room
                os.utime(name, ns=(now, now - 1000 * rank), dir_fd=self._folder)
                total += size
                there.add(name)
        self._make_room(total, there)
        self._known |= there
        self._seen = os.fstat(self._folder).st_mtime_ns

    def _names(self) -> list[str]:
        with os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if entry.name.endswith(".kv")]

    def _size(self, name: str) -> int:
        """Bytes of a file; 0: it is not there."""
        try:
            return os.stat(name, dir_fd=self._folder).st_size
        except FileNotFoundError:
            return 0

    def _put(
        self, name: str, tokens: Sequence[int], salt: str, state: State | None, taken: int, staying: set[str]
    ) -> int:
        """Write a new file where there is room for it; returns its bytes, 0 where it was left out."""
        if state is None:
            return 0
        digest = _digest(self._fingerprint, salt, tokens, state)
        head = msgspec.json.encode(_Header(self._fingerprint, salt, len(tokens), state.nbytes, digest))
        begin = _MAGIC + len(head).to_bytes(4, "little") + head + np.asarray(tokens, "<i4").tobytes()
        size = len(begin) + state.nbytes
        if taken + size > self._limit:
            return 0
        self._make_room(taken + size, staying)
        part = f"{name}.{os.getpid()}"
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(begin)
                file.write(state.data)
            os.rename(part, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=self._folder)
            raise
        return size

    def _make_room(self, taken: int, staying: set[str]) -> None:
        """Delete other files, the longest unused first, until all fits into the limit."""
        others = []
        for name in self._names():
            if name not in staying:
                with suppress(FileNotFoundError):
                    told = os.stat(name, dir_fd=self._folder)
                    others.append((told.st_mtime_ns, told.st_size, name))
        left = self._limit - taken
        for _, size, name in sorted(others, reverse=True):
            left -= size
            if left < 0:
                self._known.discard(name)
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._folder)

    def _head(self, name: str) -> Kept | None:
        """What a file says of itself; `None` where it is not one, or of another fingerprint."""
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=self._folder), "rb") as file:
            told = os.fstat(file.fileno())
            start = file.read(len(_MAGIC) + 4)
            length = int.from_bytes(start[len(_MAGIC) :], "little")
            if start[: len(_MAGIC)] != _MAGIC or length > _MOST_HEADER:
                return None
            try:
                head = msgspec.json.decode(file.read(length), type=_Header)
            except msgspec.MsgspecError:
                return None
            whole = len(start) + length + 4 * head.tokens + head.size
            if head.fingerprint != self._fingerprint or head.tokens < 1 or whole != told.st_size:
                return None
            tokens: list[int] = np.frombuffer(file.read(4 * head.tokens), "<i4").tolist()
        return Kept(name, tokens, head.salt, head.size, head.digest, told.st_mtime)


def _digest(fingerprint: str, salt: str, tokens: Sequence[int], state: State) -> str:
    digest = hashlib.sha256(_name(fingerprint, salt, tokens).encode())
    digest.update(state.data)
    return digest.hexdigest()


def _name(fingerprint: str, salt: str, tokens: Sequence[int]) -> str:
    digest = hashlib.sha256(f"{fingerprint}\0{salt}\0".encode())
    digest.update(np.asarray(tokens, "<i4").tobytes())
    return digest.hexdigest()


def _used(kept: Kept) -> float:
    return kept.used


def model_digest(path: Path) -> str:
    """Of a model's file: all of it where it is small, else of samples all over it, its size and when it was changed."""
    told = path.stat()
    digest = hashlib.sha256(str(told.st_size).encode())
    with path.open("rb") as file:
        if told.st_size <= _SAMPLES * _SAMPLE:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(str(told.st_mtime_ns).encode())
        for sample in range(_SAMPLES):
            file.seek(sample * (told.st_size - _SAMPLE) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()

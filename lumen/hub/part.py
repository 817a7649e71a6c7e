"""A file that is being fetched: its pieces on the disk, its running digest, its place when it is whole.

Disk work runs on threads of this file's own, so that closing waits for writes that a cancelled task left behind
and a descriptor is never closed, and reused, under a write.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lumen.hub.errors import BadModelFileError, DigestError
from lumen.hub.journal import Header, Journal

Result = TypeVar("Result")
_READ = 1 << 20


def digests_of(path: Path, size: int) -> tuple[str, str]:
    """(SHA-256, git's SHA-1 of the blob) of a file of `size` bytes, in hex. Reads it whole."""
    sha256, git = hashlib.sha256(), _git_hash(size)
    with path.open("rb") as file:
        while chunk := file.read(_READ):
            sha256.update(chunk)
            git.update(chunk)
    return sha256.hexdigest(), git.hexdigest()


def part_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def journal_path(target: Path) -> Path:
    return target.with_name(target.name + ".part.journal")


def bytes_here(target: Path, size: int) -> int:
    """Bytes of a file of `size` bytes that take up the disk already, whole or in part."""
    for path in (target, part_path(target)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        return min(size, found.st_blocks * 512)  # a part file has holes
    return 0


def discard(target: Path) -> None:
    """Forget a half-finished download of `target`."""
    part_path(target).unlink(missing_ok=True)
    journal_path(target).unlink(missing_ok=True)


class PartFile:
    """`target`'s part file. One task reads, several write; close it whatever happens."""

    def __init__(self, target: Path, header: Header, threads: int) -> None:
        self.target = target
        self.header = header
        self.journal = Journal(journal_path(target), header)
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()
        self._git = _git_hash(header.size) if (header.digest or "").startswith("git-sha1:") else None
        self._hashed = 0
        self._fd = -1
        self._pool = ThreadPoolExecutor(threads + 1, thread_name_prefix="lumen-pull")

    def open(self) -> None:
        """Take over an earlier run's pieces, or begin empty."""
        self.journal.open(part_path(self.target))
        self._fd = os.open(part_path(self.target), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Wait for writes under way, then let go of the files. The part stays for a later run."""
        self._pool.shutdown(wait=True)
        self.journal.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def commit(self, index: int, data: bytes | bytearray) -> None:
        """Write one piece, sync it, and only then mark it.

        Raises:
            BadModelFileError: it is the first piece of a GGUF file, and none begins like this.
            OSError: the disk is full or broken.
        """
        if index == 0 and self.target.suffix.lower() == ".gguf" and bytes(data[:4]) != b"GGUF":
            raise BadModelFileError("the server did not send a GGUF model file; check the address")
        await self._run(lambda: self._commit(index, data))

    async def follow(self) -> None:
        """Hash the finished pieces that directly follow what is hashed already. One caller at a time."""
        while self._hashed in self.journal.done:
            index = self._hashed
            await self._run(lambda: self._hash(index))  # noqa: B023 - awaited before index changes
            self._hashed += 1

    async def finish(self) -> str:
        """Check the digest that the header promises, if any, and put the file in its place. Returns its SHA-256.

        Raises:
            DigestError: the bytes are not the promised ones; they are deleted.
        """
        await self.follow()
        if self._hashed != self.header.pieces:
            raise RuntimeError("finish() before every piece was there")
        sha256 = self._sha256.hexdigest()
        actual = f"git-sha1:{self._git.hexdigest()}" if self._git is not None else f"sha256:{sha256}"
        if self.header.digest not in (None, actual):
            discard(self.target)
            raise DigestError(
                f"{self.target.name} does not match its digest: expected {_short(self.header.digest)}, "
                f"got {_short(actual)}; the download was deleted; pull again, and if it happens again "
                "tell the model's publisher"
            )
        await self._run(self._place)
        return sha256

    def _commit(self, index: int, data: bytes | bytearray) -> None:
        view, offset = memoryview(data), index * self.header.piece
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written
        os.fdatasync(self._fd)
        with self._lock:
            self.journal.mark(index)

    def _hash(self, index: int) -> None:
        offset, left = index * self.header.piece, self.header.length(index)
        while left:
            chunk = os.pread(self._fd, min(_READ, left), offset)
            if not chunk:
                raise OSError(f"{part_path(self.target).name} is shorter than its journal says")
            self._sha256.update(chunk)
            if self._git is not None:
                self._git.update(chunk)
            offset, left = offset + len(chunk), left - len(chunk)

    def _place(self) -> None:
        os.ftruncate(self._fd, self.header.size)
        os.fsync(self._fd)
        part_path(self.target).replace(self.target)
        folder = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        journal_path(self.target).unlink(missing_ok=True)

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _git_hash(size: int) -> hashlib._Hash:
    # Git names a blob by this; it guards against damage here, not against an attacker.
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _short(digest: str | None) -> str:
    return f"{(digest or '').partition(':')[2][:12]}…"

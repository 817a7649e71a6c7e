"""Fetches one file: in parallel ranges, resumed where an earlier run ended, verified, put in place in one step.

    lock → probe (ranges? size? same file?) → disk space → spans of pieces over a few connections → digest → rename

A span is what one request asks for, a piece what the journal remembers. Pieces are handed out in file order,
so the digest is computed right behind them instead of in a second pass.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from lumen.hub import part as parts
from lumen.hub.errors import AccessError, DigestError, MissingError, NetworkError, SpaceError
from lumen.hub.journal import Header, spans
from lumen.hub.locks import exclusive
from lumen.hub.part import PartFile
from lumen.hub.progress import Meter
from lumen.hub.transport import Opened, RetryableError, describe, host, open_file
from lumen.hub.wanted import ChangedError, Cursor, Fetched, Limits, Wanted

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")
_CHUNK = 64 * 1024
_MUCH = 64 * 1024  # bytes that make a broken try count as progress


def require_space(what: str, missing: int, spare: int, free: int) -> None:
    """Raise SpaceError where `missing` bytes, and `spare` to leave alone, do not fit into `free`."""
    if missing > 0 and missing + spare > free:
        raise SpaceError(
            f"{what} needs {_mib(missing + spare)} more on the disk and {_mib(free)} are free; "
            "make room (`lumen rm`) or set LUMEN_HOME to a larger disk"
        )


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class Download:
    """One file's download; `run` may be called once."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        wanted: Wanted,
        meter: Meter,
        *,
        connections: int = 4,
        limits: Limits | None = None,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._http = http
        self._wanted = wanted
        self._meter = meter
        self._connections = max(1, connections)
        self._limits = limits or Limits()
        self._free = free
        self._direct: str | None = None  # where the hub's redirect led; signed, so it may expire
        self._etag: str | None = None
        self._watch_etag = True
        self._counted = 0

    async def run(self) -> Fetched:
        """Fetch the file, or find it here already.

        Raises:
            HubError: in all its kinds; what was fetched stays for the next try except after a wrong digest.
            OSError: the disk cannot be written.
        """
        target = self._wanted.target
        await asyncio.to_thread(target.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        async with exclusive(target, self._limits.patience) as waited:
            here = await self._already_here(waited)
            if here is not None:
                return here
            for restart in range(self._limits.restarts + 1):
                # A promised digest has the last word: servers behind one name may disagree about ETags.
                self._watch_etag = restart < self._limits.restarts or self._wanted.digest is None
                try:
                    return await self._once()
                except ChangedError:
                    self._forget()
                    await asyncio.to_thread(parts.discard, target)
            raise NetworkError(f"{target.name} changes on the server while it is fetched; pull again later")

    async def _already_here(self, trusted: bool) -> Fetched | None:
        """The file, if it is in its place and right. `trusted`: another process finished it just now."""
        wanted = self._wanted
        if not wanted.target.is_file() or (wanted.digest is None and not trusted):
            return None
        size = wanted.target.stat().st_size
        if wanted.size not in (None, size):
            return None
        sha256, git = await asyncio.to_thread(parts.digests_of, wanted.target, size)
        if wanted.digest not in (None, f"sha256:{sha256}", f"git-sha1:{git}"):
            return None
        self._count(size, already=True)
        return Fetched(wanted.target, size, sha256, None)

    async def _once(self) -> Fetched:
        opened = await self._patiently(lambda: self._open("bytes=0-0"))
        response = opened.response
        try:
            total = self._total(opened)
            self._etag = _strong(response.headers.get("ETag"))
            ranged = response.status == 206
            if total is None:
                raise NetworkError(f"{host(self._wanted.url)} does not say how large the file is; use another address")
            header = Header(total, self._limits.piece, self._wanted.digest, self._etag)
            if not ranged:
                await asyncio.to_thread(parts.discard, self._wanted.target)
            part = PartFile(self._wanted.target, header, self._connections)
            try:
                await asyncio.to_thread(part.open)
                self._check_space(part)
                if ranged:
                    response.close()
                    await self._in_ranges(part)
                else:
                    await self._in_one(part, response)
                sha256 = await part.finish()
            finally:
                await asyncio.shield(asyncio.to_thread(part.close))
        finally:
            response.close()
        return Fetched(self._wanted.target, total, sha256, self._etag)

    def _total(self, opened: Opened) -> int | None:
        """The file's size, held against what was promised before anything is written."""
        headers = opened.response.headers
        found = _RANGE.match(headers.get("Content-Range", "")) if opened.response.status == 206 else None
        length = headers.get("Content-Length", "")
        total = int(found.group(3)) if found else int(length) if length.isdigit() else None
        if opened.response.status == 416 or (opened.response.status == 206 and not found) or total == 0:
            raise NetworkError(f"{host(opened.url)} has an empty file or does not understand ranges")
        for said in (self._wanted.size, opened.linked_size):
            if said is not None and total is not None and said != total:
                raise DigestError(f"{self._wanted.target.name} should be {said} bytes but the server has {total}")
        kind, _, digest = (self._wanted.digest or "").partition(":")
        linked = (opened.linked_etag or "").strip('"')
        if kind == "sha256" and re.fullmatch(r"[0-9a-f]{64}", linked) and linked != digest:
            raise DigestError(f"{self._wanted.target.name}: the server has another digest than was promised")
        return total

    def _check_space(self, part: PartFile) -> None:
        done = part.journal.bytes_done
        self._count(done, already=True)
        missing, target = part.header.size - done, self._wanted.target
        require_space(target.name, missing, self._limits.spare, self._free(target.parent))

    async def _in_ranges(self, part: PartFile) -> None:
        missing = part.header.pieces - len(part.journal.done)
        longest = max(1, min(self._limits.span, -(-missing // self._connections)))
        queue = deque(spans(part.journal.done, part.header.pieces, longest))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._connections, len(queue))):
                    group.create_task(self._drain(part, queue))
                group.create_task(self._hash_behind(part))
        except BaseExceptionGroup as failed:
            raise _first(failed) from failed

    async def _drain(self, part: PartFile, queue: deque[range]) -> None:
        while queue:
            await self._span(part, queue.popleft())

    async def _hash_behind(self, part: PartFile) -> None:
        while len(part.journal.done) < part.header.pieces:
            await part.follow()
            await asyncio.sleep(0.05)

    async def _span(self, part: PartFile, span: range) -> None:
        """Fetch a run of pieces, connecting again from the last byte as often as it gets on."""
        state = Cursor(span.start, span.stop)
        failures = 0
        while state.index < span.stop:
            before = state.received
            try:
                await self._stream(part, state)
            except RetryableError as error:
                failures = 0 if state.received - before >= _MUCH else failures + 1
                await self._wait(failures, error)

    async def _stream(self, part: PartFile, state: Cursor) -> None:
        header = part.header
        start = state.index * header.piece + len(state.buffer)
        end = min(header.size, state.stop * header.piece)
        opened = await self._open(f"bytes={start}-{end - 1}")
        response = opened.response
        try:
            self._check_range(response, start, header.size)
            async for chunk in response.content.iter_chunked(_CHUNK):
                await self._take(part, state, chunk)
                if state.index >= state.stop:
                    return
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise RetryableError(f"{host(opened.url)}: {describe(error)}") from error
        finally:
            response.close()
        raise RetryableError(f"{host(opened.url)}: the connection broke")

    async def _take(self, part: PartFile, state: Cursor, chunk: bytes) -> None:
        """Add bytes to the piece in hand; commit each piece that they complete."""
        state.received += len(chunk)
        while chunk and state.index < state.stop:
            room = part.header.length(state.index) - len(state.buffer)
            state.buffer += chunk[:room]
            self._count(min(room, len(chunk)))
            chunk = chunk[room:]
            if len(state.buffer) == part.header.length(state.index):
                await self._commit(part, state.index, state.buffer)
                state.index, state.buffer = state.index + 1, bytearray()

    async def _commit(self, part: PartFile, index: int, data: bytearray) -> None:
        try:
            await part.commit(index, data)
        except OSError as error:
            if error.errno in (28, 122):  # ENOSPC, EDQUOT
                raise SpaceError("the disk is full; make room and pull again: it goes on where it ended") from error
            raise

    def _check_range(self, response: aiohttp.ClientResponse, start: int, total: int) -> None:
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        etag = _strong(response.headers.get("ETag"))
        if response.status != 206 or not found or int(found.group(3)) != total:
            raise ChangedError
        if int(found.group(1)) != start:
            raise NetworkError(f"{host(str(response.url))} answers another range than was asked for")
        if self._watch_etag and etag is not None and self._etag is not None and etag != self._etag:
            raise ChangedError

    async def _in_one(self, part: PartFile, response: aiohttp.ClientResponse) -> None:
        """From a server without ranges: one stream from the start, begun again where it breaks."""
        failures = 0
        while True:
            state = Cursor(0, part.header.pieces)
            try:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    await self._take(part, state, chunk)
                if state.index >= state.stop:
                    return
                raise RetryableError(f"{host(self._wanted.url)}: the connection broke")
            except (aiohttp.ClientError, TimeoutError, ConnectionError, RetryableError) as error:
                failures += 1
                await self._wait(failures, RetryableError(f"{host(self._wanted.url)}: {describe(error)}"))
            finally:
                response.close()
            # Nothing of a broken stream is kept: what comes next may be another version of the file.
            self._forget()
            part.journal.done.clear()
            response = (await self._patiently(lambda: self._open(None))).response
            same = response.headers.get("Content-Length") == str(part.header.size)
            if not same or _strong(response.headers.get("ETag")) != self._etag:
                response.close()
                raise ChangedError

    async def _open(self, byte_range: str | None) -> Opened:
        url = self._direct or self._wanted.url
        try:
            opened = await open_file(self._http, url, self._wanted.token, byte_range)
        except (AccessError, MissingError) as error:
            if url == self._wanted.url:
                raise
            # The signed address has expired: ask the hub for a new one.
            self._direct = None
            raise RetryableError(error.message) from error
        self._direct = opened.url if opened.url != self._wanted.url else None
        return opened

    async def _patiently(self, attempt: Callable[[], Awaitable[Opened]]) -> Opened:
        failures = 0
        while True:
            try:
                return await attempt()
            except RetryableError as error:
                failures += 1
                await self._wait(failures, error)

    async def _wait(self, failures: int, error: RetryableError) -> None:
        limits = self._limits
        if failures > limits.tries:
            raise NetworkError(f"{error}; gave up after {limits.tries} tries; pull again: it goes on from here")
        if error.wait is not None:
            await asyncio.sleep(min(error.wait, limits.longest_wait))
        elif failures:
            longest = min(limits.longest_backoff, limits.backoff * 2 ** (failures - 1))
            await asyncio.sleep(random.uniform(longest / 2, longest))

    def _count(self, count: int, *, already: bool = False) -> None:
        self._counted += count
        if already:
            self._meter.already(count)
        else:
            self._meter.fetched(count)

    def _forget(self) -> None:
        """Take back what was counted: it is fetched again."""
        self._meter.fetched(-self._counted)
        self._counted = 0
        self._direct = None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that matters of several connections' at once: a change of the file before a broken connection."""
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    changed = [error for error in flat if isinstance(error, ChangedError)]
    return (changed or flat)[0]


def _strong(etag: str | None) -> str | None:
    return etag if etag and not etag.startswith("W/") else None


def _mib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB" if count >= 1024**3 else f"{count / 1024**2:.0f} MiB"

"""A hub that tests start: serves real files over real sockets, and misbehaves on demand.

It answers the listing API and `resolve`, hands files over to a content network (a second origin: another port),
knows ranges, and counts every byte it sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

COMMIT = "c0ffee" + "0" * 34
_CHUNK = 16 * 1024


@dataclass
class Faults:
    """What goes wrong. Counts are used up: `cuts=2` breaks two answers."""

    ranges: bool = True
    cuts: int = 0  # end the connection in the middle of an answer
    cut_after: int = 40_000
    stalls: int = 0  # go silent in the middle of an answer
    refuse: int = 0  # answer 503 first
    retry_after: str | None = None
    expire: int = 0  # the content network's address stops working (403)
    corrupt: bool = False  # flip a byte in what is sent
    etags: list[str] = field(default_factory=list)  # the next answers' ETags, in turn; then the true one
    budget: int | None = None  # after so many bytes of content everything goes silent
    wrong_digest: bool = False  # list another sha256 than the files have
    wrong_size: bool = False
    silent_links: bool = False  # no X-Linked-* headers
    loop: bool = False
    chunked: bool = False


class FakeHub:
    """Files by path within `org/repo`; `sent` counts content bytes by path, `seen` the requests."""

    def __init__(self, files: dict[str, bytes], faults: Faults | None = None) -> None:
        self.files = files
        self.faults = faults or Faults()
        self.commit = COMMIT
        self.sent: Counter[str] = Counter()
        self.ranges: list[tuple[int, int]] = []
        self.seen: list[tuple[str, str, str | None]] = []  # (server, path, Authorization)
        self.exhausted = asyncio.Event()
        self.etags: dict[bytes, str] = {}  # md5, computed once a content
        self.hub = self.cdn = ""
        self.small_in_git = False
        self.status: int | None = None
        self.error_code: str | None = None
        self.location: str | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeHub]:
        """Both servers on loopback ports of their own."""
        hub, cdn = web.Application(), web.Application()
        hub.router.add_get("/api/models/{org}/{repo}/revision/{revision}", self._listing)
        hub.router.add_get("/{org}/{repo}/resolve/{revision}/{path:.*}", self._resolve)
        hub.router.add_get("/plain/{path:.*}", self._content)
        cdn.router.add_get("/blob/{path:.*}", self._content)
        runners = []
        try:
            for app in (hub, cdn):
                runner = web.AppRunner(app, shutdown_timeout=0.1)
                await runner.setup()
                runners.append(runner)
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                assert site._server is not None
                port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
                address = f"http://127.0.0.1:{port}"
                self.hub, self.cdn = (address, self.cdn) if app is hub else (self.hub, address)
            yield self
        finally:
            for runner in runners:
                await runner.cleanup()

    @property
    def bytes_sent(self) -> int:
        return sum(self.sent.values())

    async def _listing(self, request: web.Request) -> web.Response:
        self.seen.append(("api", request.path_qs, request.headers.get("Authorization")))
        if self.status is not None:
            headers = {"X-Error-Code": self.error_code} if self.error_code else {}
            if self.location:
                headers["Location"] = self.location
            return web.Response(status=self.status, headers=headers)
        siblings = [self._sibling(path, data) for path, data in self.files.items()]
        return web.json_response({"id": "org/repo", "sha": self.commit, "siblings": siblings})

    def _sibling(self, path: str, data: bytes) -> dict[str, Any]:
        size = len(data) + (1 if self.faults.wrong_size else 0)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if self.small_in_git:
            return {"rfilename": path, "size": size, "blobId": git}
        digest = "0" * 64 if self.faults.wrong_digest else hashlib.sha256(data).hexdigest()
        lfs = {"sha256": digest, "size": size, "pointerSize": 134}
        return {"rfilename": path, "size": size, "blobId": git, "lfs": lfs}

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(("hub", request.path, request.headers.get("Authorization")))
        path = request.match_info["path"]
        if self.faults.refuse > 0:
            self.faults.refuse -= 1
            headers = {"Retry-After": self.faults.retry_after} if self.faults.retry_after else {}
            return web.Response(status=503, headers=headers)
        data = self.files.get(path)
        if data is None:
            return web.Response(status=404)
        where = request.path if self.faults.loop else f"{self.cdn}/blob/{path}?signature=a%2Fb%3D"
        headers = {"Location": where, "X-Repo-Commit": self.commit}
        if not self.faults.silent_links:
            headers["X-Linked-Size"] = str(len(data))
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        return web.Response(status=302, headers=headers)

    async def _content(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.seen.append(("cdn", request.path_qs, request.headers.get("Authorization")))
        if self.faults.expire > 0 and request.headers.get("Range") != "bytes=0-0":
            self.faults.expire -= 1
            return web.Response(status=403)
        data = self.files.get(path)
        if data is None:
            return web.Response(status=404)
        if data not in self.etags:
            self.etags[data] = hashlib.md5(data).hexdigest()
        etag = self.faults.etags.pop(0) if self.faults.etags else self.etags[data]
        headers = {"ETag": f'"{etag}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start, stop, status = 0, len(data), 200
        if asked and self.faults.ranges:
            start, stop, status = int(asked[1]), min(int(asked[2]) + 1, len(data)), 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self.ranges.append((start, stop))
        response = web.StreamResponse(status=status, headers=headers)
        if self.faults.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = stop - start
        await response.prepare(request)
        await self._send(request, response, path, data[start:stop])
        return response

    async def _send(self, request: web.Request, out: web.StreamResponse, path: str, body: bytes) -> None:
        faults, sent = self.faults, 0
        big = len(body) > faults.cut_after
        cut = big and faults.cuts > 0
        stall = big and not cut and faults.stalls > 0
        faults.cuts -= cut
        faults.stalls -= stall
        if faults.corrupt and len(body) > 2000:
            body = body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]
        while sent < len(body):
            if faults.budget is not None and self.bytes_sent >= faults.budget:
                self.exhausted.set()
                await asyncio.sleep(60)
            if (cut or stall) and sent >= faults.cut_after:
                if stall:
                    await asyncio.sleep(60)
                assert request.transport is not None
                request.transport.abort()
                return
            chunk = body[sent : sent + _CHUNK]
            await out.write(chunk)
            sent += len(chunk)
            self.sent[path] += len(chunk)

"""Moving bytes between the gateway and a target: connections, limits, and the errors of the network.

Redirects are not followed, no environment proxy is used, no cookie is kept, bodies are not decompressed
unasked, and every wait has a limit.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from aiohttp import ClientResponse, ClientSession, ClientTimeout, hdrs
from yarl import URL

from lumen.core.errors import BrokenError, ConnectError, MalformedError, SilentError, UpstreamError
from lumen.gateway.watch import Watch
from lumen.providers.base import HttpCall
from lumen.workers.supervisor import Lease, Supervisor

_MAX_REFUSAL = 64 * 1024
# The session must add nothing of its own: every header a target sees is written here.
_SKIPPED = (hdrs.USER_AGENT, hdrs.ACCEPT_ENCODING, hdrs.ACCEPT)
_NO_LIMIT = ClientTimeout(total=None)
Encode = Callable[[str], HttpCall]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; resolved when the configuration loads. `headers`, `first_token`, `gap` bind streams only."""

    connect: float
    headers: float
    first_token: float
    gap: float
    total: float
    client: ClientTimeout = field(init=False, repr=False)

    def seconds(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("connect", "headers", "first_token", "gap", "total")}

    def __post_init__(self) -> None:
        # Made once here: aiohttp takes its own type, and only a new connection needs a limit of its own.
        object.__setattr__(self, "client", ClientTimeout(total=None, sock_connect=self.connect))


class Exchange:
    """One request under way. `close` must be called; it drops the connection unless the answer was read whole."""

    __slots__ = ("_deadline", "_gap", "_lease", "_loop", "_response", "_stream", "_watch", "headers", "status")

    def __init__(
        self, response: ClientResponse, lease: Lease | None, limits: Limits, stream: bool, start: float, watch: Watch
    ) -> None:
        self._response = response
        self._lease = lease
        self._stream = stream
        self._gap = limits.gap
        self._deadline = start + limits.total
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").lower()

    async def read(self, first_by: float | None) -> bytes:
        """The next bytes, empty at the end. `first_by`: loop time the first token is due, `None` after it came.

        Raises:
            SilentError: a limit passed.
            BrokenError: the connection broke.
        """
        due = self._deadline
        if self._stream:
            due = min(due, self._loop.time() + self._gap if first_by is None else first_by)
        watch = self._watch
        watch.wait(due)
        try:
            data = await self._response.content.readany()
        except asyncio.CancelledError:
            if watch.expired():
                phase = "first_token" if first_by is not None else "stream"
                raise SilentError("The target fell silent.", phase=phase) from None
            raise
        except (aiohttp.ClientError, OSError):
            raise BrokenError("The connection to the target broke.", phase="stream") from None
        finally:
            watch.rest()
        if self._lease is not None:
            self._lease.touch()
        return data

    async def refusal(self) -> bytes:
        """The body of an answer that is not 200, bounded."""
        body = b""
        while len(body) < _MAX_REFUSAL and (data := await self.read(None)):
            body += data
        return body[:_MAX_REFUSAL]

    def close(self, ok: bool | None) -> None:
        """End it. `ok`: whether the target served well; `None` where the client left or asked nonsense."""
        self._watch.close()
        if self._response.content.at_eof():
            self._response.release()
        else:
            # What is left unread would have to be read before the connection could serve again.
            self._response.close()
        if self._lease is not None:
            self._lease.release(ok)


class Upstream(Protocol):
    """Where one target is reached."""

    async def open(self, encode: Encode, model: str, limits: Limits, stream: bool) -> Exchange:
        """Send the request and wait for the answer's headers.

        Args:
            encode: makes the request, given the name the model goes by at the upstream.

        Raises:
            UpstreamError, UnavailableError.
        """
        ...

    async def close(self) -> None: ...


class Remote:
    """A vendor or server by URL. The key is bound to this origin: it is in no other session."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._base = base_url.rstrip("/") + "/"
        self._headers = dict(headers)
        self._session: ClientSession | None = None
        self._urls: dict[str, URL] = {}

    async def open(self, encode: Encode, model: str, limits: Limits, stream: bool) -> Exchange:
        call = encode(model)
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=60)
            self._session = _session(connector, self._headers)
        url = self._urls.get(call.path)
        if url is None:
            url = self._urls[call.path] = URL(self._base + call.path)
        return await _send(self._session, url, call, limits, stream, None)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Local:
    """A local model: a ready replica is leased for each request, on its own UNIX socket or loopback port."""

    def __init__(self, supervisor: Supervisor, model: str) -> None:
        self._supervisor = supervisor
        self._model = model
        self._sessions: dict[str, ClientSession] = {}

    async def open(self, encode: Encode, model: str, limits: Limits, stream: bool) -> Exchange:
        lease = await self._supervisor.acquire(self._model, limits.first_token)
        try:
            session = await self._to(lease)
            call = encode(lease.served)
            return await _send(session, URL(f"{lease.base_url}/{call.path}"), call, limits, stream, lease)
        except BaseException as error:
            lease.release(False if isinstance(error, UpstreamError) else None)
            raise

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def _to(self, lease: Lease) -> ClientSession:
        """The session of this replica; those of replicas that are gone are closed on the way."""
        where = str(lease.socket or lease.base_url)
        found = self._sessions.get(where)
        if found is not None:
            return found
        # A new replica is rare, and so is this look at the file system.
        for old in [key for key in self._sessions if key.startswith("/") and not os.path.exists(key)]:  # noqa: ASYNC240, PTH110
            await self._sessions.pop(old).close()
        connector = (
            aiohttp.UnixConnector(str(lease.socket), limit=0)
            if lease.socket
            else aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        )
        made = self._sessions[where] = _session(connector, {})
        return made


def _session(connector: aiohttp.BaseConnector, headers: Mapping[str, str]) -> ClientSession:
    return ClientSession(
        connector=connector,
        headers={**headers, hdrs.CONTENT_TYPE: "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_SKIPPED,
        timeout=_NO_LIMIT,
        trust_env=False,
        auto_decompress=False,
        read_bufsize=64 * 1024,
    )


async def _send(
    session: ClientSession, url: URL, call: HttpCall, limits: Limits, stream: bool, lease: Lease | None
) -> Exchange:
    loop = asyncio.get_running_loop()
    start = loop.time()
    watch = Watch(loop)
    # A whole answer sends its headers when it is done, so only the total binds it.
    watch.wait(start + (limits.headers if stream else limits.total))
    try:
        response = await session.request(
            hdrs.METH_POST,
            url,
            data=call.body,
            headers={hdrs.ACCEPT: call.accept},
            allow_redirects=False,
            timeout=limits.client,
        )
    except BaseException as error:
        expired = isinstance(error, asyncio.CancelledError) and watch.expired()
        watch.close()
        if expired:
            raise SilentError("The target did not answer in time.", phase="headers") from None
        if (told := _network_error(error)) is not None:
            raise told from None
        raise
    watch.rest()
    return Exchange(response, lease, limits, stream, start, watch)


def _network_error(error: BaseException) -> UpstreamError | None:
    """aiohttp's errors in Lumen's terms; none of them may show an address."""
    match error:
        case aiohttp.ServerTimeoutError():
            return ConnectError("The target did not accept a connection in time.", phase="connect")
        case aiohttp.ClientConnectorError():
            return ConnectError("The target cannot be reached.", phase="connect")
        case aiohttp.ClientConnectionError() | OSError():
            return BrokenError("The connection to the target broke.", phase="headers")
        case aiohttp.ClientError():
            return MalformedError("The target's answer is not HTTP.", phase="headers")
        case _:
            return None

"""Moving bytes between the gateway and a target: where it is, how long to wait for it, and what went wrong.

No error made here shows an address; every wait has a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lumen.core.errors import BrokenError, ConnectError, MalformedError, SilentError, UpstreamError
from lumen.gateway.client import BadAnswer, Connection, ConnectionBroke, Origin, address
from lumen.gateway.watch import Watch
from lumen.providers.base import HttpCall
from lumen.workers.supervisor import Lease, Prompt, Supervisor

_MAX_REFUSAL = 64 * 1024
_MAX_ORIGINS = 32
_T = TypeVar("_T")
Encode = Callable[[str], HttpCall]


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; resolved when the configuration loads. `headers`, `first_token`, `gap` bind streams only.

    `min_rate`: tokens per second. `ready`: how long a replica may take to be ready, and `alone`: the same where no
    other target could answer, infinite for as long as its start may take. `queue`: how long a request may wait for its
    turn at a local model.
    """

    connect: float
    headers: float
    first_token: float
    gap: float
    total: float
    min_rate: float = 0.0
    ready: float = 60.0
    alone: float = 60.0
    queue: float = 30.0


class Exchange:
    """One request under way. `close` must be called; it drops the connection unless the answer was read whole."""

    __slots__ = (
        "_connection",
        "_deadline",
        "_gap",
        "_lease",
        "_loop",
        "_origin",
        "_stream",
        "_watch",
        "sent",
        "waited_from",
    )

    def __init__(self, origin: Origin, lease: Lease | None, limits: Limits, stream: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._origin = origin
        self._lease = lease
        self._stream = stream
        self._gap = limits.gap
        # When the request went out, in loop time.
        self.sent = self.waited_from = self._loop.time()
        self._deadline = self.sent + limits.total
        self._watch = Watch(self._loop)
        self._connection: Connection | None = None

    @property
    def waited(self) -> tuple[float, float]:
        """Seconds that it waited for a local model's turn, and for it to start or wake."""
        return (self._lease.queued, self._lease.woke) if self._lease is not None else (0.0, 0.0)

    @property
    def status(self) -> int:
        return self._connection.status if self._connection else 0

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        return self._connection.headers if self._connection else {}

    async def send(self, call: HttpCall, limits: Limits) -> None:
        """Connect, send, and wait for the headers. Closed where that fails.

        Raises:
            UpstreamError: by the phase it failed in.
        """
        now = self._loop.time()
        # A whole answer sends its headers when it is done, so only the total binds it.
        due = min(now + limits.headers, self._deadline) if self._stream else self._deadline
        watch, origin = self._watch, self._origin
        phase = "connect"
        try:
            connection = origin.kept(now)
            if connection is None:
                watch.wait(min(now + limits.connect, due))
                connection = await origin.connect(self._loop)
            self._connection = connection
            phase = "headers"
            watch.wait(due)
            if (form := call.form) is None:
                connection.send(origin.head(call.path, call.accept, len(call.body), lines=call.headers), call.body)
            else:
                head = origin.form_head(call.path, call.accept, form.size, form.kind, call.headers)
                await connection.send_form(head, form.parts)
            await connection.head()
            watch.rest()
            if connection.headers.get("content-encoding", "identity") != "identity":
                raise MalformedError("The target compressed its answer although nobody asked.", phase=phase)
        except BaseException as error:
            why = self._why(error, phase)
            self.close(None if why is None else False)
            if why is None:
                raise
            raise why from None

    def _why(self, error: BaseException, phase: str) -> UpstreamError | None:
        """What went wrong in terms of the target; `None` where it is none of its business."""
        if isinstance(error, asyncio.CancelledError):
            if not self._watch.expired():
                return None
            if phase == "connect":
                return ConnectError("The target did not accept a connection in time.", phase=phase)
            waited = "did not answer in time" if phase == "headers" else "fell silent"
            return SilentError(f"The target {waited}.", phase=phase)
        # A limit tells what was waited for, a break only that there was an answer.
        phase = "stream" if phase == "first_token" else phase
        if isinstance(error, BadAnswer):
            return MalformedError("The target's answer is not HTTP.", phase=phase)
        if isinstance(error, ConnectionBroke):
            return BrokenError("The connection to the target broke.", phase=phase)
        if isinstance(error, OSError):
            return ConnectError("The target cannot be reached.", phase=phase)
        return error if isinstance(error, UpstreamError) else None

    async def read(self, first_by: float | None) -> bytes:
        """The next bytes, empty at the end. `first_by`: loop time the first token is due, `None` after it came.

        Raises:
            SilentError: a limit passed.
            BrokenError: the connection broke.
        """
        connection = self._connection
        assert connection is not None
        self.waited_from = now = self._loop.time()
        data = connection.taken()
        if data is None:
            due = self._deadline
            if self._stream:
                due = min(now + self._gap if first_by is None else first_by, due)
            self._watch.wait(due)
            data = await self._told(connection.read(), "stream" if first_by is None else "first_token")
        if self._lease is not None:
            self._lease.touch()
        return data

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Hand a stream on as it comes, each piece within the gap, until `take` wants no more for now.

        See `Connection.pour`: `take` is called by the event loop and must not wait; what it raises is raised here.

        Returns:
            False where nothing is left; `read` then tells how it ended.

        Raises:
            SilentError: a limit passed.
        """
        assert self._connection is not None
        time, watch, lease = self._loop.time, self._watch, self._lease
        gap, deadline = self._gap, self._deadline

        def taken(data: bytes) -> bool:
            more = take(data)
            self.waited_from = now = time()
            due = now + gap
            # As `watch.wait`: it never has to ring earlier than for the piece before.
            watch.due = due if due < deadline else deadline
            if lease is not None:
                lease.touch()
            return more

        self.waited_from = now = time()
        watch.wait(min(now + gap, deadline))
        return await self._told(self._connection.pour(taken), "stream")

    async def _told(self, coming: Awaitable[_T], phase: str) -> _T:
        """Wait under the watch, and say what went wrong in terms of the target."""
        try:
            return await coming
        except (asyncio.CancelledError, BadAnswer, ConnectionBroke) as error:
            why = self._why(error, phase)
            if why is None:
                raise
            raise why from None
        finally:
            self._watch.rest()

    def adopt(self) -> None:
        """A hedged exchange was begun in a task of its own; the calling task reads on."""
        self._watch.adopt()

    async def refusal(self) -> bytes:
        """The body of an answer that is not 200, bounded."""
        body = b""
        while len(body) < _MAX_REFUSAL and (data := await self.read(None)):
            body += data
        return body[:_MAX_REFUSAL]

    def close(self, ok: bool | None) -> None:
        """End it. `ok`: whether the target served well; `None` where the client left or asked nonsense."""
        self._watch.close()
        if self._connection is not None:
            self._origin.give_back(self._connection, self._loop)
        if self._lease is not None:
            self._lease.release(ok)


class Upstream(Protocol):
    """Where one target is reached."""

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        """Send the request and wait for the answer's headers.

        Args:
            encode: makes the request, given the name the model goes by at the upstream.
            prompt: what the prompt begins with, for whoever has a choice between caches.

        Raises:
            UpstreamError, UnavailableError.
        """
        ...

    async def alive(self) -> int | None:
        """The status of a request that costs nothing; `None` where there is no such request.

        Raises:
            OSError, UpstreamError: no answer. The caller limits the wait.
        """
        ...

    def spare(self) -> bool:
        """Whether the next request could go to another process than one that fails now."""
        ...

    def close(self) -> None: ...


class Remote:
    """A vendor or server by URL. The key is bound to this origin: no other sends it."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._origin = Origin(address(base_url), headers)

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        exchange = Exchange(self._origin, None, limits, stream)
        await exchange.send(encode(model), limits)
        return exchange

    async def alive(self) -> int | None:
        loop = asyncio.get_running_loop()
        connection = await self._origin.connect(loop)
        try:
            connection.send(self._origin.head("models", "application/json", 0, "GET"), b"")
            await connection.head()
            return connection.status
        except (BadAnswer, ConnectionBroke):
            raise BrokenError("The connection to the target broke.", phase="headers") from None
        finally:
            connection.close()

    def spare(self) -> bool:
        return False

    def close(self) -> None:
        self._origin.close()


class Local:
    """A local model: a ready replica is leased for each request, on its own UNIX socket or loopback port."""

    def __init__(self, supervisor: Supervisor, model: str, adapter: str = "") -> None:
        """`adapter`: with one of its adapters, by the name that its engine knows it by besides its own."""
        self._supervisor = supervisor
        self._model = model
        self._adapter = f":{adapter}" if adapter else ""
        self._origins: dict[tuple[str, str | None], Origin] = {}

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        lease = await self._supervisor.acquire(self._model, limits.ready, prompt, limits.queue)
        try:
            call = encode(lease.served + self._adapter)
        except BaseException:
            lease.release()
            raise
        exchange = Exchange(self._to(lease), lease, limits, stream)
        await exchange.send(call, limits)
        return exchange

    async def alive(self) -> int | None:
        # The supervisor looks after its replicas itself.
        return None

    def spare(self) -> bool:
        return self._supervisor.spare(self._model)

    def close(self) -> None:
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()

    def _to(self, lease: Lease) -> Origin:
        """The origin of this replica. Each start of one has its own address; few are ever kept."""
        where = (lease.base_url, str(lease.socket) if lease.socket else None)
        found = self._origins.get(where)
        if found is None:
            while len(self._origins) >= _MAX_ORIGINS:
                self._origins.pop(next(iter(self._origins))).close()
            found = self._origins[where] = Origin(address(lease.base_url + "/v1", lease.socket), {})
        return found

"""The admin API: JSON over a UNIX socket only this user can open. The command line and dashboard use nothing else.

`remote.py` serves the same calls on the endpoint, where that was asked for. Which role each needs stands in `CALLS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Protocol

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError, RequestError
from lumen.core.roles import Role, covers
from lumen.gateway import books, rollouts
from lumen.gateway.http import read_body
from lumen.gateway.reply import error_reply
from lumen.owner import owner

_MAX_BODY = 64 * 1024
# Seconds a body may take.
_BODY_TIMEOUT = 10.0
# Seconds between two frames of what goes on.
_FRAME = 0.25
# After so many, whether the listener is still let in is looked at again.
_FRAMES_ADMITTED = 40
# Seconds after which the same refusal is written down again, and refusals that are remembered.
_NEWS = 60.0
_MOST_TOLD = 1024


class Operator(Protocol):
    """What an operator may ask of the running gateway; `lumen/operator.py` does it."""

    def status(self) -> dict[str, Any]: ...

    def routes(self) -> list[dict[str, Any]]: ...

    def models(self) -> list[dict[str, Any]]: ...

    def targets(self) -> list[dict[str, Any]]: ...

    def failovers(self) -> list[dict[str, Any]]: ...

    def memory(self) -> dict[str, Any]: ...

    def frame(self, number: int) -> dict[str, Any]: ...

    def request(self, request_id: str) -> dict[str, Any]: ...

    async def logs(self, replica: str) -> dict[str, Any]: ...

    def explain(self, route: str, request: str, headers: str) -> dict[str, Any]: ...

    def cancel(self, request_id: str) -> dict[str, Any]: ...

    def steer(self, name: str, action: str) -> dict[str, Any]: ...

    async def reload(self) -> dict[str, Any]: ...

    async def restart(self, model: str) -> dict[str, Any]: ...

    def sleep(self, model: str) -> dict[str, Any]: ...

    def wake(self, model: str) -> dict[str, Any]: ...

    def stop(self) -> dict[str, Any]: ...

    async def note(self, action: str, *given: str, who: str, **details: str) -> None:
        """Write down that this was done, or refused."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, by a name for the audit log, what they may do, and the address they ask from."""

    name: str
    role: Role
    address: str | None = None


# Says who a request comes from, or refuses it.
Admit = Callable[[BaseRequest], Awaitable[Caller]]


@dataclass(frozen=True, slots=True)
class Call:
    """One admin call: the least `role` that may make it, and what it does.

    `fields` of the body are the arguments of `do`; with `prefix`, the rest of the path is its only one. What is not
    read alone is written to the audit log, with what its answer says under `tells`; `reads`: it only reads, although it
    takes a body.
    """

    method: str
    path: str
    role: Role
    do: Callable[..., Any]
    fields: tuple[str, ...] = ()
    status: int = 200
    prefix: bool = False
    reads: bool = False
    tells: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.removeprefix("/admin/").rstrip("/")

    @property
    def changes(self) -> bool:
        return self.method != "GET" and not self.reads

    @property
    def shows(self) -> bool:
        """Whether what is read there may be words of others, so that who looked is written down."""
        return self.method == "GET" and self.role != "viewer"


class Refusals:
    """Which refusals and looks are news: one that comes again and again must not fill the audit log.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    def news(self, caller: str, call: str) -> bool:
        """Whether this one is to be written down: it was not within the last minute."""
        now, key = self._clock(), (caller, call)
        if now - self._told.get(key, -_NEWS) < _NEWS:
            return False
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[key] = now
        return True


EVENTS = "/admin/events"
CALLS: tuple[Call, ...] = (
    Call("GET", "/admin/status", "viewer", lambda operator: operator.status()),
    Call("GET", "/admin/routes", "viewer", lambda operator: operator.routes()),
    Call("GET", "/admin/models", "viewer", lambda operator: operator.models()),
    Call("GET", "/admin/targets", "viewer", lambda operator: operator.targets()),
    Call("GET", "/admin/failovers", "viewer", lambda operator: operator.failovers()),
    Call("GET", "/admin/memory", "viewer", lambda operator: operator.memory()),
    Call("GET", "/admin/requests/", "viewer", lambda operator, request: operator.request(request), prefix=True),
    # An engine that is not Lumen's own may write what it is asked.
    Call("GET", "/admin/logs/", "operator", lambda operator, replica: operator.logs(replica), prefix=True),
    # A stream, served by `_events`.
    Call("GET", EVENTS, "viewer", lambda operator: None),
    Call(
        "POST",
        "/admin/explain",
        "viewer",
        lambda operator, route, request, headers: operator.explain(route, request, headers),
        ("route", "request", "headers?"),
        reads=True,
    ),
    Call("POST", "/admin/cancel", "operator", lambda operator, request: operator.cancel(request), ("request",)),
    Call(
        "POST",
        "/admin/targets",
        "operator",
        lambda operator, target, action: operator.steer(target, action),
        ("target", "action"),
    ),
    Call("POST", "/admin/restart", "operator", lambda operator, model: operator.restart(model), ("model",), 202),
    Call("POST", "/admin/sleep", "operator", lambda operator, model: operator.sleep(model), ("model",), 202),
    Call("POST", "/admin/wake", "operator", lambda operator, model: operator.wake(model), ("model",), 202),
    Call("POST", "/admin/reload", "admin", lambda operator: operator.reload(), tells=("changed",)),
    Call("POST", "/admin/stop", "admin", lambda operator: operator.stop(), (), 202),
    *(Call(*row) for row in rollouts.CALLS),
    *(Call(*row) for row in books.CALLS),
)
_EXACT = {(call.method, call.path): call for call in CALLS if not call.prefix}
_PREFIXED = tuple(call for call in CALLS if call.prefix)


def handler(operator: Operator) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """The handler of the UNIX socket, which opens only to the user the gateway runs as: they may do everything."""
    us, refusals = Caller(owner(), "admin"), Refusals()

    async def admit(request: BaseRequest) -> Caller:
        return us

    async def handle(request: BaseRequest) -> StreamResponse:
        try:
            return await serve(operator, request, admit, refusals)
        except LumenError as error:
            return error_reply(error, {})

    return handle


async def serve(operator: Operator, request: BaseRequest, admit: Admit, refusals: Refusals) -> StreamResponse:
    """Answer one admin call of whoever `admit` lets in.

    Raises:
        LumenError: what `admit` raises, 403 for a caller whose role does not reach, or what the call itself raises.
    """
    caller = await admit(request)
    call, rest = find(request.method, request.path)
    if not covers(caller.role, call.role):
        if refusals.news(caller.name, call.path):
            await operator.note("gateway.refused", call.name, *rest, needs=call.role, has=caller.role, **_who(caller))
        raise RequestError(
            f"This needs the role {call.role}; {caller.name} has the role {caller.role}.",
            status=403,
            code="role_required",
        )
    if call.path == EVENTS:
        return await _events(operator, request, admit)
    given = await _named(request, *call.fields) if call.fields else rest
    done = call.do(operator, *given)
    answer = await done if isawaitable(done) else done
    if call.changes:
        told = {name: ", ".join(answer[name]) for name in call.tells}
        await operator.note(f"gateway.{call.name}", *given, **told, **_who(caller))
    elif call.shows and refusals.news(caller.name, " ".join((call.path, *rest))):
        await operator.note("gateway.looked", call.name, *rest, **_who(caller))
    return _json(answer, call.status)


def _who(caller: Caller) -> dict[str, str]:
    return {"who": caller.name} if caller.address is None else {"who": caller.name, "address": caller.address}


def find(method: str, path: str) -> tuple[Call, list[str]]:
    """The call of a request, with the rest of the path where it goes on.

    Raises:
        RequestError: 404.
    """
    if (call := _EXACT.get((method, path))) is not None:
        return call, []
    for call in _PREFIXED:
        if method == call.method and path.startswith(call.path):
            return call, [path.removeprefix(call.path)]
    raise RequestError("There is no such admin call.", status=404, code="not_found")


async def _events(operator: Operator, request: BaseRequest, admit: Admit) -> StreamResponse:
    """What goes on, a JSON line four times a second, until the listener leaves or is not let in any more.

    A listener that reads slowly gets fewer frames, never older ones: each is made when the one before is written.
    """
    response = StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-cache"})
    writer = await response.prepare(request)
    number = count = 0
    while writer is not None and request.transport is not None and not request.transport.is_closing():
        count += 1
        if count % _FRAMES_ADMITTED == 0 and not await _still(request, admit):
            break
        frame = operator.frame(number)
        number = frame["number"]
        await writer.write(msgspec.json.encode(frame) + b"\n")
        await writer.drain()
        await asyncio.sleep(_FRAME)
    return response


async def _still(request: BaseRequest, admit: Admit) -> bool:
    """Whether who listens would be let in now: keys are revoked and tokens end while a stream goes on."""
    try:
        await admit(request)
    except LumenError:
        return False
    return True


async def _named(request: BaseRequest, *fields: str) -> list[str]:
    """The fields of the body; one with a question mark may be missing and is empty then."""
    body = await read_body(request, _MAX_BODY, _BODY_TIMEOUT)
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = {}
    given = []
    for field in fields:
        name = field.removesuffix("?")
        value = found.get(name, "" if name != field else None)
        if not isinstance(value, str):
            raise RequestError(f"Send a JSON object with '{name}'.", param=name)
        given.append(value)
    return given


def _json(body: Any, status: int = 200) -> Response:
    # A new key is told in an answer: nobody on the way may keep one.
    headers = {"Cache-Control": "no-store"}
    return Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")

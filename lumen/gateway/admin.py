"""The admin API: JSON over a UNIX socket only this user can open. The command line and dashboard use nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Protocol

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError, RequestError
from lumen.gateway.reply import error_reply

_MAX_BODY = 64 * 1024
# Seconds between two frames of what goes on.
_FRAME = 0.25


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

    def cancel(self, request_id: str) -> dict[str, Any]: ...

    def steer(self, name: str, action: str) -> dict[str, Any]: ...

    async def reload(self) -> dict[str, Any]: ...

    async def restart(self, model: str) -> dict[str, Any]: ...

    def sleep(self, model: str) -> dict[str, Any]: ...

    def wake(self, model: str) -> dict[str, Any]: ...

    def stop(self) -> dict[str, Any]: ...

    async def note(self, action: str, *given: str) -> None:
        """Write down that this was done."""


# What is told as it stands, by path.
_TOLD: Mapping[str, Callable[[Operator], Any]] = {
    "/admin/status": lambda operator: operator.status(),
    "/admin/routes": lambda operator: operator.routes(),
    "/admin/models": lambda operator: operator.models(),
    "/admin/targets": lambda operator: operator.targets(),
    "/admin/failovers": lambda operator: operator.failovers(),
    "/admin/memory": lambda operator: operator.memory(),
}


@dataclass(frozen=True, slots=True)
class Act:
    """What an operator may have done: `fields` of the body are the arguments of `do`."""

    fields: tuple[str, ...]
    do: Callable[..., Any]
    status: int = 200


_DONE: Mapping[str, Act] = {
    "/admin/cancel": Act(("request",), lambda operator, request: operator.cancel(request)),
    "/admin/targets": Act(("target", "action"), lambda operator, target, action: operator.steer(target, action)),
    "/admin/reload": Act((), lambda operator: operator.reload()),
    "/admin/restart": Act(("model",), lambda operator, model: operator.restart(model), 202),
    "/admin/sleep": Act(("model",), lambda operator, model: operator.sleep(model), 202),
    "/admin/wake": Act(("model",), lambda operator, model: operator.wake(model), 202),
    "/admin/stop": Act((), lambda operator: operator.stop(), 202),
}
_REQUESTS = "/admin/requests/"


def handler(operator: Operator) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """The handler of the admin server."""

    async def handle(request: BaseRequest) -> StreamResponse:
        try:
            if (request.method, request.path) == ("GET", "/admin/events"):
                return await _events(operator, request)
            return await _dispatch(operator, request)
        except LumenError as error:
            return error_reply(error, {})

    return handle


async def _dispatch(operator: Operator, request: BaseRequest) -> Response:
    if request.method == "GET" and (tell := _TOLD.get(request.path)) is not None:
        return _json(tell(operator))
    if request.method == "GET" and request.path.startswith(_REQUESTS):
        return _json(operator.request(request.path.removeprefix(_REQUESTS)))
    act = _DONE.get(request.path) if request.method == "POST" else None
    if act is None:
        raise RequestError("There is no such admin call.", status=404, code="not_found")
    given = await _named(request, *act.fields)
    done = act.do(operator, *given)
    answer = await done if isawaitable(done) else done
    await operator.note(f"gateway.{request.path.rpartition('/')[2]}", *given)
    return _json(answer, act.status)


async def _events(operator: Operator, request: BaseRequest) -> StreamResponse:
    """What goes on, a JSON line four times a second, until the listener leaves.

    A listener that reads slowly gets fewer frames, never older ones: each is made when the one before is written.
    """
    response = StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-cache"})
    writer = await response.prepare(request)
    number = 0
    while writer is not None and request.transport is not None and not request.transport.is_closing():
        frame = operator.frame(number)
        number = frame["number"]
        await writer.write(msgspec.json.encode(frame) + b"\n")
        await writer.drain()
        await asyncio.sleep(_FRAME)
    return response


async def _named(request: BaseRequest, *fields: str) -> list[str]:
    body = b""
    while len(body) < _MAX_BODY and (data := await request.content.readany()):
        body += data
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        found = {}
    for field in fields:
        if not isinstance(found.get(field), str):
            raise RequestError(f"Send a JSON object with '{field}'.", param=field)
    return [found[field] for field in fields]


def _json(body: Any, status: int = 200) -> Response:
    return Response(body=msgspec.json.encode(body), status=status, content_type="application/json")

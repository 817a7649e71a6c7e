"""The admin API: JSON over a UNIX socket only this user can open. The command line and dashboard use nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.core.errors import LumenError, RequestError
from lumen.gateway.reply import error_reply

_MAX_BODY = 64 * 1024
# Seconds between two frames of what goes on.
_FRAME = 0.25


class Operator(Protocol):
    """What an operator may ask of the running gateway; `runtime.py` does it."""

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


# What is told as it stands, by path.
_TOLD: Mapping[str, Callable[[Operator], Any]] = {
    "/admin/status": lambda operator: operator.status(),
    "/admin/routes": lambda operator: operator.routes(),
    "/admin/models": lambda operator: operator.models(),
    "/admin/targets": lambda operator: operator.targets(),
    "/admin/failovers": lambda operator: operator.failovers(),
    "/admin/memory": lambda operator: operator.memory(),
}


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
    match request.method, request.path:
        case "GET", path if path.startswith("/admin/requests/"):
            return _json(operator.request(path.removeprefix("/admin/requests/")))
        case "POST", "/admin/cancel":
            return _json(operator.cancel(*await _named(request, "request")))
        case "POST", "/admin/targets":
            return _json(operator.steer(*await _named(request, "target", "action")))
        case "POST", "/admin/reload":
            return _json(await operator.reload())
        case "POST", "/admin/restart":
            return _json(await operator.restart(*await _named(request, "model")), 202)
        case "POST", "/admin/sleep":
            return _json(operator.sleep(*await _named(request, "model")), 202)
        case "POST", "/admin/wake":
            return _json(operator.wake(*await _named(request, "model")), 202)
        case "POST", "/admin/stop":
            return _json(operator.stop(), 202)
        case _:
            raise RequestError("There is no such admin call.", status=404, code="not_found")


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

"""Sleeping and waking over HTTP: `POST /sleep`, `POST /wake`, `GET /is_sleeping`.

Asleep the process lives and the weights stay mapped, but the KV cells and compute buffers are given back: what is
left to do on waking is to make a context, which takes milliseconds.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import Future

import msgspec
from aiohttp import web

from lumen.workers.llamacpp.engine import Engine
from lumen.workers.llamacpp.errors import ApiError
from lumen.workers.llamacpp.model import LoadError

_LIMIT = 60.0
"""Seconds that the engine's thread may take to hear and obey."""


def add_routes(app: web.Application, engine: Callable[[], Engine | None]) -> None:
    """`engine`: the running one."""

    def running() -> Engine:
        found = engine()
        if found is None or not found.alive:
            raise ApiError(503, "The engine is not running.")
        return found

    async def sleep(_request: web.Request) -> web.Response:
        if not await _obeyed(running().sleep()):
            raise ApiError(409, "The engine has answers to give.", code="busy")
        _trim()
        return _told(running())

    async def wake(_request: web.Request) -> web.Response:
        await _obeyed(running().rouse())
        return _told(running())

    async def is_sleeping(_request: web.Request) -> web.Response:
        return _told(running())

    app.router.add_post("/sleep", sleep)
    app.router.add_post("/wake", wake)
    app.router.add_get("/is_sleeping", is_sleeping)


async def _obeyed(order: Future[bool]) -> bool:
    try:
        async with asyncio.timeout(_LIMIT):
            return await asyncio.wrap_future(order)
    except TimeoutError:
        raise ApiError(503, "The engine did not react in time.") from None
    except LoadError as error:
        raise ApiError(503, f"The engine cannot wake: {error}.") from None


def _trim() -> None:
    """Give freed memory back to the system; only glibc has to be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _told(engine: Engine) -> web.Response:
    return web.Response(body=msgspec.json.encode({"is_sleeping": engine.asleep}), content_type="application/json")

"""Asking an engine: is it there, and does it answer? Every question is bounded in time and size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from lumen.engines.base import Request

_MOST = 1024 * 1024
_CONNECT = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens: a UNIX socket, or the loopback port in `base_url`."""

    socket: Path | None
    base_url: str


async def until_listening(address: Address, health: str | None, pause: float) -> None:
    """Wait, however long, until `listens`; the caller's start limit ends it."""
    while True:
        if await listens(address, health):
            return
        await asyncio.sleep(pause)


async def listens(address: Address, health: str | None) -> bool:
    """Whether it accepts a connection and, where it has a `health` path, answers 200 there."""
    try:
        if health is not None:
            async with _session(address, _CONNECT) as session, session.get(address.base_url + health) as answer:
                return answer.status == 200
        async with asyncio.timeout(_CONNECT):
            await _connect(address)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
    return True


async def _connect(address: Address) -> None:
    if address.socket is not None:
        _, writer = await asyncio.open_unix_connection(str(address.socket))
    else:
        host, _, port = address.base_url.removeprefix("http://").rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    await writer.wait_closed()


async def answers(address: Address, path: str, body: Mapping[str, Any], limit: float) -> str | None:
    """`None` once the inference came back whole within `limit` seconds; otherwise what was wrong, in a few words."""
    try:
        async with (
            _session(address, limit) as session,
            session.post(address.base_url + path, json=dict(body)) as answer,
        ):
            data = await _read(answer)
            if answer.status != 200:
                return f"it answered a probe with status {answer.status}"
            return None if _is_inference(data) else "its answer to a probe is no inference"
    except TimeoutError:
        return f"it did not answer a probe within {limit:g} s"
    except (aiohttp.ClientError, OSError):
        return "it did not accept a probe"


async def tell(address: Address, request: Request, limit: float) -> str | None:
    """`None` once `request` was answered with 200 within `limit` seconds; otherwise what was wrong, in a few words."""
    try:
        async with (
            _session(address, limit) as session,
            session.request(request.method, address.base_url + request.path) as answer,
        ):
            return None if answer.status == 200 else f"it answered {request.path} with status {answer.status}"
    except TimeoutError:
        return f"it did not answer {request.path} within {limit:g} s"
    except (aiohttp.ClientError, OSError):
        return f"it did not accept {request.path}"


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = b""
    while len(data) < _MOST and (part := await answer.content.readany()):
        data += part
    return data


def _is_inference(data: bytes) -> bool:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return False
    # A 200 that carries an error, or a proxy's page, is no answer.
    return isinstance(said, dict) and not said.get("error") and bool(said.get("choices") or said.get("data"))


def _session(address: Address, limit: float) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if address.socket is not None:
        connector = aiohttp.UnixConnector(str(address.socket), force_close=True)
    else:
        connector = aiohttp.TCPConnector(force_close=True)
    return aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=limit), cookie_jar=aiohttp.DummyCookieJar()
    )

"""Which web pages may read answers: those of the origins that the configuration names, and nobody else (CORS).

Off unless origins are named, and never for the admin API. No cookie plays a part in it: a page needs a key of its own,
as any client does, so credentials are not allowed. Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterable
from contextvars import ContextVar
from typing import Any

from aiohttp.web import BaseRequest, Response, StreamResponse

# What an answer tells besides its body; a page may read no other header of it.
EXPOSED = (
    "x-request-id", "x-lumen-route", "x-lumen-target", "x-lumen-reason", "x-lumen-estimated", "openai-processing-ms",
    "server-timing", "retry-after", "x-should-retry",
)  # fmt: skip
_METHODS = "GET, POST, DELETE"
# Names of headers, as a browser asks for them: a list of tokens.
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}(, ?[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}){0,63}", re.ASCII)
# Seconds a browser may remember what it was allowed.
_REMEMBERED = "600"
_VARIES = {"Vary": "Origin"}
_ADMIN = "/admin"

# The lines that the answer under way has besides its own; read where answers are written past the server library.
_lines: ContextVar[bytes] = ContextVar("lines", default=b"")
lines = _lines.get


class Cors:
    """Origins that may read, exactly as browsers send them."""

    __slots__ = ("_allowed", "_written")

    def __init__(self, origins: Iterable[str]) -> None:
        exposed = ", ".join(EXPOSED)
        self._allowed = {
            origin: {**_VARIES, "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": exposed}
            for origin in origins
        }
        self._written = {origin: _written(headers) for origin, headers in self._allowed.items()}

    def allows(self, origin: str | None) -> bool:
        """Whether pages of this origin may read."""
        return origin in self._allowed

    async def serve(self, request: BaseRequest, answer: Coroutine[Any, Any, StreamResponse]) -> StreamResponse:
        """What `answer` comes to, with what the page that asks may do with it."""
        origin = request.headers.get("Origin")
        if request.path.startswith(_ADMIN):
            return await answer
        headers = self._allowed.get(origin or "", _VARIES)
        before = _lines.set(self._written.get(origin or "", _written(_VARIES)))
        try:
            response = await answer
        finally:
            _lines.reset(before)
        if not response.prepared:
            response.headers.update(headers)
        return response

    def preflight(self, request: BaseRequest) -> Response | None:
        """The answer to a browser that asks whether a page may ask; `None`: it may not, or this is another question."""
        asked, origin = request.headers, request.headers.get("Origin")
        wanted = asked.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or wanted is None or not self.allows(origin) or request.path.startswith(_ADMIN):
            return None
        told = {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Max-Age": _REMEMBERED}
        names = asked.get("Access-Control-Request-Headers", "")
        if _NAMES.fullmatch(names):
            told["Access-Control-Allow-Headers"] = names
        if asked.get("Access-Control-Request-Private-Network") == "true":
            told["Access-Control-Allow-Private-Network"] = "true"
        return Response(status=204, headers=told)


def _written(headers: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")

"""Run it: `python -m tests.emulator --port 9000`. The model's name is the script:

`words-N`  N words, one a chunk.            `slow-N-MS`   N words, MS milliseconds between them.
`status-S` answers with HTTP status S.      `once-S`      status S the first time, then words.
`html`     200 with HTML.                   `silent`      accepts and never answers.
`cut-N`    drops the connection after N words.            `nofinish`  ends the stream without finish reason.
`stall-N`  N words, then silence.           `errin-N`     N words, then an error inside the stream.
`garbage`  an event that is not JSON.       `nodone`      everything but `[DONE]`.
`reset`    closes before any header.        `limit`       429 with Retry-After: 2.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web


class Emulator:
    """Counts what it was asked and sent, so that tests can compare."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.words_sent = 0
        self.open = 0
        self.closed_early = 0
        self._seen: dict[str, int] = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.chat)
        app.router.add_post("/v1/embeddings", self.embed)
        return app

    async def embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response(
            {
                "object": "list",
                "model": body["model"],
                "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
                "usage": {"prompt_tokens": 3, "total_tokens": 3},
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        script, _, rest = body["model"].partition("-")
        args = [int(a) for a in rest.split("-") if a.isdigit()]
        seen = self._seen[body["model"]] = self._seen.get(body["model"], 0) + 1
        if script == "status" or (script == "once" and seen == 1):
            error = {"message": f"scripted {args[0]}", "type": "scripted", "param": None, "code": "scripted"}
            return web.json_response({"error": error}, status=args[0])
        if script == "limit":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "2"})
        if script == "html":
            return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
        if script == "silent":
            await asyncio.sleep(30)
        if script == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        words = [f"word{i} " for i in range(args[0] if args else 5)]
        if not body.get("stream"):
            return web.json_response(_whole(body["model"], words, body.get("n") or 1))
        self.open += 1
        try:
            return await self._stream(request, body, script, words, args)
        except (ConnectionError, asyncio.CancelledError):
            self.closed_early += 1
            raise
        finally:
            self.open -= 1

    async def _stream(
        self, request: web.Request, body: dict[str, Any], script: str, words: list[str], args: list[int]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        model, many = body["model"], range(body.get("n") or 1)
        for index in many:
            await response.write(_event(model, {"role": "assistant", "content": ""}, index))
        for word in words:
            for index in many:
                await response.write(_event(model, {"content": word}, index))
                self.words_sent += 1
            if script == "slow":
                await asyncio.sleep(args[1] / 1000)
        if script == "cut":
            assert request.transport is not None
            request.transport.abort()
            return response
        if script == "stall":
            await asyncio.sleep(30)
        if script == "errin":
            await response.write(b'data: {"error": {"message": "scripted", "code": "overloaded"}}\n\n')
            return response
        if script == "garbage":
            await response.write(b"data: {not json}\n\n")
            return response
        if script != "nofinish":
            for index in many:
                await response.write(_event(model, {}, index, "stop"))
            if (body.get("stream_options") or {}).get("include_usage"):
                usage = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": []}
                await response.write(b"data: " + json.dumps({**usage, "usage": _usage(words)}).encode() + b"\n\n")
        if script not in ("nodone", "nofinish"):
            await response.write(b"data: [DONE]\n\n")
        return response


def _usage(words: list[str]) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}


def _event(model: str, delta: dict[str, Any], index: int, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    chunk = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _whole(model: str, words: list[str], n: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(words)}
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(n)]
    return {
        "id": "up-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": choices,
        "usage": _usage(words),
    }

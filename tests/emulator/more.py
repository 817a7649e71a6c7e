"""The emulated provider's endpoints that are no text: ranking, moderation, images, audio, tokens.

Models are called as in `server.py`; known here are `status-S`, `once-S`, `cut-N` (resets after N pieces of audio),
`nocount` (no usage), `html`, `endless` (audio without an end), `whole` (does not stream), and of streams `breaks` (an
error after the first event) and `short` (ends before it is complete). Any other name answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.emulator.script import Script, parse

PIECE = bytes(range(256)) * 64
_ENDLESS = 64 * 1024 * 1024
_DATA = "aW1hZ2U="


def _streams(body: dict[str, Any], script: Script) -> bool:
    return body.get("stream") in (True, "true") and script.name != "whole"


class More:
    """Notes every request with `note`; a form is noted as its fields, each file as its length."""

    def __init__(self, note: Callable[[web.Request, dict[str, Any]], None]) -> None:
        self._note = note
        self._seen: dict[str, int] = {}
        self.sent = 0

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/tokenize", self.tokenize)
        app.router.add_post("/detokenize", self.detokenize)
        app.router.add_post("/v1/rerank", self.rerank)
        app.router.add_post("/v1/moderations", self.moderate)
        app.router.add_post("/v1/images/{verb}", self.image)
        app.router.add_post("/v1/audio/transcriptions", self.write_down)
        app.router.add_post("/v1/audio/translations", self.write_down)
        app.router.add_post("/v1/audio/speech", self.speak)

    async def tokenize(self, request: web.Request) -> web.Response:
        body, _ = await self._asked(request)
        text = body.get("prompt") or " ".join(m["content"] for m in body["messages"])
        ids = list(range(len(text.split())))
        return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": 512})

    async def detokenize(self, request: web.Request) -> web.Response:
        body, _ = await self._asked(request)
        return web.json_response({"prompt": " ".join(f"t{i}" for i in body["tokens"])})

    async def rerank(self, request: web.Request) -> web.StreamResponse:
        body, script = await self._asked(request)
        results = [{"index": i, "relevance_score": 1 / (i + 1)} for i in range(len(body["documents"]))]
        usage = {"usage": {"total_tokens": 11}}
        return self._told(script, {"results": results[: body.get("top_n")]}, usage)

    async def moderate(self, request: web.Request) -> web.StreamResponse:
        body, script = await self._asked(request)
        many = 1 if isinstance(body["input"], str) else len(body["input"])
        results = [{"flagged": False, "categories": {}, "category_scores": {}} for _ in range(many)]
        return self._told(script, {"id": "modr-1", "model": body["model"], "results": results}, {})

    async def image(self, request: web.Request) -> web.StreamResponse:
        body, script = await self._asked(request)
        if _streams(body, script):
            kind = "image_edit" if request.match_info["verb"] == "edits" else "image_generation"
            usage = {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105}
            parts = []
            for number in range(int(body.get("n", 1))):
                parts += [{"type": f"{kind}.partial_image", "b64_json": _DATA, "partial_image_index": number}]
                parts += [{"type": f"{kind}.completed", "b64_json": _DATA, "usage": usage}]
            return await self._streamed(request, script, parts)
        data = [{"b64_json": _DATA} for _ in range(int(body.get("n", 1)))]
        usage = {"usage": {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105}}
        return self._told(script, {"created": 1, "data": data}, usage)

    async def write_down(self, request: web.Request) -> web.StreamResponse:
        body, script = await self._asked(request)
        if _streams(body, script):
            parts = [{"type": "transcript.text.delta", "delta": text} for text in ("hel", "lo")]
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
            parts += [{"type": "transcript.text.done", "text": "hello", "usage": usage}]
            return await self._streamed(request, script, parts)
        if body.get("response_format") in ("text", "srt", "vtt"):
            return web.Response(text="hello", content_type="text/plain")
        return self._told(script, {"text": "hello"}, {"usage": {"type": "duration", "seconds": 3}})

    async def _streamed(self, request: web.Request, script: Script, parts: list[dict[str, Any]]) -> web.StreamResponse:
        if refused := self._refused(script):
            return refused
        if script.name == "breaks":
            parts = [parts[0], {"type": "error", "error": {"message": "scripted", "type": "server_error"}}]
        elif script.name == "short":
            parts = parts[:1]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for part in parts:
            told = part if script.name != "nocount" else {k: v for k, v in part.items() if k != "usage"}
            await response.write(f"event: {told['type']}\ndata: {json.dumps(told)}\n\n".encode())
        return response

    async def speak(self, request: web.Request) -> web.StreamResponse:
        _, script = await self._asked(request)
        if refused := self._refused(script):
            return refused
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(request)
        many = _ENDLESS // len(PIECE) if script.name == "endless" else script.number(0, 3)
        for _ in range(many):
            await response.write(PIECE)
            self.sent += len(PIECE)
        if script.name == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response

    async def _asked(self, request: web.Request) -> tuple[dict[str, Any], Script]:
        if request.content_type == "multipart/form-data":
            form = await request.post()
            body: dict[str, Any] = {
                name: len(value.file.read()) if isinstance(value, web.FileField) else value
                for name, value in form.items()
            }
        else:
            body = json.loads(await request.read())
        self._note(request, body)
        self._seen[body["model"]] = self._seen.get(body["model"], 0) + 1
        return body, parse(body["model"])

    def _refused(self, script: Script) -> web.Response | None:
        name = "-".join([script.name, *map(str, script.numbers)])
        if script.name == "html":
            return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
        if script.name == "status" or (script.name == "once" and self._seen[name] == 1):
            error = {"message": "scripted", "type": "scripted", "param": None, "code": "scripted"}
            return web.json_response({"error": error}, status=script.number(0, 500))
        return None

    def _told(self, script: Script, answer: dict[str, Any], usage: dict[str, Any]) -> web.Response:
        return self._refused(script) or web.json_response(answer if script.name == "nocount" else answer | usage)

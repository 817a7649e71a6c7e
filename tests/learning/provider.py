"""An emulated provider of answers that are right, wrong, late or none, and of a judge that reads them.

The model's name says what it does: `right`, `wrong`, `refuses`, `tool`, `dead` (503), `judge` (prefers right answers),
`fickle` (always the first it sees), `mumbles` (says nothing that can be read), `solver` (multiplies where it is asked,
else it is friendly). Runs in a thread of its own, so that gateways in this process and in others can ask it.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import Counter
from typing import Any

from aiohttp import web

SAYS = {
    "right": "The answer is 4, which is right.",
    "wrong": "The answer is 5, which is wrong.",
    "refuses": "I'm sorry, but I can't help with that.",
    "mumbles": "Hard to say.",
}
_PRODUCT = re.compile(r"(\d+) times (\d+)")
_PAIR = re.compile(r"ANSWER A\n(.*?)\n#[0-9a-f]+ ANSWER B\n(.*?)\n#[0-9a-f]+ END", re.S)


class Provider:
    """`asked`: requests by model. `down`: models that answer 503. `port`: where it listens."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.down: set[str] = set()
        self.pause = 0.0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        assert self._ready.wait(100)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body["model"]
        self.asked[model] += 1
        self.bodies.append(body)
        if model in self.down or model == "dead":
            return web.json_response({"error": {"message": "down", "code": "overloaded"}}, status=503)
        if self.pause and model not in ("judge", "right"):
            await asyncio.sleep(self.pause)
        text = SAYS.get(model.partition("-")[0]) or _said(model, str(body["messages"][-1]["content"]))
        said: dict[str, Any] = {"role": "assistant", "content": text}
        if model == "tool":
            name = body["tools"][0]["function"]["name"]
            call = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": "{"}}
            said = {"role": "assistant", "tool_calls": [call]}
        usage = {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}
        head = {"id": "x", "created": 1, "model": model}
        if not body.get("stream"):
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for delta, finish in ((said, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            await answer.write(_event({**head, "object": "chat.completion.chunk", "choices": [choice]}))
        await answer.write(_event({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}))
        await answer.write(b"data: [DONE]\n\n")
        return answer


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _said(model: str, question: str) -> str:
    if model == "fickle":
        return '{"better": "A"}'
    if model == "solver":
        asked = _PRODUCT.search(question)
        return f"That is {int(asked[1]) * int(asked[2])}." if asked else "Hello, and a good day to you!"
    found = _PAIR.search(question)
    if found is None:
        return "I was asked to judge nothing."
    right = ["is right" in answer for answer in found.groups()]
    return json.dumps({"better": "tie" if right[0] == right[1] else "A" if right[0] else "B"})

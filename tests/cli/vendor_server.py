"""A vendor to test the command line against: it speaks the OpenAI dialect and can do what it is told it can."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-the-right-one-0123456789"


@dataclass
class Vendor:
    """`models`: what it lists, `None` for no list. `prefill`: the way it continues an answer; `echo`: after repeating
    it. `seed`: whether a seed decides what it says."""

    models: list[str] | None = field(default_factory=lambda: ["small", "large"])
    key: str | None = KEY
    public_list: bool = False
    prefill: str = "none"
    echo: bool = False
    seed: bool = True
    tools: bool = True
    token_ids: bool = False
    refuses: frozenset[str] = frozenset()
    logprobs: bool = True
    json_schema: bool = True
    n: bool = True
    stream_usage: bool = True
    raw: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, body: dict[str, Any]) -> tuple[int, str, bytes]:
        for name in self.refuses & body.keys():
            return _error(400, f"{name} is not supported")
        if self.models is not None and body["model"] not in self.models:
            return _error(404, "no such model")
        text = self._text(body)
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        if body.get("stream"):
            asked = (body.get("stream_options") or {}).get("include_usage")
            return 200, "text/event-stream", _stream(text, usage if asked and self.stream_usage else None)
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        if body.get("tools") and self.tools:
            function = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
            choice["message"] = {
                "role": "assistant",
                "tool_calls": [{"id": "1", "type": "function", "function": function}],
            }
        if body.get("return_token_ids"):
            ids = [11, 12, 13, 14]
            # A server that only tells its tokens, and does not know that it should go on from some, says all of them.
            choice["token_ids"] = ids[len(body.get("resume_token_ids") or ()) if self.token_ids else 0 :]
        if body.get("logprobs") and self.logprobs:
            choice["logprobs"] = {"content": [{"token": "ok", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
        many = (body.get("n") or 1) if self.n else 1
        whole = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "usage": usage}
        choices = [{**choice, "index": index} for index in range(many)]
        return 200, "application/json", json.dumps({**whole, "choices": choices}).encode()

    def _text(self, body: dict[str, Any]) -> str:
        if body.get("response_format") and self.json_schema:
            return '{"capital_city": "Paris"}'
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return self._sentence(body) if "at random" in last["content"] else "ok"
        way = "prefix" if last.get("prefix") else "continue" if body.get("continue_final_message") else "native"
        if way != self.prefill:
            return "The quick brown fox jumps over the lazy dog."
        return (str(last["content"]) if self.echo else "") + "zy dog."

    def _sentence(self, body: dict[str, Any]) -> str:
        return f"Seed {body.get('seed')}." if self.seed else f"Draw {len(self.seen)}."


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    """`vendor` on a port of its own; `vendor.url` says which."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            path = self.path.removeprefix("/v1/")
            headers = {name.lower(): value for name, value in self.headers.items()}
            vendor.seen.append((self.command, path, body, headers))
            free = vendor.key is None or (path == "models" and vendor.public_list)
            if path in vendor.raw:
                status, kind, data = vendor.raw[path]
            elif not free and headers.get("authorization") != f"Bearer {vendor.key}":
                status, kind, data = _error(401, f"wrong key {headers.get('authorization')}")
            elif path == "models" and vendor.models is not None:
                listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in vendor.models]}
                status, kind, data = 200, "application/json", json.dumps(listed).encode()
            elif path == "chat/completions":
                status, kind, data = vendor.answer(body)
            else:
                status, kind, data = _error(404, "not here")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/stolen")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    vendor.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield vendor
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _error(status: int, message: str) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps({"error": {"message": message, "type": "x"}}).encode()


def _stream(text: str, usage: dict[str, int] | None) -> bytes:
    def chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    chunks = [chunk({"role": "assistant", "content": text}, None), chunk({}, "stop")]
    if usage is not None:
        chunks.append({**chunks[0], "choices": [], "usage": usage})
    return b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks) + b"data: [DONE]\n\n"

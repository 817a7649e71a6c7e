"""A box that keeps nothing, a provider that repeats everything, and the search for what was said. See the test."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import secrets
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Box

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
STOP = threading.Event()
# What came to `/v1/traces`.
SPANS: list[bytes] = []
# Whether everything that it is asked is also told on standard error, as some servers do.
LOUD: list[int] = []


class Echo(BaseHTTPRequestHandler):
    """A provider that repeats what it was asked in answers, errors, headers and everything else."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            SPANS.append(gzip.decompress(data) if self.headers["content-encoding"] == "gzip" else data)
            self._whole(200, "{}")
        elif "json" not in self.headers["content-type"]:
            self._whole(200, {"text": data.decode("latin-1")[:2000], "usage": {"type": "duration", "seconds": 3}})
        else:
            self._answer(json.loads(data))

    def _answer(self, body: dict[str, Any]) -> None:
        if LOUD:
            sys.stderr.write(f"asked: {body}\n")
        asked = ("messages", "prompt", "input", "query")
        said, model = json.dumps(next(body[name] for name in asked if body.get(name))), body["model"]
        if self.path.endswith("/rerank"):
            found = {"index": 0, "relevance_score": 0.5, "document": {"text": said}}
            self._whole(200, {"results": [found], "usage": {"total_tokens": 3}})
        elif self.path.endswith("/moderations"):
            verdict = {"flagged": True, "categories": {said: True}, "category_scores": {said: 0.9}}
            self._whole(200, {"id": "m", "model": model, "results": [verdict]})
        elif self.path.endswith("/generations"):
            made = {"b64_json": base64.b64encode(said.encode()).decode(), "revised_prompt": said}
            self._whole(200, {"created": 1, "data": [made]})
        elif self.path.endswith("/speech"):
            self._whole(200, said, "audio/mpeg")
        elif model == "err400" or model == "err500":
            status = int(model[3:])
            self._whole(status, {"error": {"message": f"no: {said}", "type": said, "code": said, "param": said}})
        elif model == "html":
            self._whole(200, f"<html>{said}</html>")
        elif model == "vectors":
            self._whole(200, {"object": "list", "model": said, "data": [{"object": "embedding", "index": 0,
                              "embedding": [0.1]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})  # fmt: skip
        elif body.get("stream"):
            self._stream(model, said)
        else:
            message = {"role": "assistant", "content": said}
            self._whole(200, {"id": "x", "object": "chat.completion", "created": 1, "model": said, "usage": USAGE,
                              "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})  # fmt: skip

    def _whole(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-said", data[:200].decode("ascii", "replace"))
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, model: str, said: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        frame = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
        delta: dict[str, Any] = {"content": said}
        if model == "tool":
            call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": said}}
            delta = {"tool_calls": [call]}
        parts = [{**frame, "choices": [{"index": 0, "delta": delta}]}]
        for part in parts * (200 if model == "slow" else 2):
            with contextlib.suppress(OSError):
                self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())
            if model == "slow" and STOP.wait(0.05):
                return
        if model == "cut":
            return
        if model == "errin":
            with contextlib.suppress(OSError):
                self.wfile.write(f"data: {json.dumps({'error': {'message': said, 'type': said}})}\n\n".encode())
            return
        end = {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
        with contextlib.suppress(OSError):
            self.wfile.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())


class OwnBox(Box):
    """One whose temporary files lie within it, too."""

    @property
    def env(self) -> dict[str, str]:
        folder = self.home / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return {**super().env, "TMPDIR": str(folder)}


@dataclass
class Place:
    box: Box
    key: str
    url: str
    canaries: list[str] = field(default_factory=list)
    seen: list[tuple[str, int]] = field(default_factory=list)

    def canary(self) -> str:
        self.canaries.append(_CANARY + secrets.token_hex(12))
        return self.canaries[-1]

    def post(
        self,
        path: str,
        body: Any,
        *,
        leave: int | None = None,
        raw: bytes | None = None,
        kind: str = "application/json",
    ) -> int:
        """One request; `leave`: go away after so many bytes of its answer."""
        data = raw if raw is not None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": kind}
        headers |= {"User-Agent": self.canary(), "X-Something": self.canary()}
        asked = urllib.request.Request(self.url.removesuffix("/v1") + path, data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                self.seen.append((answer.headers["x-request-id"], answer.status))
                with contextlib.suppress(OSError, ValueError, HTTPException):
                    answer.read(leave) if leave is not None else answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.read()
            self.seen.append((error.headers["x-request-id"], error.code))
            return error.code

    def found(self) -> list[str]:
        """Every file of this installation that a canary is in, in any of a few clothes, and every kept prefix, which
        holds what was said as numbers."""
        bad = [str(path) for path in (self.box.home / "state" / "prefixes").rglob("*") if path.is_file()]
        for path in {*self.box.home.rglob("*"), *self._open()}:
            with contextlib.suppress(OSError):
                if path.is_file():
                    bad += [f"{path}: {needle!r}" for needle in self.inside(path.read_bytes())]
        return bad

    def inside(self, data: bytes) -> list[bytes]:
        """What of the canaries is in these bytes; of an archive, in what it holds."""
        found = []
        if any(mark in data for mark in _MARKS):
            found = [clothed for canary in self.canaries for clothed in dressed(canary) if clothed in data]
        return found + self.inside(gzip.decompress(data)) if data[:2] == b"\x1f\x8b" else found

    def _open(self) -> Iterator[Path]:
        """Files that our processes hold open or mapped, wherever they lie, those that are deleted already included."""
        ours = ("/tmp/", "/dev/shm/", "/memfd:", str(self.box.home))
        for process in self.box.ours():
            for folder in ("fd", "map_files"):
                with contextlib.suppress(OSError):
                    for entry in Path(f"/proc/{process.pid}/{folder}").iterdir():
                        if str(entry.readlink()).startswith(ours):
                            yield entry


def dressed(canary: str) -> list[bytes]:
    plain = canary.encode()
    # Of base64 what does not depend on where in a text the canary begins.
    shifted = [base64.b64encode(b"x" * n + plain)[4:-4] for n in range(3)]
    return [plain, plain.hex().encode(), plain.lower(), canary.encode("utf-16-le"), *shifted]


def _common(one: bytes, other: bytes) -> bytes:
    return one[: next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)]


_CANARY = "CANARY"
# What all canaries have in common in each of their clothes: most files hold none of it, and are looked through once.
_MARKS = [*map(_common, dressed(f"{_CANARY}0000000"), dressed(f"{_CANARY}f0f0f0f"))]


@contextlib.contextmanager
def echoing() -> Iterator[int]:
    """The provider, on a port of its own."""
    STOP.clear()
    SPANS.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        STOP.set()
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    LOUD.append(1)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()

"""`retention: none`: canary strings go through everything there is, and then are looked for in every file."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-retention"), pytest.mark.timeout(300)]
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
CONFIG = """
{retention}
logging: {{level: debug, format: {format}}}
providers:
  echo:
    base_url: http://127.0.0.1:{port}/v1
    dialect: openai
    models: {{"*": {{price: {{input: 1, output: 2}}}}}}
routes:
  mended: {{policy: ordered, targets: [echo/cut, echo/plain], {route}}}
  failing: {{policy: ordered, targets: [echo/err500, echo/html, echo/plain], {route}}}
  plain: {{targets: [echo/plain], {route}{payloads}}}
  bad: {{targets: [echo/err400], {route}}}
  broken: {{targets: [echo/errin], {route}}}
  tool: {{targets: [echo/tool], {route}}}
  slow: {{targets: [echo/slow], {route}}}
  tiny: {{targets: [lumen-tiny], {route}}}
  vectors: {{targets: [echo/vectors], {route}}}
"""


class Echo(BaseHTTPRequestHandler):
    """A provider that repeats what it was asked in answers, errors, headers and everything else."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said, model = json.dumps(body.get("messages") or body.get("prompt") or body.get("input")), body["model"]
        if model == "err400" or model == "err500":
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

    def _whole(self, status: int, body: Any) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
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


STOP = threading.Event()


@dataclass
class Place:
    box: Box
    key: str
    url: str
    canaries: list[str] = field(default_factory=list)
    seen: list[tuple[str, int]] = field(default_factory=list)

    def canary(self) -> str:
        self.canaries.append("CANARY" + secrets.token_hex(12))
        return self.canaries[-1]

    def post(self, path: str, body: Any, *, leave: int | None = None, raw: bytes | None = None) -> int:
        """One request; `leave`: go away after so many bytes of its answer."""
        data = raw if raw is not None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(self.url.removesuffix("/v1") + path, data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                with contextlib.suppress(OSError, ValueError, HTTPException):
                    answer.read(leave) if leave is not None else answer.read()
                self.seen.append((answer.headers["x-request-id"], answer.status))
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.read()
            self.seen.append((error.headers["x-request-id"], error.code))
            return error.code

    def found(self) -> list[str]:
        """Every file of this installation that a canary is in, in any of a few clothes."""
        needles = [clothed for canary in self.canaries for clothed in dressed(canary)]
        bad = []
        for path in self.box.home.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                bad += [f"{path}: {needle!r}" for needle in needles if needle in data]
        return bad


def dressed(canary: str) -> list[bytes]:
    plain = canary.encode()
    # Of base64 what does not depend on where in a text the canary begins.
    shifted = [base64.b64encode(b"x" * n + plain)[4:-4] for n in range(3)]
    return [plain, plain.hex().encode(), plain.lower(), canary.encode("utf-16-le"), *shifted]


@pytest.fixture
def upstream() -> Iterator[int]:
    STOP.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    STOP.set()
    server.shutdown()
    server.server_close()


def started(home: Path, port: int, of: str) -> Place:
    box = Box(home)
    (home / "config").mkdir(parents=True)
    text = CONFIG.format(
        port=port,
        retention="retention: none" if of == "box" else "",
        route="retention: none" if of == "route" else "retention: usual",
        # Where a route says otherwise, the box and the key win.
        payloads="" if of == "route" else ", payloads: {days: 3}",
        format="json" if of == "box" else "pretty",
    )
    (home / "config" / "config.yaml").write_text(text)
    added = (
        json.loads(box.lumen("key", "add", "private", "--no-retention", "--json").stdout)["key"] if of == "key" else ""
    )
    box.up()
    return Place(box, added or box.key, box.url)


def chat(model: str, canary: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"say {canary}"}], "max_tokens": 20, **more}


def everything(place: Place) -> None:
    """Traffic through every feature there is, each with a canary of its own."""
    post, canary = place.post, place.canary
    for stream in (False, True):
        for model in ("plain", "tiny", "mended", "failing"):
            assert post("/v1/chat/completions", chat(model, canary(), stream=stream)) == 200
        assert post("/v1/messages", {**chat("plain", canary(), stream=stream), "system": canary()}) == 200
        asked = {"model": "plain", "input": canary(), "instructions": canary(), "stream": stream}
        assert post("/v1/responses", asked) == 200
        assert post("/v1/completions", {"model": "tiny", "prompt": canary(), "max_tokens": 8, "stream": stream}) == 200
        tool = {"type": "function", "function": {"name": "look", "description": canary(), "parameters": {}}}
        assert post("/v1/chat/completions", chat("tool", canary(), stream=stream, tools=[tool], user=canary())) == 200
        assert post("/v1/chat/completions", chat("bad", canary(), stream=stream)) == 400
    assert post("/v1/chat/completions", chat("broken", canary(), stream=True)) in (200, 502)
    assert post("/v1/embeddings", {"model": "vectors", "input": canary()}) == 200
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": canary()}}}
    post("/v1/chat/completions", chat("tiny", canary(), response_format=form))
    # What cannot be: no such route, no JSON, a wrong field, a wrong path, what is too long for the model.
    assert post("/v1/chat/completions", chat(canary(), canary())) == 404
    assert post("/v1/chat/completions", None, raw=b'{"model": "plain", "messages": [' + canary().encode()) == 400
    assert post("/v1/chat/completions", chat("plain", canary(), temperature=canary())) == 400
    assert post(f"/v1/{canary()}", {}) == 404
    post("/v1/chat/completions", chat("tiny", f"{canary()} " * 3000))
    assert post("/v1/chat/completions", chat("plain", f"{canary()} " * 20_000)) == 200
    # Clients that leave.
    post("/v1/chat/completions", chat("slow", canary(), stream=True), leave=300)
    post("/v1/chat/completions", chat("tiny", canary(), stream=True, max_tokens=300), leave=100)
    crash(place)


def crash(place: Place) -> None:
    """An engine that dies with a prompt in its memory, as one that dumps its core does."""
    (worker,) = place.box.workers()
    asking = threading.Thread(
        target=lambda: place.post("/v1/chat/completions", chat("tiny", place.canary(), stream=True, max_tokens=400))
    )
    asking.start()
    os.kill(worker, signal.SIGABRT)
    asking.join()
    until(lambda: place.box.status()["ready"] and place.box.workers() not in ([], [worker]), "another worker")


@pytest.mark.parametrize("of", ["box", "route", "key"])
def test_nothing_that_was_said_is_anywhere(tmp_path: Path, upstream: int, of: str) -> None:
    place = started(tmp_path / "box", upstream, of)
    box = place.box
    try:
        for process in box.ours():
            if "-m lumen" in " ".join(process.cmdline()):
                assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        # The other target's answers are canaries too, and would be kept where that is allowed.
        box.lumen("shadow", "start", "plain", "--candidate", "echo/other", "--share", "100%", "--texts")
        everything(place)
        for request, _ in place.seen[:3]:
            place.post("/v1/feedback", {"request_id": request, "score": 1.0, "comment": place.canary()})
        told = [place_metrics(place), *(box.lumen(*what, check=False).stdout for what in SHOWN)]
        assert not [canary for canary in place.canaries for text in told if canary in text]
        # While everything is open, the write-ahead log and the mapped journal included; and once more when all is over.
        assert place.found() == []
        box.lumen("restart")
        assert place.found() == []
        box.lumen("down")
        assert place.found() == []
        exact(place)
    finally:
        box.end()


SHOWN = (
    ("shadow", "report", "plain", "--json"),
    ("status", "--json"),
    ("top", "--once", "--json"),
    ("logs", "-n", "100000"),
    ("target", "ls", "--json"),
)


def place_metrics(place: Place) -> str:
    asked = urllib.request.Request(
        place.url.removesuffix("/v1") + "/metrics", headers={"Authorization": f"Bearer {place.box.key}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def exact(place: Place) -> None:
    """Every request that reached a target is in the ledger, with its counts and its cost."""
    with contextlib.closing(sqlite3.connect(place.box.home / "state" / "ledger.db")) as ledger:
        rows = ledger.execute("SELECT request, outcome, input, output, cost, provider, model FROM attempts").fetchall()
    ok = {row[0]: row for row in rows if row[1] == "ok" and row[6] == "plain"}
    assert len(ok) >= 8
    assert all(row[4] == row[2] * 1_000_000 + row[3] * 2_000_000 and row[2] >= 7 for row in ok.values())
    assert {row[0] for row in rows} <= {request for request, _ in place.seen}


def test_without_it_what_routes_keep_is_found(tmp_path: Path, upstream: int) -> None:
    """The same route and the same search: only the setting differs."""
    place = started(tmp_path / "box", upstream, "nothing")
    try:
        assert place.post("/v1/chat/completions", chat("plain", place.canary())) == 200
        found = until(place.found, "a file with what was said")
        assert all("payloads" in bad for bad in found)
    finally:
        place.box.end()


def test_the_search_would_find_what_is_kept(tmp_path: Path) -> None:
    """The test above proves something only if what was written down would be found."""
    place = Place(Box(tmp_path), "", "")
    for i, clothed in enumerate(dressed(place.canary())):
        file = tmp_path / f"{i}.db"
        file.write_bytes(b"abc" + clothed + b"def")
        assert len(place.found()) >= 1
        file.unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "l.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (?)", (f"said {place.canaries[0]}",))
        database.commit()
        assert any("l.db" in bad for bad in place.found())

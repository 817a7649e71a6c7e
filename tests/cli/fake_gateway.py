"""A gateway for tests of the command line: the admin API and a chat endpoint, played from a script.

`python fake_gateway.py -m lumen [options]`; LUMEN_FAKE names a JSON file:
    statuses   what /admin/status says, call by call; the last one stays
    says       lines for standard error at the start
    dies       exit code to end with instead of listening, or after all statuses were told
    deaf       true: SIGTERM and /admin/stop do not end it
    drain      seconds between being told to stop and ending
    memory     what /admin/memory says; without it there is no such call
    refuses    a message: /admin/reload is answered 400 with it
    answer     pieces of the chat answer; "error" ends them with an error event, "cut" without any end
Every admin call and chat request is appended to LUMEN_FAKE + ".calls" as a JSON line.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCRIPT = Path(os.environ["LUMEN_FAKE"])
PLAY: dict[str, Any] = json.loads(SCRIPT.read_text())
RUN = Path(os.environ["LUMEN_FAKE_RUN"])
STARTED = time.time()
stopping = threading.Event()
told = 0
lock = threading.Lock()


def record(call: dict[str, Any]) -> None:
    with lock, SCRIPT.with_name(SCRIPT.name + ".calls").open("a") as calls:
        calls.write(json.dumps(call) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    url = ""

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        global told
        if self.path == "/admin/status":
            statuses = PLAY.get("statuses") or [{}]
            status = statuses[min(told, len(statuses) - 1)]
            told += 1
            if told > len(statuses) and "dies" in PLAY:
                os._exit(PLAY["dies"])
            base = {"version": "9.9", "pid": os.getpid(), "url": self.url, "started": STARTED, "uptime_s": 61.0,
                    "draining": stopping.is_set(), "rss_bytes": 50_000_000, "notice": None, "routes": [],
                    "ready": True, "profile": {"name": "cpu", "why": "no GPU"}, "models": [],
                    "requests": {"in_flight": 0, "total": 7, "errors": 1}}  # fmt: skip
            self.answer(200, {**base, **status})
        elif self.path == "/admin/routes":
            self.answer(200, PLAY.get("routes", []))
        elif self.path == "/admin/trials":
            self.answer(200, {})
        elif self.path == "/admin/memory" and "memory" in PLAY:
            self.answer(200, PLAY["memory"])
        else:
            self.answer(404, {"error": {"message": "There is no such admin call."}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        record({"path": self.path, "body": body, "authorization": self.headers.get("Authorization")})
        if self.path == "/admin/stop":
            self.answer(202, {"stopping": True, "in_flight": PLAY.get("in_flight", 0)})
            stop()
        elif self.path == "/admin/reload" and "refuses" in PLAY:
            self.answer(400, {"error": {"message": PLAY["refuses"], "type": "x", "param": None, "code": "bad_config"}})
        elif self.path == "/admin/restart" and body.get("model") != "m":
            self.answer(404, {"error": {"message": "There is no local model of that name."}})
        elif self.path == "/v1/chat/completions":
            self.chat(body)
        else:
            self.answer(200, {"changed": []})

    def chat(self, body: dict[str, Any]) -> None:
        if body["model"] == "unknown":
            self.answer(404, {"error": {"message": "The model 'unknown' does not exist."}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in PLAY.get("answer", []):
            if piece == "cut":
                return
            if piece == "hang":
                stopping.wait(30)
                return
            event = {"error": {"message": "The engine broke."}} if piece == "error" else delta(piece)
            self.wfile.write(b": keep-alive\n\ndata: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.flush()
        self.wfile.write(b"data: " + json.dumps(delta(None, "stop")).encode() + b"\n\ndata: [DONE]\n\n")


def delta(content: str | None, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish}]}


class Admin(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def stop(*_: Any) -> None:
    record({"path": "signal or stop"})
    if not PLAY.get("deaf"):
        stopping.set()


def main() -> None:
    for line in PLAY.get("says", []):
        sys.stderr.write(line + "\n")
    sys.stderr.flush()
    if "dies" in PLAY and "statuses" not in PLAY:
        sys.exit(PLAY["dies"])
    signal.signal(signal.SIGTERM, stop)
    public = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.url = f"http://127.0.0.1:{public.server_address[1]}/v1"
    private = Admin(str(RUN / "admin.sock"), Handler)
    for server in (public, private):
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    told_about = {"pid": os.getpid(), "started": STARTED, "url": Handler.url, "argv": sys.argv}
    (RUN / "gateway.json").write_text(json.dumps(told_about))
    # A test that dies must not leave this process behind.
    deadline = time.monotonic() + 60
    while not stopping.wait(0.02) and time.monotonic() < deadline:
        pass
    time.sleep(PLAY.get("drain", 0))
    (RUN / "admin.sock").unlink()
    (RUN / "gateway.json").unlink()


if __name__ == "__main__":
    main()

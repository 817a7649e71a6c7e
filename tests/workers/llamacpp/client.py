"""The real worker as a process on a UNIX socket, and a plain HTTP client for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TINY = ROOT / "lumen" / "tiny" / "lumen-tiny.gguf"
NAME = "lumen-tiny"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("worker", timeout=100)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@dataclass
class Answer:
    status: int
    body: Any

    @property
    def choice(self) -> Any:
        assert self.status == 200, self.body
        return self.body["choices"][0]

    @property
    def error(self) -> Any:
        assert self.status >= 400, self.body
        assert set(self.body["error"]) == {"message", "type", "param", "code"}
        return self.body["error"]


class Worker:
    """A running worker. Use as a context manager."""

    def __init__(self, *flags: str, parent: int | None = None, model: Path = TINY) -> None:
        # Not tmp_path: a UNIX socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="lumen-"))
        self.socket = self.folder / "w.sock"
        command = [sys.executable, "-m", "lumen.workers.llamacpp", "--model", str(model), "--name", NAME]
        command += ["--socket", str(self.socket), "--threads", "1", *flags]
        command += ["--parent-pid", str(parent or os.getpid())]
        self.log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        self.phases = []
        for line in self.process.stdout:
            self.phases.append(json.loads(line))
            if self.phases[-1]["phase"] == "ready":
                return
        self.close()
        raise AssertionError(f"the worker did not start: {self.phases}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(100)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.folder)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def request(self, method: str, path: str, body: object = None, raw: bytes | None = None) -> Answer:
        with contextlib.closing(_Connection(self.socket)) as connection:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            kind = response.headers.get("Content-Type", "")
            return Answer(response.status, json.loads(text) if kind.startswith("application/json") else text)

    def get(self, path: str) -> Any:
        return self.request("GET", path).body

    def post(self, path: str, **body: Any) -> Answer:
        return self.request("POST", path, {"model": NAME, **body})

    def chat(self, text: str | list[dict[str, Any]], **body: Any) -> Answer:
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else text
        return self.post("/v1/chat/completions", messages=messages, **body)

    def complete(self, prompt: object, **body: Any) -> Answer:
        return self.post("/v1/completions", prompt=prompt, **body)

    def stream(self, path: str, **body: Any) -> list[Any]:
        """Every event of a stream, parsed; the last must be [DONE], which is left out."""
        events = list(self.events(path, **body))
        assert events[-1] == "[DONE]", events[-1]
        return events[:-1]

    def events(self, path: str, **body: Any) -> Iterator[Any]:
        with contextlib.closing(_Connection(self.socket)) as connection:
            data = json.dumps({"model": NAME, "stream": True, **body}).encode()
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            for line in response:
                if line.strip():
                    assert line.startswith(b"data: "), line
                    text = line[6:].strip()
                    yield "[DONE]" if text == b"[DONE]" else json.loads(text)

    def open(self, path: str, **body: Any) -> socket.socket:
        """Send a streaming request and return the raw socket, nothing read."""
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.settimeout(100)
        raw.connect(str(self.socket))
        data = json.dumps({"model": NAME, "stream": True, **body}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Connection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        return raw

    def metric(self, name: str) -> float:
        text = self.get("/metrics").decode()
        (line,) = [line for line in text.splitlines() if line.startswith(f"lumen_worker_{name} ")]
        return float(line.split()[1])


def until(holds: Callable[[], bool], seconds: float = 100.0) -> None:
    """Look every few milliseconds until `holds()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run `calls` at the same time; their results in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def text_of(events: list[Any], index: int = 0) -> str:
    out = ""
    for event in events:
        for choice in event["choices"]:
            if choice["index"] == index:
                out += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return out


def ids_of(events: list[Any], index: int = 0) -> list[int]:
    return [t for event in events for c in event["choices"] if c["index"] == index for t in c["token_ids"]]


def same_or_flat(worker: Worker, prompt: list[int], one: list[int], other: list[int], gap: float = 0.05) -> None:
    """Two greedy answers agree, or they part where the two likeliest tokens are as good as tied.

    Batches of other shapes round the last bits differently, so a tie may fall either way (and what follows differs).
    """
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            step = worker.complete(prompt + one[:at], max_tokens=1, temperature=0, logprobs=2, cache_prompt=False)
            first, second = sorted(step.choice["logprobs"]["top_logprobs"][0].values(), reverse=True)[:2]
            assert first - second < gap, f"they part at token {at} although the model is sure: {one} {other}"
            return
    assert len(one) == len(other)

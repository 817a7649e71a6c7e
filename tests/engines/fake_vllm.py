"""Stands in for vLLM's server: says what it said, in the order it said it, and serves what supervision asks of it.

    fake_vllm.py "MODE ..." <the words of the real one>

Modes: full=N (fails for want of memory where the context is longer than N tokens), exit0 (ends by itself with status 0
when POST /end comes), orphan (starts a child in a session of its own that ignores SIGTERM). Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded")
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"


def value(flag: str) -> str:
    words = sys.argv[2:]
    joined = next((word.partition("=")[2] for word in words if word.startswith(f"--{flag}=")), None)
    return joined if joined is not None else words[words.index(f"--{flag}") + 1]


def say(name: str) -> None:
    sys.stderr.write((RECORDED / name).read_text("utf-8"))
    sys.stderr.flush()


class Server:
    def __init__(self) -> None:
        self.asleep = False
        self.calls: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        size = next((int(x[15:]) for x in head.lower().split("\r\n") if x.startswith("content-length:")), 0)
        await reader.readexactly(size)
        status, said = self.answer(method, path)
        body = json.dumps(said).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        if path == "/calls":
            return 200, self.calls
        if path == "/words":
            return 200, sys.argv[2:]
        if path == "/end":
            asyncio.get_running_loop().call_later(0.05, os._exit, 0)
            return 200, {}
        if not path.startswith(("/health", "/v1/")):
            self.calls.append(f"{method} {path}")
        if path.startswith("/sleep") and method == "POST":
            self.asleep = True
        elif path == "/wake_up" and method == "POST":
            self.asleep = False
        elif path == "/is_sleeping":
            return 200, {"is_sleeping": self.asleep}
        elif path.startswith("/v1/"):
            # Asleep the real one does not answer at all.
            return (500, {"error": {}}) if self.asleep else (200, {"choices": [{"text": "a", "index": 0}]})
        elif path != "/health":
            return 404, {}
        return 200, {}


async def serve() -> None:
    await asyncio.start_unix_server(Server(), value("uds"))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.sleep(120)


def main() -> None:
    modes = dict((mode + "=").split("=")[:2] for mode in sys.argv[1].split())
    if "orphan" in modes:
        subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True)
    if "full" in modes and int(value("max-model-len")) > int(modes["full"]):
        say("vllm-no-memory.log")
        sys.exit(1)
    say("vllm-start-gpu.log")
    asyncio.run(serve())


main()

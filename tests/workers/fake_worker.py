"""A server that misbehaves on demand, for the tests of supervision. Standard library only: it starts quickly.

    fake_worker.py (--socket PATH | --port N) MODE…

Modes: phases (report them), slow=SECONDS (before listening), crash (status 3), exit0, deaf (never answers an
inference), wrong (answers 500), stubborn (ignores SIGTERM), family (starts a child that outlives it),
crashes=N:FILE (crashes while FILE holds fewer than N lines), noisy (a large line on standard output first), tells
(writes every path that it is asked for to standard error).
POST /deaf makes it deaf from then on; POST /exit ends it with status 0; POST /sleep and /wake are what they say
(insomniac: they answer 500; dozy=SECONDS: they take so long).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"


class Server:
    def __init__(self, modes: dict[str, str]) -> None:
        self.deaf = "deaf" in modes
        self.wrong = "wrong" in modes
        self.insomniac = "insomniac" in modes
        self.dozy = float(modes.get("dozy") or 0)
        self.asleep = False
        self.tells = "tells" in modes
        self.probes = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ", 2)[1]
        length = next((int(x[15:]) for x in head.lower().split("\r\n") if x.startswith("content-length:")), 0)
        await reader.readexactly(length)
        if self.tells:
            sys.stderr.write(f"asked for {path}\n")
            sys.stderr.flush()
        if path == "/exit":
            os._exit(0)
        if path == "/deaf":
            self.deaf = True
        if path in ("/sleep", "/wake"):
            await asyncio.sleep(self.dozy)
            self.asleep = path == "/sleep" and not self.insomniac
        status, said = 200, {"ok": True, "pid": os.getpid(), "probes": self.probes, "asleep": self.asleep}
        if self.insomniac and path in ("/sleep", "/wake"):
            status = 500
        if path.startswith("/v1/"):
            self.probes += 1
            if self.deaf or self.asleep:
                await asyncio.sleep(120)
            status, said = (500, {"error": {"message": "no"}}) if self.wrong else (200, {"choices": [{"text": "a"}]})
        body = json.dumps(said).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()


def tell(**phase: object) -> None:
    sys.stdout.write(json.dumps(phase) + "\n")
    sys.stdout.flush()


async def serve(where: list[str], modes: dict[str, str]) -> None:
    server = Server(modes)
    if where[0] == "--socket":
        await asyncio.start_unix_server(server, where[1])
    else:
        await asyncio.start_server(server, "127.0.0.1", int(where[1]))
    if "phases" in modes:
        tell(phase="ready", slots=4)
    if "stubborn" not in modes:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    await asyncio.sleep(120)


def main() -> None:
    where, modes = sys.argv[1:3], dict((mode + "=").split("=")[:2] for mode in sys.argv[3:])
    if "stubborn" in modes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stderr.write("fake worker starts\n")
    sys.stderr.flush()
    if "family" in modes:
        subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=True)
    if "noisy" in modes:
        sys.stdout.write("x" * 300_000 + "\n")
    if "phases" in modes:
        tell(phase="load", pct=40)
    if "crash" in modes:
        sys.stderr.write("out of luck\n")
        sys.exit(3)
    if "exit0" in modes:
        sys.exit(0)
    if "crashes" in modes:
        times, _, name = modes["crashes"].partition(":")
        with Path(name).open("a+") as counter:
            counter.write("x\n")
            counter.seek(0)
            if len(counter.readlines()) <= int(times):
                sys.exit(3)
    time.sleep(float(modes.get("slow") or 0))
    asyncio.run(serve(where, modes))


main()

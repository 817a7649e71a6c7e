"""What a wake costs: the built-in model from off and from asleep, through the gateway and without it, in one run.

    python -m bench.wake [--rounds N] [--write]

Without the gateway means: start the worker and ask it as soon as it says that it is ready; or tell a sleeping worker to
wake and ask it then. What the gateway takes longer is its own share: noticing, setting memory aside, starting the
process, the first inference by which it sees that the worker answers, handing the request over. The two take turns,
and the share is the median of the differences within the rounds.

Measured is the time from the request to the first piece of text of a streamed chat, on loopback. Then: how long after
`idle_after` an idle model still holds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from lumen_cli.client import Admin

from bench import report

ROOT = Path(__file__).parent.parent
IDLE_AFTER = 1.0
CONFIG = f"""
server: {{port: 0}}
auth: {{required: false}}
models:
  cold: {{source: "builtin:tiny", idle_after: {IDLE_AFTER}s, min_residency: 0s}}
  nap: {{source: "builtin:tiny", keep_alive: 300ms, min_residency: 0s}}
logging: {{level: warning}}
"""
LIMIT = 60.0


@dataclass
class Where:
    """A server to ask: a loopback port, or a UNIX socket."""

    model: str
    port: int = 0
    socket: Path | None = None


async def send(where: Where, path: str, body: dict[str, Any] | None = None) -> AsyncIterator[bytes]:
    """POST on a connection of its own; the answer as it comes."""
    data = json.dumps(body or {}).encode()
    if where.socket is not None:
        reader, writer = await asyncio.open_unix_connection(str(where.socket))
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", where.port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    while chunk := await reader.read(65536):
        yield chunk
    writer.close()


async def told(where: Where, path: str) -> None:
    async for _ in send(where, path):
        continue


async def first_token(where: Where) -> float:
    """Seconds from now to the first piece of text; the answer is read to its end."""
    body = {"model": where.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": True}
    begun = time.perf_counter()
    first, seen = 0.0, b""
    async for chunk in send(where, "/v1/chat/completions", body):
        seen += chunk
        if not first and b'"content":"' in seen.replace(b'"content":""', b""):
            first = time.perf_counter() - begun
    if b"[DONE]" not in seen:
        raise SystemExit(f"an answer was not whole: {seen[-300:]!r}")
    return first


async def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not await asyncio.to_thread(true):
        if time.monotonic() > end:
            raise SystemExit(f"waited {LIMIT:g} s for {what}")
        await asyncio.sleep(0.02)


# -- without the gateway -------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """One worker process of our own."""

    where: Where
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, words: list[str], socket: Path) -> Worker:
        """`words`: the command line of a worker that the gateway started; this one differs in where it listens."""
        command = list(words)
        for flag, value in (("--socket", str(socket)), ("--parent-pid", str(os.getpid()))):
            command[command.index(flag) + 1] = value
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        return cls(Where(words[words.index("--name") + 1], socket=socket), process)

    def ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if json.loads(line)["phase"] == "ready":
                return
        raise SystemExit("the worker did not start")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


async def from_off(words: list[str], folder: Path) -> float:
    begun = time.perf_counter()
    worker = Worker.start(words, folder / "cold.sock")
    try:
        await asyncio.to_thread(worker.ready)
        return time.perf_counter() - begun + await first_token(worker.where)
    finally:
        worker.end()


async def from_asleep(worker: Worker) -> float:
    await told(worker.where, "/sleep")
    begun = time.perf_counter()
    await told(worker.where, "/wake")
    return time.perf_counter() - begun + await first_token(worker.where)


# -- through it ----------------------------------------------------------------------------------------------------


@dataclass
class Gateway:
    port: int
    admin: Admin

    def standing(self, model: str) -> dict[str, Any]:
        models = self.admin.status()["models"]
        found: dict[str, Any] = next(one for one in models if one["name"] == model)
        return found

    def is_(self, model: str, residency: str) -> bool:
        one = self.standing(model)
        down = residency != "off" or not one["replicas"]
        return bool(one["standing"]["residency"] == residency and down)

    async def wake(self, model: str, residency: str) -> float:
        await until(lambda: self.is_(model, residency), f"{model} to be {residency}")
        return await first_token(Where(model, port=self.port))


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    environment = {**os.environ, "LUMEN_HOME": str(folder), "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"}
    command = [sys.executable, "-m", "lumen", "--config", str(config)]
    process = await asyncio.to_thread(subprocess.Popen, command, env=environment, stderr=subprocess.DEVNULL, cwd=ROOT)
    admin = Admin(folder / "state" / "run" / "admin.sock")
    try:
        await until(lambda: (admin.status_or_none() or {}).get("ready"), "the gateway")
        port = int(admin.status()["url"].removesuffix("/v1").rpartition(":")[2])
        yield Gateway(port, admin)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


# -- the run -------------------------------------------------------------------------------------------------------


@dataclass
class Times:
    """Seconds, one entry a round."""

    direct: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        return statistics.median(t - d for t, d in zip(self.through, self.direct, strict=True))


@dataclass
class Figures:
    off: Times = field(default_factory=Times)
    asleep: Times = field(default_factory=Times)
    held: list[float] = field(default_factory=list)


async def run(rounds: int) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="lumen-") as name:
        folder = Path(name)
        async with gateway(folder) as lumen:
            await first_token(Where("nap", port=lumen.port))
            words = psutil.Process(lumen.standing("nap")["replicas"][0]["pid"]).cmdline()
            sleeper = Worker.start(words, folder / "nap.sock")
            try:
                await asyncio.to_thread(sleeper.ready)
                # The first ones page files in, for both.
                for each in (from_off(words, folder), from_asleep(sleeper), lumen.wake("cold", "off")):
                    await each
                for number in range(rounds):
                    for through in (True, False) if number % 2 else (False, True):
                        if through:
                            await one_through(lumen, figures)
                        else:
                            figures.off.direct.append(await from_off(words, folder))
                            figures.asleep.direct.append(await from_asleep(sleeper))
            finally:
                sleeper.end()
    return figures


async def one_through(lumen: Gateway, figures: Figures) -> None:
    figures.off.through.append(await lumen.wake("cold", "off"))
    ended = time.perf_counter()
    await until(lambda: not lumen.standing("cold")["standing"]["holds"], "nothing held")
    await until(lambda: lumen.is_("cold", "off"), "no process")
    figures.held.append(time.perf_counter() - ended)
    figures.asleep.through.append(await lumen.wake("nap", "asleep"))


def table(figures: Figures) -> str:
    lines = [
        "| the tiny model, from | without the gateway | through the gateway | the gateway's share |",
        "| --- | --- | --- | --- |",
    ]
    for name, times in (("off", figures.off), ("asleep", figures.asleep)):
        alone, through = statistics.median(times.direct), statistics.median(times.through)
        lines.append(f"| {name} | {alone * 1e3:.0f} ms | **{through * 1e3:.0f} ms** | {times.share * 1e3:.0f} ms |")
    latest = max(figures.held) - IDLE_AFTER
    lines += [
        "",
        f"Idle, it held nothing, and no process was left, {latest:.2f} s after its `idle_after` at the latest; "
        f"all {len(figures.held)} requests that came then were answered.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    figures = asyncio.run(run(arguments.rounds))
    markdown = table(figures)
    print(markdown)
    if arguments.write:
        first = ", which it was scheduled before" if os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO) else ""
        load = f"others' load on the machine when it began: {before:.1f}{first}"
        text = f"Time to the first token of a chat; {arguments.rounds} rounds, medians; {load}.\n\n"
        report.write("Waking", text + markdown)


if __name__ == "__main__":
    main()

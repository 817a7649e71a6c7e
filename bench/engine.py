"""Lumen's llama.cpp worker beside llama.cpp's own server, on the same GGUF, in one run.

    python -m bench.engine [--half | --model GGUF] [--rounds N] [--streams 1,4,16,32] [--no-peer] [--write]

Tokens a second and time to first token of 1, 4, 16 and 32 chat streams, the two servers taking turns within each
round; then the time to first token of a 1,000-token prompt that misses and that hits the prefix cache.
Medians over the rounds. The client runs on the same cores, raw sockets, the same for both. Both servers have as many
slots as there are streams at most, and as many tokens of context for each. `--half`: a model of the shape of real ones
with half a billion random weights, whose answers are noise and whose cost is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from platformdirs import user_cache_path

from bench import report
from bench.shapes import Q4_0, Shape, write

ROOT = Path(__file__).parent.parent
TINY = ROOT / "lumen" / "tiny" / "lumen-tiny.gguf"
WORDS = (ROOT / "LICENSE").read_text().split()
SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "ignore_eos": True}


@dataclass(slots=True)
class Served:
    """A server under test. `process` ends when `stop` closes its stdin or it is told to."""

    name: str
    port: int
    process: subprocess.Popen[str]

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Setting:
    """What both servers are started with. `context`: tokens of each slot."""

    model: Path
    slots: int
    context: int
    threads: int


def start_lumen(given: Setting, more: list[str], name: str = "lumen") -> Served:
    flags = ["--model", given.model, "--name", "bench", "--port", 0, "--slots", given.slots, "--ctx", given.context]
    flags += ["--kv", given.slots * given.context, "--threads", given.threads, "--parent-pid", os.getpid(), *more]
    command = [sys.executable, "-m", "lumen.workers.llamacpp", *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        phase = json.loads(line)
        if phase["phase"] == "ready":
            return Served(name, phase["port"], process)
    raise SystemExit("Lumen's worker did not start")


def start_peer(given: Setting) -> Served:
    flags = [given.model, "--slots", given.slots, "--ctx", given.slots * given.context, "--threads", given.threads]
    command = [sys.executable, "-m", "bench.llama_server", *map(str, flags)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    port = urlsplit(process.stdout.readline().strip()).port
    if port is None:
        raise SystemExit("llama.cpp's server did not start (is xllamacpp installed?)")
    return Served("llama.cpp", port, process)


HALF = Shape("llama", 30, 1024, 16, 8, 64, 4096, 32_000, kind=Q4_0, context=8192)
"""0.53 billion weights, 290 MB."""


def half_billion() -> Path:
    """A GGUF of 0.53 billion random weights in 4 bits, made once in the user's cache folder."""
    return made("random-0.5B-q4_0", HALF)


def made(name: str, shape: Shape, *, seed: int = 0, heard: int | None = None) -> Path:
    """A GGUF of random weights in the user's cache folder, as `bench.shapes.write` makes it, made once."""
    path = user_cache_path("lumen") / "bench" / f"{name}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        write(partial, shape, seed=seed, heard=heard)
        partial.replace(path)
    return path


@dataclass(slots=True)
class Answer:
    first: float  # seconds to the first piece of text
    tokens: int  # of the answer, as its usage says


async def post(port: int, path: str, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one request on a connection of its own; the server closes it after the answer."""
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return reader, writer


async def ask(port: int, prompt: str, max_tokens: int) -> Answer:
    """One streamed chat over a raw connection."""
    body: dict[str, Any] = {
        "model": "bench",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **SAMPLING,
    }
    begun = time.perf_counter()
    reader, writer = await post(port, "/v1/chat/completions", body)
    first, tail = 0.0, b""
    while chunk := await reader.read(65536):
        tail = (tail + chunk)[-2000:]
        if not first and (b'"content":"' in chunk.replace(b'"content":""', b"")):
            first = time.perf_counter() - begun
    writer.close()
    if b"[DONE]" not in tail or b'"completion_tokens":' not in tail:
        raise SystemExit(f"an answer was not whole: {tail[-300:]!r}")
    return Answer(first, int(tail.split(b'"completion_tokens":')[1].split(b",")[0].split(b"}")[0]))


def prompt_of(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


@dataclass(slots=True)
class Score:
    rates: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def first(self) -> float:
        return statistics.median(self.firsts)


async def load(port: int, streams: int, rng: random.Random, score: Score, max_tokens: int) -> None:
    """`streams` answers at once, one after another on each stream: eight in all, and two of each at least."""

    async def one(seed: int) -> list[Answer]:
        own = random.Random(seed)
        return [await ask(port, prompt_of(own, 24), max_tokens) for _ in range(max(2, 8 // streams))]

    begun = time.perf_counter()
    answers = [
        a for each in await asyncio.gather(*(one(rng.random().hex().__hash__()) for _ in range(streams))) for a in each
    ]
    seconds = time.perf_counter() - begun
    score.rates.append(sum(answer.tokens for answer in answers) / seconds)
    score.firsts += [answer.first for answer in answers]


async def prefix(port: int, rng: random.Random, miss: Score, hit: Score) -> None:
    """A prompt of about 1,000 tokens nobody has seen, and then the same with another end."""
    text = prompt_of(rng, 1000)
    while (count := await tokens_of(port, text)) > 1000:
        text = text[: len(text) * 1000 // count]
    miss.firsts.append((await ask(port, text + " first?", 4)).first)
    hit.firsts.append((await ask(port, text + " And then what, second?", 4)).first)


async def tokens_of(port: int, text: str) -> int:
    reader, writer = await post(port, "/tokenize", {"content": text})
    answer = await reader.read(-1)
    writer.close()
    return len(json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])["tokens"])


async def run(servers: list[Served], streams: list[int], rounds: int, tokens: int) -> dict[tuple[str, str], Score]:
    """Scores by (server, what)."""
    scores: dict[tuple[str, str], Score] = {}
    rng = random.Random(1)

    def score(server: Served, what: str) -> Score:
        return scores.setdefault((server.name, what), Score())

    for server in servers:
        await load(server.port, 2, rng, Score(), tokens)
    for number in range(rounds):
        for n in streams:
            for server in servers if number % 2 else servers[::-1]:
                await load(server.port, n, rng, score(server, str(n)), tokens)
        for server in servers:
            await prefix(server.port, rng, score(server, "miss"), score(server, "hit"))
    return scores


def table(scores: dict[tuple[str, str], Score], names: list[str], streams: list[int]) -> str:
    peer = len(names) > 1
    lines = [
        "| streams | "
        + " | ".join(f"{n} tokens/s | {n} first token" for n in names)
        + (" | tokens/s ratio | first-token ratio |" if peer else " |")
    ]
    lines.append("|" + " --- |" * (1 + 2 * len(names) + (2 if peer else 0)))
    for n in streams:
        mine = [scores[name, str(n)] for name in names]
        cells = [f"{s.rate:,.0f} | {s.first * 1e3:.1f} ms" for s in mine]
        if peer:
            cells.append(f"**{mine[0].rate / mine[1].rate:.2f}** | {mine[0].first / mine[1].first:.2f}")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| 1,000-token prompt | miss, first token | hit, first token | miss ÷ hit |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        miss, hit = scores[name, "miss"].first, scores[name, "hit"].first
        lines.append(f"| {name} | {miss * 1e3:.1f} ms | {hit * 1e3:.1f} ms | **{miss / hit:.1f}** |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--half", action="store_true", help="a model of half a billion random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="1,4,16,32")
    parser.add_argument("--ctx", type=int, default=2048, help="tokens of context of each slot")
    parser.add_argument("--tokens", type=int, default=0, help="of each answer (0: 128, of the large model 32)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-peer", action="store_true", help="Lumen alone")
    parser.add_argument("--lumen", default="", help="further flags for Lumen's worker")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    streams = [int(n) for n in arguments.streams.split(",")]
    model = half_billion() if arguments.half else arguments.model
    tokens = arguments.tokens or (32 if arguments.half else 128)
    setting = Setting(model, max(streams), arguments.ctx, arguments.threads)
    servers = [start_lumen(setting, arguments.lumen.split())]
    try:
        if not arguments.no_peer:
            servers.append(start_peer(setting))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            scores = runner.run(run(servers, streams, arguments.rounds, tokens))
    finally:
        for server in servers:
            server.stop()
    markdown = table(scores, [server.name for server in servers], streams)
    print(markdown)
    if arguments.write:
        text = f"`{model.name}`, {arguments.rounds} rounds, medians; {tokens}-token answers, {setting.slots} slots of "
        text += f"{setting.context:,} tokens each, HTTP on loopback.\n\n"
        report.write("llama.cpp engine" + (", half a billion weights" if arguments.half else ""), text + markdown)


if __name__ == "__main__":
    main()

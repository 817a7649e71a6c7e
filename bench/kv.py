"""The first request after a wake from off, whose prompt begins with 1,000 tokens that were computed before it slept.

    python -m bench.kv [--rounds N] [--threads N] [--model tiny|half] [--write]

A worker answers one prompt and is told to end, by which it writes what it computed to the disk. Then, in turns, a
worker that finds this and one that does not are started and asked, as soon as they say that they are ready, with the
same 1,000 tokens and another end. Measured are the time to the first token of that answer and the time from the start
of the process to it; medians over the rounds, the ratio is the median of the rounds' ratios. For the built-in model and
for one of half a billion random weights, whose answers are noise and whose cost is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.engine import TINY, Served, Setting, half_billion, start_lumen

SHARED = 1000
_CALLER = "X-Lumen-Caller: id=bench; salt=bench; keep=1"


@dataclass(frozen=True, slots=True)
class First:
    """Seconds to the first token, from the request and from the start of the process; prompt tokens that were there."""

    asked: float
    begun: float
    cached: int


async def ask(port: int, prompt: list[int]) -> tuple[float, int]:
    """Seconds to the first token of a streamed greedy answer, and prompt tokens that were there already."""
    body: dict[str, Any] = {"model": "bench", "prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    body |= {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}{_CALLER}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    first, seen = 0.0, b""
    while chunk := await reader.read(65536):
        seen += chunk
        if not first and b'"text":' in seen:
            first = time.perf_counter() - begun
    writer.close()
    if b"[DONE]" not in seen or not first:
        raise SystemExit(f"an answer was not whole: {seen[-300:]!r}")
    return first, int(seen.split(b'"cached_tokens":')[1].split(b"}")[0].split(b",")[0])


@contextmanager
def worker(given: Setting, folder: Path | None) -> Iterator[Served]:
    """A worker that keeps prefixes in `folder`; killed at the end where it has not ended by then."""
    served = start_lumen(given, ["--kv-dir", str(folder), "--kv-disk-mb", "1024"] if folder else [])
    try:
        yield served
    finally:
        served.process.kill()
        served.process.wait()


def wake(given: Setting, folder: Path | None, prompt: list[int]) -> First:
    begun = time.perf_counter()
    with worker(given, folder) as served:
        ready = time.perf_counter()
        asked, cached = asyncio.run(ask(served.port, prompt))
        return First(asked, ready - begun + asked, cached)


def measure(given: Setting, rounds: int) -> tuple[list[First], list[First], int]:
    """The wakes with and without what the disk has, in pairs, and the bytes on the disk."""
    rng = random.Random(3)
    shared = [rng.randrange(300, 1000) for _ in range(SHARED)]
    with tempfile.TemporaryDirectory(prefix="lumen-kv-") as temporary:
        seed = Path(temporary) / "seed"
        with worker(given, seed) as served:
            asyncio.run(ask(served.port, [*shared, *rng.choices(range(300, 1000), k=20)]))
            served.process.terminate()
            served.process.wait(60)
        size = sum(path.stat().st_size for path in seed.rglob("*.kv"))
        if not size:
            raise SystemExit("the worker kept nothing")
        warm: list[First] = []
        cold: list[First] = []
        for number in range(rounds):
            prompt = [*shared, *rng.choices(range(300, 1000), k=20)]
            folder = Path(temporary) / str(number)
            shutil.copytree(seed, folder)
            for found in (True, False) if number % 2 else (False, True):
                (warm if found else cold).append(wake(given, folder if found else None, prompt))
    return warm, cold, size


def row(name: str, warm: list[First], cold: list[First], size: int) -> str:
    def median(values: list[float]) -> float:
        return statistics.median(values) * 1e3

    asked = statistics.median(c.asked / w.asked for w, c in zip(warm, cold, strict=True))
    begun = statistics.median(c.begun / w.begun for w, c in zip(warm, cold, strict=True))
    cells = [
        name,
        f"{size / 2**20:.1f} MiB",
        f"{sum(one.cached >= SHARED for one in warm)} of {len(warm)}",
        f"{median([one.asked for one in cold]):,.1f} ms",
        f"{median([one.asked for one in warm]):,.1f} ms",
        f"**{asked:.1f}**",
        f"{median([one.begun for one in cold]):,.0f} ms",
        f"{median([one.begun for one in warm]):,.0f} ms",
        f"**{begun:.2f}**",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", choices=("tiny", "half", "both"), default="both")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    models = {"tiny": ("built-in", TINY), "half": ("half a billion weights", None)}
    lines = [
        "| model | on the disk | found | first token without | with | ratio | from start without | with | ratio |",
        "|" + " --- |" * 9,
    ]
    for name, (words, path) in models.items():
        if arguments.model in (name, "both"):
            given = Setting(path or half_billion(), 4, 2048, arguments.threads)
            lines.append(row(words, *measure(given, arguments.rounds)))
    markdown = "\n".join(lines)
    print(markdown)
    if arguments.write:
        text = f"The first request after a wake from off, {SHARED:,} of its tokens shared with one before; "
        text += f"{arguments.rounds} rounds in turns, medians, {arguments.threads} threads, no gateway.\n\n"
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        if load > cores:
            text += f"Measured on a busy machine: load average {load:.0f} on {cores} cores.\n\n"
        report.write("prefixes on the disk", text + markdown)


if __name__ == "__main__":
    main()

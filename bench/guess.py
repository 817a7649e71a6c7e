"""What guessing tokens ahead is worth: Lumen's llama.cpp worker with it and without, on the same prompts.

    python -m bench.guess [--half | --model GGUF] [--rounds N] [--streams 1,4] [--write]

Predictable text: answers to a prompt that repeats itself, at temperature 0, which go on repeating it. Unpredictable
text: random words, and answers drawn at temperature 1.8. The two workers take turns within each round; medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import uvloop

from bench import report
from bench.engine import TINY, Served, Setting, half_billion, post, start_lumen

PREDICTABLE: dict[str, Any] = {"temperature": 0}
CHANCE: dict[str, Any] = {"temperature": 1.8}
KINDS = {"predictable": PREDICTABLE, "unpredictable": CHANCE}


async def answer(port: int, prompt: list[int], tokens: int, sampling: dict[str, Any]) -> tuple[int, int]:
    """Tokens of one answer, and those of them that had been guessed."""
    body = {"model": "bench", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "cache_prompt": False, **sampling}
    reader, writer = await post(port, "/v1/completions", body)
    said = await reader.read(-1)
    writer.close()
    line = next(line for line in reversed(said.split(b"\n")) if b'"completion_tokens":' in line)
    usage = json.loads(line.removeprefix(b"data: "))["usage"]
    return usage["completion_tokens"], usage.get("completion_tokens_details", {}).get("accepted_prediction_tokens", 0)


def prompt_of(kind: str, dice: random.Random) -> list[int]:
    """About 240 token ids that every model here knows."""
    if kind == "predictable":
        return [dice.randrange(300, 1900) for _ in range(12)] * 20
    return [dice.randrange(300, 1900) for _ in range(240)]


async def load(server: Served, kind: str, streams: int, tokens: int, seed: int) -> tuple[float, float]:
    """Tokens a second, and the share of them that had been guessed."""
    dice = random.Random(seed)
    asked = [(prompt_of(kind, dice), {**KINDS[kind], "seed": dice.getrandbits(32)}) for _ in range(streams)]
    begun = time.perf_counter()
    counts = await asyncio.gather(*(answer(server.port, prompt, tokens, how) for prompt, how in asked))
    seconds = time.perf_counter() - begun
    total = sum(count for count, _ in counts)
    return total / seconds, sum(accepted for _, accepted in counts) / total


async def run(servers: list[Served], streams: list[int], rounds: int, tokens: int) -> list[str]:
    rows = []
    for kind in KINDS:
        for n in streams:
            rates: dict[str, list[float]] = {server.name: [] for server in servers}
            shares = []
            for number in range(-1, rounds):
                for server in servers if number % 2 else servers[::-1]:
                    rate, share = await load(server, kind, n, tokens, 7 * n + max(number, 0))
                    if number >= 0:  # the first warms up
                        rates[server.name].append(rate)
                        shares += [share] if server.name == "on" else []
            on, off = (statistics.median(rates[name]) for name in ("on", "off"))
            share = statistics.median(shares)
            rows.append(f"| {kind} | {n} | {off:,.0f} | {on:,.0f} | **{on / off:.2f}** | {100 * share:.0f} % |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--half", action="store_true", help="a model of half a billion random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--tokens", type=int, default=0, help="of each answer (0: 400, of the large model 96)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    given = parser.parse_args()
    streams = [int(n) for n in given.streams.split(",")]
    model = half_billion() if given.half else given.model
    tokens = given.tokens or (96 if given.half else 400)
    setting = Setting(model, max(streams), 1024, given.threads)
    servers: list[Served] = []
    try:
        servers.append(start_lumen(setting, ["--speculate", "off"], "off"))
        servers.append(start_lumen(setting, [], "on"))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(run(servers, streams, given.rounds, tokens))
    finally:
        for server in servers:
            server.stop()
    text = f"`{model.name}`, {given.rounds} rounds, medians; {tokens}-token answers, HTTP on loopback.\n\n"
    text += "| text | streams | tokens/s without | with guesses | ratio | tokens that were guessed |\n"
    text += "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    print(text)
    if given.write:
        report.write("Guessing ahead" + (", half a billion weights" if given.half else ""), text)


if __name__ == "__main__":
    main()

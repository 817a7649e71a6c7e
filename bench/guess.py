"""What guessing tokens ahead is worth: Lumen's llama.cpp worker with it and without, on the same prompts.

    python -m bench.guess [--half | --model GGUF] [--draft | --draft-model GGUF] [--rounds N] [--streams 1,4] [--write]

Predictable text: answers to a prompt that repeats itself, at temperature 0, which go on repeating it. Unpredictable
text: random words, and answers drawn at temperature 1.8. The workers take turns within each round; medians.

`--draft`: with draft models, on text that repeats nothing: random words, and answers drawn at temperature 0.8 from the
40 likeliest tokens. No pair of real models is at hand that is large enough, so one is made in which the draft predicts
by construction: 0.16 billion random weights in 24 layers, of which only the first two are heard (the others compute as
much and project to zero), and a draft that consists of these two. It says what the model says, for a twelfth of the
work in its layers. Beside it a draft of the same shape with other weights, which predicts nothing. What is measured is
the machinery, at both ends of what draft models can be worth; how well a real one predicts is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from bench import report
from bench.engine import TINY, Served, Setting, half_billion, made, post, start_lumen
from bench.shapes import Q4_0, Shape

PREDICTABLE: dict[str, Any] = {"temperature": 0}
CHANCE: dict[str, Any] = {"temperature": 1.8}
TEXTS = {"predictable": PREDICTABLE, "unpredictable": CHANCE}
DRAWS: dict[str, dict[str, Any]] = {"drawn": {"temperature": 0.8, "top_k": 40}}
KINDS = TEXTS | DRAWS
PAIRED = Shape("llama", 24, 768, 12, 4, 64, 2048, 8192, kind=Q4_0, context=8192)
HEARD = 2


PAIR = f"""The model is made so that its draft predicts it: of {PAIRED.layers} layers of random weights {HEARD} are
heard (the others compute as much and project to zero), and the draft consists of these {HEARD}: it says the same for
a fraction of the work. The draft that does not predict has other weights. Real drafts lie between the two. Prompts
are random words, answers are drawn by seeds.

"""


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


def processor(server: Served) -> float:
    """Seconds of processor time that a worker has used: other programs on the machine change them little."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(server: Served, kind: str, streams: int, tokens: int, seed: int) -> tuple[float, float, float]:
    """Tokens a second, the share of them that had been guessed, and tokens a second of processor time."""
    dice = random.Random(seed)
    asked = [(prompt_of(kind, dice), {**KINDS[kind], "seed": dice.getrandbits(32)}) for _ in range(streams)]
    begun, used = time.perf_counter(), processor(server)
    counts = await asyncio.gather(*(answer(server.port, prompt, tokens, how) for prompt, how in asked))
    seconds = time.perf_counter() - begun
    total = sum(count for count, _ in counts)
    return total / seconds, sum(accepted for _, accepted in counts) / total, total / (processor(server) - used)


async def run(servers: list[Served], kinds: Iterable[str], streams: list[int], rounds: int, tokens: int) -> list[str]:
    """One row for each kind of text, number of streams, and server but the first, which makes no guesses."""
    rows = []
    for kind in kinds:
        for n in streams:
            rates: dict[str, list[float]] = {server.name: [] for server in servers}
            shares: dict[str, list[float]] = {server.name: [] for server in servers}
            busy: dict[str, list[float]] = {server.name: [] for server in servers}
            for number in range(-1, rounds):
                for server in servers if number % 2 else servers[::-1]:
                    rate, share, work = await load(server, kind, n, tokens, 7 * n + max(number, 0))
                    if number >= 0:  # the first warms up
                        rates[server.name].append(rate)
                        shares[server.name].append(share)
                        busy[server.name].append(work)
            off, *others = (server.name for server in servers)
            plain = statistics.median(rates[off])
            for name in others:
                rate, share = statistics.median(rates[name]), statistics.median(shares[name])
                work = statistics.median(busy[name]) / statistics.median(busy[off])
                told = f"{kind}, {name}" if len(others) > 1 else kind
                rows.append(
                    f"| {told} | {n} | {plain:,.1f} | {rate:,.1f} | **{rate / plain:.2f}** | {work:.2f} | "
                    f"{100 * share:.0f} % |"
                )
                print(rows[-1], flush=True)
    return rows


def pair() -> tuple[Path, dict[str, Path]]:
    """A model of which two layers are heard, and drafts for it by what they are worth."""
    small = replace(PAIRED, layers=HEARD)
    drafts = {
        "the draft predicts": made(f"random-0.16B-{HEARD}-layers", small),
        "the draft does not": made(f"random-0.16B-{HEARD}-layers-other", small, seed=9),
    }
    return made(f"random-0.16B-q4_0-{HEARD}-heard", PAIRED, heard=HEARD), drafts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=TINY)
    parser.add_argument("--half", action="store_true", help="a model of half a billion random weights")
    parser.add_argument("--draft", action="store_true", help="with draft models that predict all, and nothing")
    parser.add_argument("--draft-model", type=Path, help="with this draft model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--tokens", type=int, default=0, help="of each answer (0: 400, of the large model 96)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    given = parser.parse_args()
    streams = [int(n) for n in given.streams.split(",")]
    model, drafts = half_billion() if given.half else given.model, {"on": given.draft_model}
    kinds = TEXTS if given.draft_model is None and not given.draft else DRAWS
    if given.draft:
        model, drafts = pair()
    tokens = given.tokens or (96 if given.half or given.draft else 400)
    setting = Setting(model, max(streams), 1024, given.threads)
    servers: list[Served] = []
    try:
        servers.append(start_lumen(setting, ["--speculate", "off"], "off"))
        for name, draft in drafts.items():
            servers.append(start_lumen(setting, ["--draft", str(draft)] if draft is not None else [], name))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(run(servers, kinds, streams, given.rounds, tokens))
    finally:
        for server in servers:
            server.stop()
    text = f"`{model.name}`, {given.rounds} rounds, medians; {tokens}-token answers, {given.threads} threads, HTTP on "
    text += "loopback.\n\n"
    if given.draft:
        text += PAIR
    text += (
        "| text | streams | tokens/s without | with guesses | ratio | by processor time | tokens that were guessed |\n"
    )
    text += "| --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    print(text)
    if given.write:
        more = "half a billion weights" if given.half else "draft models" if given.draft else ""
        more = f"the draft model {given.draft_model.stem}" if given.draft_model is not None else more
        report.write("Guessing ahead" + (f", {more}" if more else ""), text)


if __name__ == "__main__":
    main()

"""Which of two replicas a prompt goes to: by its beginning, and in turn; the real engine, in one run.

    python -m bench.affinity [--rounds N] [--write]

Two kinds of traffic, four clients at once: conversations that grow by a turn at a time, and questions below a few long
system prompts that many share. The two ways take turns within each round, on prompts that nobody has seen before.
Counted: the share of prompt tokens that a cache gave, and the time to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench import report
from lumen.config.schema import Model
from lumen.engines.base import ModelFiles
from lumen.engines.registry import engine
from lumen.workers.affinity import blocks
from lumen.workers.load import Lease
from lumen.workers.supervisor import Supervisor

ROOT = Path(__file__).parent.parent
TINY = ROOT / "lumen" / "tiny" / "lumen-tiny.gguf"
WORDS = (ROOT / "LICENSE").read_text().split()
CLIENTS = 4
Talk = list[tuple[str, str]]


@dataclass
class Score:
    prompt: int = 0
    cached: int = 0
    firsts: list[float] = field(default_factory=list)

    @property
    def hits(self) -> float:
        return self.cached / max(self.prompt, 1)


class Replicas:
    """Two replicas, asked in either way."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._turn = itertools.count()

    async def lease(self, talk: Talk, by_prompt: bool) -> Lease:
        if by_prompt:
            return await self._supervisor.acquire("tiny", 60, lambda: blocks(talk))
        group = self._supervisor._pool.members["tiny"].group
        return group.replicas[next(self._turn) % 2].lease()

    async def ask(self, talk: Talk, by_prompt: bool, score: Score) -> str:
        """One streamed answer, counted."""
        lease = await self.lease(talk, by_prompt)
        body = {
            "model": lease.served,
            "messages": [{"role": role, "content": text} for role, text in talk],
            "max_tokens": 12,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        said, first, begun = "", 0.0, time.perf_counter()
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(lease.socket))) as session,
                session.post(lease.base_url + "/v1/chat/completions", json=body) as answer,
            ):
                async for line in answer.content:
                    if not line.startswith(b"data: {"):
                        continue
                    event = json.loads(line[6:])
                    piece = event["choices"][0]["delta"].get("content") if event["choices"] else None
                    if piece and not first:
                        first = time.perf_counter() - begun
                    said += piece or ""
                    if event.get("usage"):
                        score.prompt += event["usage"]["prompt_tokens"]
                        score.cached += event["usage"]["prompt_tokens_details"]["cached_tokens"]
        finally:
            lease.release(True)
        score.firsts.append(first)
        return said


def text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def conversations(draw: random.Random) -> Iterator[list[Talk]]:
    """Each a list of turns, the user's part of each; all below one short system prompt."""
    for _ in range(16):
        yield [[("user", text(draw, 60))] for _ in range(4)]


async def talks(replicas: Replicas, draw: random.Random, by_prompt: bool, score: Score) -> None:
    waiting = list(conversations(draw))

    async def client() -> None:
        while waiting:
            talk: Talk = [("system", "Answer briefly.")]
            for turn in waiting.pop():
                talk += turn
                talk.append(("assistant", await replicas.ask(talk, by_prompt, score)))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def shared(replicas: Replicas, draw: random.Random, by_prompt: bool, score: Score) -> None:
    systems = [text(draw, 250) for _ in range(6)]
    waiting = [(system, text(draw, 12)) for system in systems for _ in range(8)]
    draw.shuffle(waiting)

    async def client() -> None:
        while waiting:
            system, question = waiting.pop()
            await replicas.ask([("system", system), ("user", question)], by_prompt, score)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def run(rounds: int) -> dict[tuple[str, bool], Score]:
    scores: dict[tuple[str, bool], Score] = {}
    with tempfile.TemporaryDirectory(prefix="lumen-") as name:
        folder = Path(name)
        supervisor = Supervisor(engine, folder, folder / "logs", lambda state: None)
        await supervisor.start()
        try:
            model = Model("builtin:tiny", replicas=2, slots=4, threads=1, context=2048)
            await supervisor.apply({"tiny": (model, ModelFiles("tiny", TINY))})
            for _ in range(1200):
                if sum(one.state == "ready" for one in supervisor.states()) == 2:
                    break
                await asyncio.sleep(0.05)
            replicas = Replicas(supervisor)
            for number in range(rounds):
                for by_prompt in (True, False) if number % 2 else (False, True):
                    for kind, work in (("conversations", talks), ("shared system prompts", shared)):
                        draw = random.Random(f"{number} {by_prompt} {kind}")
                        await work(replicas, draw, by_prompt, scores.setdefault((kind, by_prompt), Score()))
        finally:
            await supervisor.stop(5)
    return scores


def table(scores: dict[tuple[str, bool], Score]) -> str:
    lines = [
        "| traffic | cached, in turn | cached, by prompt | first token, in turn | first token, by prompt | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in dict.fromkeys(kind for kind, _ in scores):
        turn, prompt = scores[kind, False], scores[kind, True]
        before, after = (statistics.median(one.firsts) * 1e3 for one in (turn, prompt))
        lines.append(
            f"| {kind} | {turn.hits:.0%} | **{prompt.hits:.0%}** | {before:.1f} ms | **{after:.1f} ms** | "
            f"{before / after:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    markdown = table(asyncio.run(run(arguments.rounds)))
    print(markdown)
    if arguments.write:
        intro = f"The tiny model, two replicas, {CLIENTS} clients, {arguments.rounds} rounds; medians.\n\n"
        report.write("Which replica a prompt goes to", intro + markdown)


if __name__ == "__main__":
    main()

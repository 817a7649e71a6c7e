"""What a failover in the middle of an answer costs the reader, rung by rung, on a real gateway.

    python -m bench.failover [--cuts 20,60,100] [--rounds 3] [--places 10] [--write]

Local answers come from the built-in model on the real llama.cpp engine, whose process is killed with SIGKILL or whose
connection is aborted; remote ones from the emulated provider of the tests. The seam is the time from the break to the
next piece of new text at the client. It stands beside the replacement's own time to first token, measured before each
break on the same gateway. Last: how many answers that were broken off equal the unbroken one byte for byte.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import report
from bench.breaking import Answer
from bench.breaking import ask as ask_at
from bench.failing import REPLICAS, TAKES_OVER, WORDS, Failing, failing
from tests.e2e.cuts import ASKED

ALLOWED = 0.05
NOTES = """The replacement's own first token is that

- of a question as long as the question and the answer so far, for `token-exact`;
- with `exact: true`: the token at the same place of an unbroken answer, for all of it is generated once more;
- where a model has one process: of a question asked right after that process was killed, its start included;
- of the same question, on the other rungs."""


@dataclass
class Row:
    """Breaks of one kind, in seconds. `own`: what the replacement alone takes, as measured before each break."""

    rung: str
    how: str
    seams: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def add(self, seam: float, own: float) -> None:
        self.seams.append(seam)
        self.own.append(own)

    def cells(self) -> str:
        over = [seam - own for seam, own in zip(self.seams, self.own, strict=True)]
        within = sum(more <= ALLOWED for more in over)
        told = " | ".join(_spread(values) for values in (self.seams, self.own, over))
        return f"| {self.rung} | {self.how} | {told} | {within} of {len(over)} |"


def _spread(values: Sequence[float]) -> str:
    middle, low, high = (round(1000 * f(values), 1) for f in (statistics.median, min, max))
    return f"{middle:g} ({low:g} to {high:g})"


# -- local: the real engine -------------------------------------------------------------------------------------------


async def killed(on: Failing, model: str, route: str, after: int) -> tuple[Answer, float]:
    """One answer of `route` whose worker is killed behind its `after`-th piece, and when that was."""
    moment = 0.0
    looked: asyncio.Task[list[dict[str, Any]]] | None = None

    def strike(pieces: int) -> None:
        nonlocal moment, looked
        if looked is None:
            looked = asyncio.create_task(asyncio.to_thread(on.replicas, model))
        if not moment and pieces >= after and looked.done():
            (busy,) = [replica["pid"] for replica in looked.result() if replica["in_flight"]]
            moment = time.perf_counter()
            os.kill(busy, signal.SIGKILL)

    answer = await ask_at(on.port, on.story(route), strike)
    await asyncio.to_thread(on.renew, model)
    return answer, moment


async def restarted(on: Failing, more: int) -> Answer:
    """The first answer of the model with one process after that was killed a moment before."""
    (replica,) = await asyncio.to_thread(on.replicas, "one")
    os.kill(replica["pid"], signal.SIGKILL)
    answer = await on.unbroken(on.story("one", more))
    await asyncio.to_thread(on.renew, "one")
    return answer


async def kill_row(on: Failing, model: str, exact: bool, cuts: Sequence[int]) -> Row:
    replicas = "another replica" if REPLICAS[model] > 1 else "the same one, started again"
    row = Row(f"token-exact{', `exact: true`' if exact else ''}, {replicas}", "SIGKILL")
    route = f"{model}-exact" if exact else model
    for after in cuts:
        own = await (restarted(on, after) if model == "one" else on.unbroken(on.story(route, 0 if exact else after)))
        answer, moment = await killed(on, model, route, after)
        if not answer.seams:
            continue  # All of the answer was on its way already.
        at = answer.seams[-1][1]
        row.add(answer.went_on() - moment, own.times[min(at, len(own.times) - 1)] - own.asked if exact else own.first)
    return row


async def abort_row(on: Failing, cuts: Sequence[int]) -> Row:
    row = Row("token-exact, another replica", "abort")
    for after in cuts:
        own = await on.unbroken(on.story("aborted", after))
        answer = await on.aborted("aborted", on.story("aborted"), after)
        row.add(answer.went_on() - on.breaker.broke, own.first)
    return row


# -- remote: the emulated provider ------------------------------------------------------------------------------------


async def remote_row(on: Failing, rung: str, breaks: int) -> Row:
    row = Row(rung if rung != "error" else "honest error: nothing can go on", "abort")
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 200}
    if rung == "replay-exact":
        body["temperature"] = 0
    if rung == "error":
        body["tools"] = [{"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}]
    for i in range(breaks):
        own = await on.unbroken({**body, "model": f"own-{rung}-{i}"})
        answer = await on.aborted(f"{rung}-{i}", body, WORDS // 2)
        if [seam["rung"] for seam, _ in answer.seams] != ([rung] if rung != "error" else []):
            raise SystemExit(f"{rung}: {answer}")
        row.add((answer.failed or answer.went_on()) - on.breaker.broke, own.first if rung != "error" else 0.0)
    return row


# -- the same bytes ---------------------------------------------------------------------------------------------------


async def equal(on: Failing, name: str, route: str, places: int) -> tuple[int, int]:
    """How many of so many answers, cut at an even spread of places, equal the unbroken one."""
    body = {"max_tokens": 200, **ASKED[name], "model": route}
    whole = await on.unbroken(body)
    cuts = sorted({max(2, len(whole.times) * i // (places + 1)) for i in range(1, places + 1)})
    same = 0
    for after in cuts:
        answer = await on.aborted(route, body, after)
        if not answer.done or len(answer.seams) != 1:
            raise SystemExit(f"{name}, cut behind event {after}: {answer}")
        same += answer.said == whole.said
    return same, len(cuts)


async def equality(on: Failing, places: int) -> str:
    lines = ["| answer | equal by default | equal with `exact: true` |", "| --- | --- | --- |"]
    routes = ("aborted", "aborted-exact")
    total, made = dict.fromkeys(routes, 0), dict.fromkeys(routes, 0)
    for name in ASKED:
        cells = []
        for route in routes:
            same, cuts = await equal(on, name, route, places)
            total[route] += same
            made[route] += cuts
            cells.append(f"{same} of {cuts}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    shares = [f"**{total[route] / made[route]:.1%}** ({total[route]} of {made[route]})" for route in routes]
    return "\n".join([*lines, f"| all | {' | '.join(shares)} |"])


# -- the whole --------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    head = "| rung | broken by | seam, ms | replacement's own first token, ms | seam − own, ms | within own + 50 ms |"
    return "\n".join([head, "|" + " --- |" * 6, *(row.cells() for row in rows)])


async def run(cuts: Sequence[int], rounds: int, places: int, say: Callable[[str], None]) -> str:
    breaks = [*cuts] * rounds
    async with failing(len(breaks)) as on:
        for model in REPLICAS:
            await on.unbroken(on.story(model))
        rows: list[Row] = []
        for made in (
            kill_row(on, "two", False, breaks),
            kill_row(on, "one", False, breaks),
            abort_row(on, breaks),
            kill_row(on, "two", True, breaks),
            *(remote_row(on, rung, len(breaks)) for rung in TAKES_OVER),
        ):
            rows.append(await made)
            say(rows[-1].cells())
        same = await equality(on, places)
        say(same)
    return f"{table(rows)}\n\n{NOTES}\n\n{same}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", default="20,60,100", help="pieces of text before the break")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--places", type=int, default=10, help="cuts of each answer that is compared")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    given = parser.parse_args()
    cuts = [int(cut) for cut in given.cuts.split(",")]
    text = asyncio.run(run(cuts, given.rounds, given.places, lambda line: print(line, flush=True)))
    if given.write:
        command = f"`python -m bench.failover --cuts {given.cuts} --rounds {given.rounds} --places {given.places}`"
        told = f"{command}; medians and ranges over {len(cuts) * given.rounds} breaks of each kind."
        report.write("Failover", f"{told}\n\n{text}")


if __name__ == "__main__":
    main()

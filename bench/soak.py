"""An hour of mixed traffic on one gateway, while its engines are killed, sent to sleep, woken, moved and changed.

    python -m bench.soak [--minutes 60] [--rate 3] [--every 12] [--seed N] [--write]

Chats, streams, tool calls, JSON and embeddings go to local models (one of two replicas, one that sleeps and ends when
idle, one of embeddings) with the emulated provider as the fallback. In between, one trouble at a time: kill -9 of an
engine, `sleep`, `wake`, `lumen gpu assign` with another number of replicas, a changed parameter. The exit status is 1
where anything that is promised was not kept:

- every stream ends with its finish reason, its usage and `[DONE]`, and every request is answered, if not at once then
  when it is asked again, as the usual clients do after a refusal;
- the ledger has, for each answer, what its client was told, to the token and the pico-dollar (and no less where an
  engine was killed under it, whose last tokens are estimated), no hold is left, and of the provider it has what that
  itself counted;
- when the traffic ends, memory is given to living engines alone, to each at least what it is measured to hold, and to
  nobody once all are off; no process outlives the gateway;
- the gateway's memory is flat: within a tenth between the end of the warm-up and the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from lumen_cli.client import Admin

from bench import report
from bench.gateway import free_port
from bench.soaking import CONFIG, KINDS, PRICES, ROOT, Client, Seen, Trouble, environment
from lumen.hardware import processes
from lumen.ledger.rows import ESTIMATED

_SAMPLE = 5.0  # seconds between looks at the gateway's memory
_SETTLES = 180.0
_FLAT = 0.1
# Between two looks at a process that sleeps, its memory differs by some pages.
_CLOSE = 1.02


@dataclass
class Figures:
    """What a run came to. `sizes`: resident bytes of the gateway, one a sample. `faults`: promises not kept."""

    minutes: float
    seen: list[Seen] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    held: list[tuple[str, int, int]] = field(default_factory=list)
    rows: int = 0
    billed: int = 0
    refused: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def check(self, kept: object, told: str) -> None:
        if not kept:
            self.faults.append(told)

    @property
    def growth(self) -> float:
        """How much larger the gateway was in the last tenth than in the tenth behind the warm-up of a tenth."""
        tenth = max(1, len(self.sizes) // 10)
        begin, end = self.sizes[tenth : 2 * tenth], self.sizes[-tenth:]
        return statistics.median(end) / statistics.median(begin or end) - 1


@contextlib.contextmanager
def child(home: Path, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    with (home / "log").open("ab") as log:
        made = subprocess.Popen([sys.executable, "-m", *argv], env=environment(home), cwd=ROOT, stdout=log, stderr=log)
    try:
        yield made
    finally:
        made.terminate()
        try:
            made.wait(90)
        except subprocess.TimeoutExpired:
            made.kill()
            made.wait()


def until(true: Callable[[], Any], what: str, seconds: float = _SETTLES) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)
    return found


async def sample(pid: int, sizes: list[int], end: asyncio.Event) -> None:
    gateway = psutil.Process(pid)
    while not end.is_set():
        sizes.append(gateway.memory_info().rss)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.wait(), _SAMPLE)


async def traffic(figures: Figures, client: Client, trouble: Trouble, pid: int, rate: float, every: float) -> None:
    seconds, over = figures.minutes * 60, asyncio.Event()
    looking = asyncio.create_task(sample(pid, figures.sizes, over))
    # The last troubles are behind the traffic's back when it ends, so that all of it meets some.
    await asyncio.gather(client.run(seconds, rate), trouble.run(seconds, every))
    over.set()
    await looking


def replicas(admin: Admin) -> list[dict[str, Any]]:
    return [
        {**one, "owner": f"{model['name']}/{one['index']}"}
        for model in admin.status()["models"]
        for one in model["replicas"]
    ]


def settled(admin: Admin) -> bool:
    return all(one["state"] in ("ready", "asleep", "off") for one in replicas(admin))


def check_memory(figures: Figures, admin: Admin) -> None:
    """Whom memory is given to, beside what is measured of them; then all of it back."""
    until(lambda: settled(admin), "the engines to come to rest")
    told = until(lambda: _quiet(admin.get("/admin/memory")), "memory to be seen back")
    living = {one["owner"]: one["pid"] for one in replicas(admin) if one["pid"]}
    # The owner's last part is which of its lives it is.
    given = {one["owner"].rpartition("/")[0]: one["charged"].get("ram", 0) for one in told["holdings"]}
    figures.check(given.keys() == living.keys(), f"memory is given to {sorted(given)}, and {sorted(living)} live")
    for owner in sorted(given.keys() & living.keys()):
        held = processes.memory([living[owner]]).held
        figures.held.append((owner, given[owner], held))
        figures.check(held <= given[owner] * _CLOSE, f"{owner} was given {given[owner]} bytes and holds {held}")
    charged = next(one["charged"] for one in told["devices"] if one["id"] == "ram")
    figures.check(charged == sum(given.values()), f"{charged} bytes are given, and {sum(given.values())} to somebody")


def _quiet(told: dict[str, Any]) -> dict[str, Any] | None:
    return told if not any(any(one["returning"].values()) for one in told["holdings"]) else None


def check_processes(figures: Figures, home: Path) -> None:
    """Nothing of this installation outlives its gateway."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LUMEN_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
    figures.check(not left, f"left over: {left}")


def check_ledger(figures: Figures, file: Path, served: Sequence[dict[str, Any]]) -> None:
    """The ledger beside what the clients were told and what the provider counted."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        names = "request, provider, input, output, cost, outcome, flags"
        rows = ledger.execute(f"SELECT {names} FROM attempts ORDER BY request, seq").fetchall()
        (holds,) = ledger.execute("SELECT count(*) FROM holds").fetchone()
    figures.rows = len(rows)
    figures.check(not holds, f"{holds} holds are left")
    by_request: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_request.setdefault(row[0], []).append(row)
    for request in figures.refused:
        figures.billed += sum(row[4] for row in by_request.pop(request, []))
    for seen in figures.seen:
        mine = by_request.pop(seen.id, [])
        figures.billed += sum(row[4] for row in mine)
        if seen.what == "whole":
            # A replay that came out differently was work, and is no part of the answer.
            output = sum(row[3] or 0 for row in mine if row[5] != "upstream_diverged")
            last = mine[-1][5] if mine else "no row"
            figures.check(last == "ok", f"{seen.kind} {seen.id} was whole, and its last row says {last}")
            # Of an engine that was killed nobody knows what it made and could not tell any more: that is estimated, and
            # marked so. The client is told of what it got.
            estimated = any(row[6] & ESTIMATED for row in mine)
            right = output >= seen.output if estimated else output == seen.output
            figures.check(right, f"{seen.kind} {seen.id}: {seen.output} tokens told, {output} booked")
    figures.check(not by_request, f"{len(by_request)} requests are booked that nobody made: {list(by_request)[:5]}")
    for _, provider, given, made, cost, *_ in rows:
        dear = PRICES["emulated" if provider == "emulated" else ""]
        due = ((given or 0) * dear[0] + (made or 0) * dear[1]) * 10**6
        figures.check(cost == due, f"{given} + {made} tokens of {provider} cost {cost}, not {due}")
    theirs = sum(one["completion_tokens"] for one in served)
    ours = sum(row[3] or 0 for row in rows if row[1] == "emulated")
    figures.check(ours == theirs, f"the provider counted {theirs} tokens, the ledger {ours}")


def run(minutes: float, rate: float, every: float, seed: int, kept: Path | None) -> Figures:
    figures = Figures(minutes)
    with contextlib.ExitStack() as stack:
        home = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lumen-")))
        home.mkdir(parents=True, exist_ok=True)
        port, emulator = free_port(), free_port()
        config = home / "config.yaml"
        config.write_text(CONFIG.format(port=port, emulator=emulator))
        stack.enter_context(child(home, "tests.emulator", "--port", str(emulator)))
        state = home / "state"
        with child(home, "lumen", "--config", str(config)) as gateway:
            until((state / "run" / "gateway.json").exists, "the gateway")
            admin = Admin(state / "run" / "admin.sock", timeout=30.0)
            until(lambda: (admin.status_or_none() or {}).get("ready") and settled(admin), "the engines")
            client, trouble = Client(port, seed), Trouble(home, config, admin, seed)
            figures.seen, figures.refused = client.seen, client.refused
            asyncio.run(traffic(figures, client, trouble, gateway.pid, rate, every))
            check_memory(figures, admin)
        with urllib.request.urlopen(f"http://127.0.0.1:{emulator}/served", timeout=30) as answer:
            served = json.load(answer)
        check_ledger(figures, state / "ledger.db", served)
    check_processes(figures, home)
    figures.made = trouble.made
    for told in trouble.failed:
        figures.faults.append(f"trouble failed: {told}")
    for seen in figures.seen:
        figures.check(seen.what == "whole", f"{seen.kind} {seen.id} was {seen.what}: {seen.why}")
    figures.check(abs(figures.growth) <= _FLAT, f"the gateway's memory changed by {figures.growth:+.1%}")
    return figures


def table(figures: Figures) -> str:
    lines = [
        "| traffic | requests | whole | asked again | refused | broken | went on from another |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        mine = [seen for seen in figures.seen if seen.kind == kind.name]
        what, rungs = Counter(seen.what for seen in mine), Counter(rung for seen in mine for rung in seen.rungs)
        went = ", ".join(f"{many} × {rung}" for rung, many in sorted(rungs.items()))
        again = sum(seen.again for seen in mine)
        counts = f"{len(mine)} | {what['whole']} | {again} | {what['refused']} | {what['broken']}"
        lines.append(f"| {kind.name} | {counts} | {went or '-'} |")
    total, again = Counter(seen.what for seen in figures.seen), len(figures.refused)
    counts = f"**{total['whole']}** | {again} | **{total['refused']}** | **{total['broken']}**"
    lines.append(f"| all | {len(figures.seen)} | {counts} | |")
    tenth = max(1, len(figures.sizes) // 10)
    megabytes = [size / 1e6 for size in figures.sizes]
    begin, end = megabytes[tenth : 2 * tenth] or megabytes, megabytes[-tenth:]
    held = ", ".join(f"{owner} {held / 1e6:.0f} of {given / 1e6:.0f} MB" for owner, given, held in figures.held)
    lines += [
        "",
        f"Meanwhile: {', '.join(f'{many} {name}' for name, many in sorted(figures.made.items()))}. "
        f"Memory at the end, held of given: {held or 'none'}. "
        f"The gateway: {statistics.median(begin):.1f} MB after the warm-up, {statistics.median(end):.1f} MB at the end "
        f"(**{figures.growth:+.1%}**). The ledger: {figures.rows} attempts, {figures.billed / 1e12:.6f} dollars. "
        + (
            f"**{len(figures.faults)} promises were not kept.**"
            if figures.faults
            else "Every answer was booked as its client was told it, nothing was left over, and no promise was broken."
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=3.0, help="requests a second")
    parser.add_argument("--every", type=float, default=12.0, help="seconds between troubles, in the mean")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="keep configuration, logs and ledger here")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    figures = run(arguments.minutes, arguments.rate, arguments.every, arguments.seed, arguments.home)
    markdown = table(figures)
    print(markdown)
    for told in figures.faults[:50]:
        print(f"NOT KEPT: {told}", file=sys.stderr)
    if arguments.write:
        how = (
            f"{arguments.minutes:g} minutes, {arguments.rate:g} requests a second, trouble every {arguments.every:g} s"
        )
        text = f"{how}, seed {arguments.seed}; others' load on the machine when it began: {before:.1f}.\n\n"
        report.write("Soak", text + markdown)
    sys.exit(1 if figures.faults else 0)


if __name__ == "__main__":
    main()

"""What the gateway costs: Lumen, a bare aiohttp relay (and LiteLLM where installed) before the same emulated upstream.

`python -m bench.gateway [--rounds 5]`. The subjects take turns in every round; each is pinned to one core, the load
and the upstream to another. Figures are medians over rounds; ratios are taken within a round. `lumen` has everything
on that a paid request passes: key, limits, breaker, latency history, a budget whose hold and whose end are each
committed to the ledger before anything goes on. `lumen, free` is the same without prices, so without holds;
`lumen, auto` the same as `lumen` with two targets and a learnt scorer that chooses between them for each request, which
is like those that were labelled; `lumen, auto, strange`: which is like none of them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import uvloop

from bench import learnt, report
from bench.load import Sample, closed_loop, open_loop

CHUNKS = 64
PAID, FREE, AUTO, STRANGE = "lumen", "lumen, free", "lumen, auto", "lumen, auto, strange"
PROMPT = "Say sixty-four words. " * 8


@dataclass
class Subject:
    """A running server under test; `cpu` counts its whole process tree."""

    name: str
    port: int
    process: psutil.Process
    key: str = "none"
    model: str = "m"
    prompt: str = PROMPT

    def cpu(self) -> float:
        """Seconds so far, to the nanosecond, of every thread that lives."""
        family = [self.process, *self.process.children(recursive=True)]
        tasks = [task for process in family for task in Path(f"/proc/{process.pid}/task").iterdir()]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def request(self, stream: bool) -> bytes:
        said = [{"role": "system", "content": learnt.SYSTEM}, {"role": "user", "content": self.prompt}]
        body = json.dumps({"model": self.model, "messages": said, "stream": stream}, separators=(",", ":")).encode()
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {self.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(argv: list[str], core: int, port: int, env: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    """A child pinned to one core, listening when this yields, gone when it returns."""
    cores = sorted(os.sched_getaffinity(0))
    with log.open("ab") as out:
        child = subprocess.Popen(argv, env={**os.environ, **env}, stdout=out, stderr=out)
    try:
        os.sched_setaffinity(child.pid, {cores[core % len(cores)]})
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            if child.poll() is not None:
                raise SystemExit(f"{argv[:4]} ended at once:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def lumen(home: Path, upstream: int, name: str = PAID) -> Iterator[Subject]:
    from lumen.keys import KeyRing, mint, save

    home, port = home / name.replace(", ", "-"), free_port()
    key, secret = mint("bench")
    config = home / "config" / "config.yaml"
    config.parent.mkdir(parents=True)
    save(home / "config" / "keys.json", KeyRing([key]))
    provider: dict[str, object] = {"base_url": f"http://127.0.0.1:{upstream}/v1"}
    route: dict[str, object] = {"targets": ["up/m"]}
    if name != FREE:
        prices = {"m": ("0.40/1M", "1.60/1M"), "cheap": ("0.04/1M", "0.16/1M")}
        provider["models"] = {m: {"price": {"input": i, "output": o}} for m, (i, o) in prices.items()}
        route["budget"] = {"daily": "1000000usd"}
    if name in (AUTO, STRANGE):
        route |= {"targets": ["up/m", "up/cheap"], "policy": "auto", "strong": "up/m", "max_loss": "5%"}
        learnt.put(home / "state" / "scorers", "m", "up/cheap", "up/m")
    # JSON is YAML.
    config.write_text(json.dumps({"providers": {"up": provider}, "routes": {"m": route}}))
    argv = [sys.executable, "-m", "lumen", "--config", str(config), "--port", str(port)]
    with started(argv, 0, port, {"LUMEN_HOME": str(home)}, home / "log") as process:
        yield Subject(name, port, process, key=secret, prompt=learnt.like() if name == AUTO else PROMPT)


@contextlib.contextmanager
def relay(home: Path, upstream: int) -> Iterator[Subject]:
    port = free_port()
    argv = [sys.executable, "-m", "bench.relay", "--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}"]
    with started(argv, 0, port, {}, home / "relay.log") as process:
        yield Subject("relay", port, process)


@contextlib.contextmanager
def litellm(home: Path, upstream: int) -> Iterator[Subject]:
    port = free_port()
    config = home / "litellm.yaml"
    config.write_text(
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": "m",
                        "litellm_params": {
                            "model": "openai/m",
                            "api_base": f"http://127.0.0.1:{upstream}/v1",
                            "api_key": "x",
                        },
                    }
                ]
            }
        )
    )
    argv = [str(Path(sys.executable).parent / "litellm"), "--config", str(config), "--port", str(port)]
    with started([*argv, "--host", "127.0.0.1", "--num_workers", "1"], 0, port, {}, home / "litellm.log") as process:
        yield Subject("litellm", port, process)


async def measure(subject: Subject, scale: float) -> dict[str, float]:
    """One subject's figures in one round; times in milliseconds."""
    whole, stream = subject.request(False), subject.request(True)
    await closed_loop(subject.port, whole, 4, 25)
    figures: dict[str, float] = {}
    one = await closed_loop(subject.port, whole, 1, int(600 * scale))
    figures["p50 whole, 1 client (ms)"] = statistics.median(one.total) * 1000
    before, start = subject.cpu(), time.perf_counter()
    many = await closed_loop(subject.port, whole, 32, int(100 * scale))
    spent = time.perf_counter() - start
    figures["CPU per whole request (ms)"] = (subject.cpu() - before) / len(many.total) * 1000
    figures["requests/s, 32 clients"] = len(many.total) / spent
    before = subject.cpu()
    streams = await closed_loop(subject.port, stream, 32, max(1, int(6 * scale)))
    figures[f"CPU per {CHUNKS}-chunk stream (ms)"] = (subject.cpu() - before) / len(streams.total) * 1000
    more = figures[f"CPU per {CHUNKS}-chunk stream (ms)"] - figures["CPU per whole request (ms)"]
    figures["CPU per chunk beyond a whole request's (µs)"] = more / CHUNKS * 1000
    paced = await open_loop(subject.port, stream, 100.0, int(500 * scale))
    figures["first token p50 (ms)"], figures["first token p99 (ms)"] = quantiles(paced)
    figures["resident (MB)"] = subject.process.memory_info().rss / 1e6
    figures["errors"] = sum(s.errors for s in (one, many, streams, paced))
    return figures


def quantiles(sample: Sample) -> tuple[float, float]:
    ordered = sorted(sample.first)
    return ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000


def table(rounds: dict[str, list[dict[str, float]]], direct: list[tuple[float, float]]) -> str:
    """Medians per subject and, where it means something, the ratio to the relay, round by round."""
    names = list(rounds)
    ours = [name for name in names if name != "relay"]
    lines = ["| | " + " | ".join([*names, *(f"{name} ÷ relay (range over rounds)" for name in ours)]) + " |"]
    lines.append("|---" * (1 + len(names) + len(ours)) + "|")
    for figure in rounds["relay"][0]:
        cells = [f"{statistics.median(r[figure] for r in rounds[name]):.3g}" for name in names]
        for name in ours:
            pairs = zip(rounds[name], rounds["relay"], strict=True)
            ratios = [a[figure] / b[figure] for a, b in pairs if b[figure]]
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else ""
            cells.append(shown)
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    for i, label in enumerate(("first token added, p50 (ms)", "first token added, p99 (ms)")):
        figure = f"first token {('p50', 'p99')[i]} (ms)"
        cells = []
        for name in names:
            added = [r[figure] - d[i] for r, d in zip(rounds[name], direct, strict=True)]
            cells.append(f"{statistics.median(added):.2f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |" + " |" * len(ours))
    for figure in ("p50 whole, 1 client (ms)", "first token p50 (ms)"):
        cells = [_chosen(rounds, name, figure) for name in names]
        lines.append(f"| choosing adds to {figure} | " + " | ".join(cells) + " |" + " |" * len(ours))
    return "\n".join(lines)


def _chosen(rounds: dict[str, list[dict[str, float]]], name: str, figure: str) -> str:
    """By how much a route with a choice is behind one without, within a round; nothing for what has no choice."""
    if name not in (AUTO, STRANGE):
        return ""
    return f"{statistics.median(a[figure] - b[figure] for a, b in zip(rounds[name], rounds[PAID], strict=True)):.2f}"


async def run(rounds: int, scale: float, subjects: list[Subject], upstream: Subject) -> str:
    found: dict[str, list[dict[str, float]]] = {s.name: [] for s in subjects}
    direct: list[tuple[float, float]] = []
    for number in range(rounds):
        direct.append(quantiles(await open_loop(upstream.port, upstream.request(True), 100.0, int(500 * scale))))
        for subject in subjects if number % 2 else reversed(subjects):
            found[subject.name].append(await measure(subject, scale))
    return table(found, direct)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="how much load a round makes")
    parser.add_argument("--dry", action="store_true", help="print only, leave RESULTS.md as it is")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        argv = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        )
        upstream = Subject("direct", port, stack.enter_context(started(argv, -1, port, {}, home / "upstream.log")))
        makers: list[Callable[[Path, int], contextlib.AbstractContextManager[Subject]]]
        makers = [relay, lumen, *(partial(lumen, name=name) for name in (AUTO, STRANGE, FREE))]
        if importlib.util.find_spec("litellm"):
            makers.append(litellm)
        subjects = [stack.enter_context(make(home, port)) for make in makers]
        text = uvloop.run(run(given.rounds, given.scale, subjects, upstream))
    print(text)
    if not given.dry:
        report.write("Gateway", f"`python -m bench.gateway --rounds {given.rounds}`\n\n{text}")


if __name__ == "__main__":
    main()

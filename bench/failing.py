"""What `bench.failover` breaks: a real gateway before local replicas of the built-in model and the emulated provider.

Processes are killed; connections are aborted by relays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from lumen_cli.client import Admin

from bench.breaking import Answer, Breaker, Relay, ask
from bench.gateway import free_port

ROOT = Path(__file__).parent.parent
WORDS = 60  # of an answer of the emulated provider
TOKENS = 600  # of an answer of the tiny model
LOCAL = {"source": "builtin:tiny", "context": 1024, "slots": 4, "threads": 1}
REPLICAS = {"two": 2, "one": 1, "aborted": 2}
# The tiny model's two ends of an answer, so that every answer is long enough to be broken.
NEVER_ENDING = {"0": -100, "2": -100}
# Who takes over, by rung; {} is the model that breaks off.
TAKES_OVER = {"replay-exact": "sound/{}", "prefill": "prefills/prefill-{}", "anchored": "sound/anchor-{}", "error": ""}
_STARTS_WITHIN = 120.0


@dataclass
class Failing:
    """A running gateway. `breaker` cuts the connections of the model `aborted` and of the provider `broken`; `number`
    is used once a question.
    """

    port: int
    run: Path
    breaker: Breaker
    number: count[int] = field(default_factory=count)

    def story(self, model: str, more: int = 0) -> dict[str, Any]:
        """A question nobody has asked before, so that no replica remembers how it begins.

        `more`: tokens by which it is longer, about: those of an answer that a replacement has to take in.
        """
        asked = f"Tell me a long story, number {next(self.number)}." + " and" * more
        return {
            "model": model,
            "messages": [{"role": "user", "content": asked}],
            "temperature": 0.8,
            "seed": next(self.number),
            "max_tokens": TOKENS,
            "logit_bias": NEVER_ENDING,
        }

    async def unbroken(self, body: dict[str, Any]) -> Answer:
        self.breaker.after = 0
        answer = await ask(self.port, body)
        if not answer.done or answer.seams:
            raise SystemExit(f"an answer that nobody broke is not whole: {answer}")
        return answer

    async def aborted(self, route: str, body: dict[str, Any], after: int) -> Answer:
        """An answer whose connection is aborted behind its `after`-th event, at `breaker.broke`."""
        self.breaker.after = after
        return await ask(self.port, {**body, "model": route})

    def replicas(self, model: str) -> list[dict[str, Any]]:
        status = self._admin.status()
        found: list[dict[str, Any]] = next(m["replicas"] for m in status["models"] if m["name"] == model)
        return found

    def renew(self, model: str) -> None:
        """New replicas: each crash lengthens the pause before the next start, and the third must cost as the first."""
        old = [replica["pid"] for replica in self.replicas(model)]
        self._admin.post("/admin/restart", {"model": model})
        self.wait_ready(model, old)

    def wait_ready(self, model: str, besides: Collection[int] = ()) -> None:
        """Wait until every replica is ready and none of these processes serves any more."""

        def ready() -> bool:
            replicas = self.replicas(model)
            return all(one["state"] == "ready" and one["pid"] not in besides for one in replicas)

        _until(ready)

    @property
    def _admin(self) -> Admin:
        return Admin(self.run / "admin.sock")


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _STARTS_WITHIN
    while not true():
        if time.monotonic() > end:
            raise SystemExit("a process under test was not ready in time")
        time.sleep(0.05)


def _configuration(port: int, emulator: int, broken: int, breaks: int) -> dict[str, Any]:
    routes: dict[str, Any] = {name: {"targets": [name]} for name in REPLICAS}
    routes |= {f"{name}-exact": {"targets": [name], "exact": True} for name in REPLICAS}
    for rung, then in TAKES_OVER.items():
        for i in range(breaks):
            # A target of its own for each break: one that breaks again and again is no longer asked.
            model = f"{'tool-' if rung == 'error' else ''}words-{WORDS}-0-0-{i}"
            targets = [f"broken/{model}", *([then.format(model)] if then else [])]
            routes[f"{rung}-{i}"] = {"targets": targets, "policy": "ordered"}
            routes[f"own-{rung}-{i}"] = {"targets": targets[-1:]}
    base = f"http://127.0.0.1:{emulator}/v1"
    return {
        "server": {"port": port},
        "auth": {"required": False},
        "models": {name: {**LOCAL, "replicas": replicas} for name, replicas in REPLICAS.items()},
        "providers": {
            "broken": {"base_url": f"http://127.0.0.1:{broken}/v1"},
            "sound": {"base_url": base},
            "prefills": {"base_url": base, "capabilities": {"prefill": "prefix"}},
        },
        "routes": routes,
        "logging": {"level": "error"},
    }


@contextlib.contextmanager
def _child(home: Path, *argv: str) -> Iterator[None]:
    env = {**os.environ, "LUMEN_HOME": str(home), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}
    with (home / "log").open("ab") as log:
        child = subprocess.Popen([sys.executable, "-m", *argv], env=env, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _processes(home: Path, broken: int, emulator: int, breaker: Breaker, breaks: int) -> Iterator[Failing]:
    port = free_port()
    file = home / "config.json"
    file.write_text(json.dumps(_configuration(port, emulator, broken, breaks)))
    with _child(home, "tests.emulator", "--port", str(emulator)), _child(home, "lumen", "--config", str(file)):
        made = Failing(port, home / "state" / "run", breaker)
        _until((made.run / "gateway.json").exists)
        for model in REPLICAS:
            made.wait_ready(model)
        yield made


@contextlib.asynccontextmanager
async def failing(breaks: int) -> AsyncIterator[Failing]:
    """Everything running and ready; routes for so many breaks on each rung."""
    breaker, emulator = Breaker(), free_port()
    relays = [Relay(lambda: asyncio.open_connection("127.0.0.1", emulator), breaker)]
    broken = await relays[0].on_port()
    with tempfile.TemporaryDirectory() as folder, _processes(Path(folder), broken, emulator, breaker, breaks) as made:
        try:
            relays += await _before(_moved(made.run), breaker)
            yield made
        finally:
            for relay in relays:
                await relay.close()


def _moved(run: Path) -> Sequence[tuple[Path, Path]]:
    """The sockets of the model `aborted`, out of the way before the gateway has connected to them."""
    return [(path, path.rename(path.with_suffix(".moved"))) for path in sorted(run.glob("r-aborted-*.sock"))]


async def _before(moved: Sequence[tuple[Path, Path]], breaker: Breaker) -> list[Relay]:
    """Relays in their places."""
    relays = []
    for path, there in moved:
        relays.append(Relay(lambda to=there: asyncio.open_unix_connection(to), breaker))  # type: ignore[misc]
        await relays[-1].on_path(path)
    return relays

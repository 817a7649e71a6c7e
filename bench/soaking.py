"""The traffic and the troubles of `bench.soak`: mixed requests whose clients note what they got, and a hand that kills
engines, sends models to sleep, wakes, moves and changes them. All that is drawn hangs on a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from lumen_cli.client import Admin

from lumen.config.edit import edit, put

ROOT = Path(__file__).parent.parent
# Requests under way at once, beyond which the traffic waits: a bound, far above what it takes.
_MOST = 48
# Seconds to wait for an engine that has something to do.
_MOMENT = 3.0
# A refused request is asked again so often, after so many seconds or what the refusal says, as OpenAI's client does.
_AGAIN = 2
_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_LIMIT = aiohttp.ClientTimeout(total=240)
_CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_ANSWER = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 60}, "good": {"type": "boolean"}},
    "required": ["name", "good"],
    "additionalProperties": False,
}
_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": _CITY}}]
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _ANSWER}}
CONFIG = """server: {{port: {port}}}
auth: {{required: false}}
logging: {{level: warning}}
models:
  talk:
    source: "builtin:tiny"
    replicas: 2
    context: 1024
    slots: 4
    threads: 1
    price: {{input: 1/1M, output: 2/1M}}
  nap:
    source: "builtin:tiny"
    context: 1024
    slots: 2
    threads: 1
    keep_alive: 20s
    idle_after: 90s
    price: {{input: 1/1M, output: 2/1M}}
  vectors:
    source: "builtin:tiny"
    embedding: true
    pooling: mean
    context: 512
    threads: 1
    idle_after: 60s
    price: {{input: 1/1M}}
providers:
  emulated:
    base_url: "http://127.0.0.1:{emulator}/v1"
    capabilities: {{prefill: prefix}}
    models: {{"*": {{price: {{input: 3/1M, output: 5/1M}}}}}}
# Engines are killed every few seconds here, so that one answer may meet several deaths.
routes:
  chat: {{targets: [talk, emulated/prefill-slow-40-20], policy: ordered, max_splices: 8}}
  doze: {{targets: [nap, emulated/prefill-slow-40-20], policy: ordered, cover: true, max_splices: 8}}
  exact: {{targets: [talk], exact: true, max_splices: 8}}
  form: {{targets: [talk], max_splices: 8}}
  rest: {{targets: [nap], max_splices: 8}}
  afar: {{targets: [emulated/slow-60-20, talk], policy: ordered, max_splices: 8}}
"""
# Dollars a million tokens of input and of output, by provider; the price of a token is as many pico-dollars a million.
PRICES = {"": (1, 2), "emulated": (3, 5)}


@dataclass
class Seen:
    """One request as its client saw it. `what`: whole, broken or refused; `why`: of the latter two. `again`: how often
    it was asked again after a refusal before the first byte, as the usual clients do; `pause`: seconds until then.
    """

    kind: str
    id: str = ""
    what: str = "broken"
    why: str = ""
    input: int = 0
    output: int = 0
    again: int = 0
    pause: float = _PAUSE
    rungs: list[str] = field(default_factory=list)


@dataclass
class Kind:
    """A kind of request: `share` of the traffic, the body by a draw."""

    name: str
    share: float
    body: Callable[[random.Random], dict[str, Any]]
    path: str = "/v1/chat/completions"


def _chat(model: str, tokens: int, **fields: Any) -> Callable[[random.Random], dict[str, Any]]:
    def made(draw: random.Random) -> dict[str, Any]:
        topic = draw.choice(("the sea", "a fox", "two brothers", "winter", "a clock", "the night train"))
        system = {"role": "system", "content": "You are a teller of stories. " * 6}
        user = {"role": "user", "content": f"Story number {draw.randrange(10**6)}, about {topic}."}
        most = draw.randint(tokens // 3, tokens)
        return {"model": model, "messages": [system, user], "max_tokens": most, "temperature": 0.8, **fields}

    return made


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
# The tiny model's two ends of an answer: these streams are long enough to be met by a trouble.
NEVER_ENDING = {"0": -100, "2": -100}
_FORM = {"temperature": 0, "max_tokens": 200, **STREAMED}
KINDS = (
    Kind("chat", 3, _chat("chat", 150)),
    Kind("stream", 5, _chat("chat", 750, logit_bias=NEVER_ENDING, **STREAMED)),
    Kind("seeded stream", 2, _chat("chat", 600, logit_bias=NEVER_ENDING, seed=11, **STREAMED)),
    Kind("exact stream", 1, _chat("exact", 300, **STREAMED)),
    Kind("tools", 1.5, _chat("form", 200, tools=_TOOLS, tool_choice="required", **_FORM)),
    Kind("JSON", 1.5, _chat("form", 200, response_format=_SCHEMA, **_FORM)),
    Kind("stream that may wake", 1.5, _chat("doze", 500, **STREAMED)),
    Kind("stream that waits for a wake", 0.5, _chat("rest", 500, **STREAMED)),
    Kind("remote stream", 1.5, _chat("afar", 60, **STREAMED)),
    Kind(
        "embeddings", 1.5, lambda draw: {"model": "vectors", "input": [f"text {draw.random()}"] * 3}, "/v1/embeddings"
    ),
)


class Client:
    """Asks at random, and remembers what came of it."""

    def __init__(self, port: int, seed: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.seen: list[Seen] = []
        self.refused: list[str] = []
        self._draw = random.Random(f"traffic {seed}")
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float, rate: float) -> None:
        """Requests at `rate` a second in the mean, for so long; returns when all of them are over."""
        end = time.monotonic() + seconds
        connector = aiohttp.TCPConnector(limit=_MOST)
        async with aiohttp.ClientSession(timeout=_LIMIT, connector=connector) as session:
            while time.monotonic() < end:
                if len(self._running) < _MOST:
                    task = asyncio.create_task(self._one(session))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                await asyncio.sleep(min(self._draw.expovariate(rate), 10 / rate))
            await asyncio.gather(*self._running)

    async def _one(self, session: aiohttp.ClientSession) -> None:
        kind = self._draw.choices(KINDS, [one.share for one in KINDS])[0]
        body = kind.body(self._draw)
        seen = Seen(kind.name)
        self.seen.append(seen)
        try:
            await self._ask(session, kind, body, seen)
            while seen.what == "refused" and seen.again < _AGAIN:
                self.refused.append(seen.id)
                await asyncio.sleep(seen.pause)
                seen.again += 1
                await self._ask(session, kind, body, seen)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            seen.what, seen.why = "broken", f"{type(error).__name__}: {error}"

    async def _ask(self, session: aiohttp.ClientSession, kind: Kind, body: dict[str, Any], seen: Seen) -> None:
        async with session.post(self.url + kind.path, json=body) as answer:
            seen.id = answer.headers.get("x-request-id", "")
            raw = bytearray()
            try:
                async for data in answer.content.iter_any():
                    raw += data
            except aiohttp.ClientPayloadError:
                # A stream that is broken off for good says why, and ends without its end.
                seen.why = f"broken off: …{bytes(raw[-600:])!r}"
                return
            if answer.status != 200:
                seen.what, seen.why = "refused", f"{answer.status} {bytes(raw[:300])!r}"
                seen.pause = min(float(answer.headers.get("Retry-After", _PAUSE)), _LONGEST_PAUSE)
            elif body.get("stream"):
                streamed(seen, raw.decode())
            else:
                whole(seen, json.loads(raw))


def whole(seen: Seen, answer: Mapping[str, Any]) -> None:
    """What an answer in one piece says."""
    finished = all(choice.get("finish_reason") for choice in answer.get("choices", ()))
    vectors = [one["embedding"] for one in answer.get("data", ())]
    seen.what = "broken"
    if not finished or not (answer.get("choices") or (len(vectors) == 3 and all(vectors))):
        seen.why = f"an answer that is not whole: {str(answer)[:300]}"
        return
    seen.what = "whole"
    _count(seen, answer["usage"])


def streamed(seen: Seen, raw: str) -> None:
    """What a stream says, and whether it is what a client can rely on: one id, one role, one finish, usage, [DONE]."""
    frames = raw.split("\n\n")
    mark = ": lumen-splice "
    seen.rungs = [json.loads(frame[len(mark) :])["rung"] for frame in frames if frame.startswith(mark)]
    chunks = [json.loads(frame[6:]) for frame in frames if frame.startswith("data: {")]
    events = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    told = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    faults = {
        "an error event": any("error" in chunk for chunk in chunks),
        "no [DONE]": not raw.endswith("data: [DONE]\n\n"),
        "not one id": len({chunk.get("id") for chunk in chunks}) != 1,
        # Not in the raw text: a piece of an answer may be that word.
        "not one role": sum("role" in one.get("delta", ()) for one in events) != 1,
        "not one finish reason": sum(bool(one.get("finish_reason")) for one in events) != 1,
        "not one usage": len(told) != 1,
    }
    seen.what = "broken"
    seen.why = ", ".join(name for name, true in faults.items() if true)
    if seen.why:
        seen.why += f": …{raw[-300:]!r}"
        return
    seen.what = "whole"
    _count(seen, told[0])


def _count(seen: Seen, usage: Mapping[str, Any]) -> None:
    seen.input, seen.output = usage["prompt_tokens"], usage.get("completion_tokens") or 0


class Trouble:
    """Kills, sleeps, wakes, reassignments and changes, one at a time, at random moments."""

    def __init__(self, home: Path, config: Path, admin: Admin, seed: int) -> None:
        self.made: Counter[str] = Counter()
        self.failed: list[str] = []
        self._home, self._config, self._admin = home, config, admin
        self._draw = random.Random(f"trouble {seed}")

    async def run(self, seconds: float, every: float) -> None:
        """One in `every` seconds in the mean, for so long."""
        kinds = {self.kill: 5, self.sleep: 2, self.wake: 2, self.assign: 1.5, self.change: 1.5}
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            await asyncio.sleep(min(self._draw.expovariate(1 / every), 4 * every, end - now))
            act = self._draw.choices(list(kinds), list(kinds.values()))[0]
            try:
                await asyncio.to_thread(act)
            except Exception as error:  # noqa: BLE001 - whatever it was is told at the end, and the run goes on
                self.failed.append(f"{act.__name__}: {error}")

    def kill(self) -> None:
        """One at work, if there is one within a moment: what matters is what becomes of its answers."""
        end = time.monotonic() + _MOMENT
        while True:
            models = self._admin.status()["models"]
            ready = [one for model in models for one in model["replicas"] if one["pid"] and one["state"] == "ready"]
            at_work = [one for one in ready if one["in_flight"]]
            if at_work or time.monotonic() > end:
                break
            time.sleep(0.01)
        ready = at_work or ready
        if ready:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._draw.choice(ready)["pid"], signal.SIGKILL)
            self.made["kills"] += 1

    def sleep(self) -> None:
        self._admin.post("/admin/sleep", {"model": self._model()})
        self.made["sleeps"] += 1

    def wake(self) -> None:
        self._admin.post("/admin/wake", {"model": self._model()})
        self.made["wakes"] += 1

    def assign(self) -> None:
        model, many = self._draw.choice((("talk", 2), ("talk", 3), ("nap", 1), ("nap", 2)))
        reserve = self._draw.choice(("--reserve", "--no-reserve"))
        words = ["gpu", "assign", model, "--gpus", "any", "--replicas", str(many), reserve]
        command = [sys.executable, "-m", "lumen_cli", *words, "--config", str(self._config)]
        done = subprocess.run(
            command, env=environment(self._home), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"lumen {' '.join(words)}: {done.stdout}{done.stderr}")
        self.made["reassignments"] += 1

    def change(self) -> None:
        model = self._draw.choice(("talk", "nap"))
        name, values = self._draw.choice((("slots", (2, 4, 6)), ("context", (1024, 2048)), ("queue", (256, 512))))
        value = self._draw.choice(values)
        edit(self._config, lambda text: put(text, ("models", model, name), value))
        self._admin.post("/admin/reload")
        self.made["changes"] += 1

    def _model(self) -> str:
        return self._draw.choice(("talk", "nap", "vectors"))


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "LUMEN_HOME": str(home), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}

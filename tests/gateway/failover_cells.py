"""The matrix of failover: every fault of the emulated provider, in every kind of answer, before every kind of next
target; what the client must see of each; and the classes of outcome that the table in the docs shows. No I/O.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lumen.config.schema import Route, Target, Timeouts
from lumen.providers.base import Capabilities
from tests.emulator.script import parse, pieces

# Delivered before the fault, and of the whole answer. The last 40 characters of the former are whole words.
WORDS = 15
TOTAL = 18
# Where the fault is silence, it is waited for; elsewhere no limit may pass, however busy the machine is.
SHORT = Timeouts(connect=5.0, headers=1.2, first_token=1.2, gap=1.0, total=2.0)
LONG = Timeouts(connect=10.0, headers=20.0, first_token=20.0, gap=20.0, total=30.0)


@dataclass(frozen=True)
class Fault:
    """`script`: of the emulator, with its numbers. `silent`: only a limit ends it. `mends`: the target itself
    answers in the end."""

    name: str
    script: str
    numbers: tuple[int, ...]
    silent: bool = False
    mends: bool = False


FAULTS = (
    Fault("500 once", "once", (500,), mends=True),
    Fault("503 for ever", "status", (503,)),
    Fault("429, no time told", "status", (429,)),
    Fault("429, wait 1 s", "limit", (1,)),
    Fault("429, wait 30 s", "limit", (30,)),
    Fault("reset before headers", "reset", ()),
    Fault("accepted, never answered", "silent", (), silent=True),
    Fault("headers, then silence", "headers", (TOTAL,), silent=True),
    Fault("half-open socket", "half", (), silent=True),
    Fault("200 with HTML", "html", ()),
    Fault("content filter", "filter", ()),
    Fault("context length", "context", ()),
    Fault("401", "status", (401,)),
    Fault("reset after 15 tokens", "cut", (WORDS,)),
    Fault("closed after 15 tokens", "drop", (WORDS,)),
    Fault("stalled after 15 tokens", "stall", (WORDS,), silent=True),
    Fault("error inside the answer", "errin", (WORDS,)),
    Fault("malformed event", "garbage", (WORDS,)),
    Fault("truncated JSON", "truncated", (WORDS,)),
    Fault("endless line", "endless", (WORDS,)),
    Fault("no finish reason", "nofinish", (WORDS,)),
    Fault("no `[DONE]`", "nodone", (TOTAL,), mends=True),
    Fault("no counts", "nocount", (TOTAL,), mends=True),
    Fault("reset before the counts", "cutcount", (TOTAL,), mends=True),
    Fault("steady drip", "slow", (TOTAL, 40), mends=True),
    Fault("wrong usage", "wrong", (TOTAL,), mends=True),
    Fault("flapping", "flap", (1, 2, TOTAL), mends=True),
)
KINDS = ("text", "tool", "json")


@dataclass(frozen=True)
class Then:
    """The target after the one that fails: its script's prefix, and whether it is declared to prefill.

    `same`: it serves the same model, which answers there, to a request with temperature 0. `replica`: the target is a
    local model, of which another replica is there.
    """

    name: str
    prefix: str | None
    prefill: bool = False
    same: bool = False
    replica: bool = False


THENS = (
    Then("another local replica", None, replica=True),
    Then("same model elsewhere", "", same=True),
    Then("prefill", "prefill-", prefill=True),
    Then("no prefill", "anchor-"),
    Then("refuses prefill", "noprefill-", prefill=True),
    Then("starts over", "startover-", prefill=True),
    Then("none left", None),
)


@dataclass(frozen=True)
class Cell:
    """One case; `number` keeps its targets apart from all others'."""

    number: int
    fault: Fault
    then: Then
    kind: str
    stream: bool

    @property
    def route(self) -> str:
        return f"cell-{self.number}"

    @property
    def first(self) -> str:
        """The faulty target's model."""
        numbers = self.fault.numbers
        if self.fault.script == "nofinish" and self.kind != "text":
            # It sends the end of its JSON too; only the reason is missing.
            numbers = (TOTAL,)
        return _model(f"{self.kind}-{self.fault.script}", numbers, self.number)

    @property
    def expected(self) -> str:
        """Text, arguments or JSON of the whole answer."""
        mended = self.fault.mends and self.fault.script == "once"
        model = self.first if mended else _model(f"{self.kind}-words", (TOTAL,), 0)
        return "".join(pieces(parse(model), None, ()))

    def targets(self, provider: str) -> tuple[Target, ...]:
        if self.then.replica:
            return (Target(f"replicas/{self.first}"),)
        at = "half" if self.fault.script == "half" else provider
        found = [Target(f"{at}/{self.first}")]
        if self.then.same:
            found.append(Target(f"{provider}-again/{self.first}"))
        elif self.then.prefix is not None:
            number = 1_000_000 if self.then.prefill else 0
            model = _model(f"{self.kind}-{self.then.prefix}words", (TOTAL,), number + self.number)
            found.append(Target(f"{provider}/{model}"))
        return tuple(found)

    def declared(self, provider: str) -> Route:
        return Route(self.targets(provider), policy="ordered", timeouts=SHORT if self.fault.silent else LONG)

    def body(self) -> dict[str, Any]:
        made: dict[str, Any] = {"model": self.route, "messages": [{"role": "user", "content": "go"}], "max_tokens": 999}
        if self.kind == "tool":
            function = {"name": "lookup", "parameters": {"type": "object", "properties": {}}}
            made["tools"] = [{"type": "function", "function": function}]
        if self.kind == "json":
            made["response_format"] = {"type": "json_object"}
        if self.then.same:
            made["temperature"] = 0
        if self.stream:
            made |= {"stream": True, "stream_options": {"include_usage": True}}
        return made


def cells() -> list[Cell]:
    found = itertools.product((True, False), KINDS, FAULTS, THENS)
    return [Cell(i, fault, then, kind, stream) for i, (stream, kind, fault, then) in enumerate(found, 1)]


def able(model: str, native: str) -> Capabilities:
    """What a model of the matrix is declared to do. `native`: how its dialect prefills."""
    declared = int(model.rsplit("-", 1)[-1] if model[-1].isdigit() else 0) > 1_000_000
    return Capabilities(prefill=native if declared else "none")  # type: ignore[arg-type]


def sound(model: str) -> str:
    """The model that gives all of the answer which `model` breaks off."""
    return _model(f"{parse(model).kind}-words", (TOTAL,), int(model.rsplit("-", 1)[-1]))


def _model(name: str, numbers: tuple[int, ...], number: int) -> str:
    """No script reads its fourth number."""
    return "-".join((name, *map(str, (*numbers, 0, 0, 0)[:3]), str(number))) if numbers else f"{name}-{5}-0-0-{number}"


# -- what the client saw ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """An answer as its client has it, whichever way it came."""

    status: int
    raw: str
    chunks: list[dict[str, Any]]

    @classmethod
    def of(cls, status: int, raw: str) -> Seen:
        if raw.startswith("{"):
            return cls(status, raw, [json.loads(raw)])
        events = [event[6:] for event in raw.split("\n\n") if event.startswith("data: {")]
        return cls(status, raw, [json.loads(event) for event in events])

    @property
    def error(self) -> dict[str, Any] | None:
        return next((chunk["error"] for chunk in self.chunks if "error" in chunk), None)

    @property
    def done(self) -> bool:
        return "data: [DONE]" in self.raw

    @property
    def splices(self) -> list[dict[str, Any]]:
        mark = ": lumen-splice "
        return [json.loads(line[len(mark) :]) for line in self.raw.splitlines() if line.startswith(mark)]

    @property
    def usages(self) -> list[dict[str, Any]]:
        return [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]

    def choices(self) -> Iterator[dict[str, Any]]:
        for chunk in self.chunks:
            yield from chunk.get("choices") or ()

    @property
    def said(self) -> str:
        """Text, or the arguments of the one call."""
        parts = []
        for choice in self.choices():
            delta = choice.get("delta") or choice.get("message") or {}
            parts.append(delta.get("content") or "")
            parts.extend(call["function"].get("arguments") or "" for call in delta.get("tool_calls") or ())
        return "".join(parts)


def judge(cell: Cell, seen: Seen) -> str:
    """The class of what the client saw.

    Raises:
        AssertionError: no client may ever see that.
    """
    return _streamed(cell, seen) if cell.stream and seen.status == 200 else _whole(cell, seen)


def _whole(cell: Cell, seen: Seen) -> str:
    (body,) = seen.chunks
    if seen.status != 200:
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        return f"error {seen.status}"
    (choice,) = body["choices"]
    assert _same(cell, seen.said), seen.raw
    assert choice["finish_reason"] == ("tool_calls" if cell.kind == "tool" else "stop"), choice
    assert body["usage"]["completion_tokens"] > 0
    return "whole"


def _streamed(cell: Cell, seen: Seen) -> str:
    choices = list(seen.choices())
    assert len({chunk["id"] for chunk in seen.chunks if "error" not in chunk}) <= 1, seen.raw
    assert len({chunk["created"] for chunk in seen.chunks if "error" not in chunk}) <= 1, seen.raw
    assert sum("role" in choice["delta"] for choice in choices) <= 1, seen.raw
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]
    assert sum("id" in call for call in calls) == sum("name" in call["function"] for call in calls) == bool(calls)
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    rungs = "+".join(splice["rung"] for splice in seen.splices)
    if seen.error is not None:
        assert set(seen.error) == {"message", "type", "param", "code"}
        assert "error" in seen.chunks[-1] and not seen.done and seen.raw.endswith("<CUT>"), seen.raw
        assert not finishes and not seen.usages, seen.raw
        assert cell.expected.startswith(seen.said) and len(seen.said) < len(cell.expected) + 1, seen.raw
        return "honest error" + (f" after {rungs}" if rungs else "")
    assert seen.done and seen.raw.endswith("data: [DONE]\n\n"), seen.raw
    assert _same(cell, seen.said), seen.raw
    assert finishes == ["tool_calls" if cell.kind == "tool" else "stop"], seen.raw
    assert sum("role" in choice["delta"] for choice in choices) == 1, seen.raw
    assert len(seen.usages) == 1 and seen.chunks[-1]["choices"] == [], seen.raw
    if rungs:
        # Of the whole answer; what a target wrote once more, to show where it goes on, it counts too.
        assert TOTAL - 2 <= seen.usages[0]["completion_tokens"] <= 3 * TOTAL, seen.usages
    return rungs or "whole"


def _same(cell: Cell, said: str) -> bool:
    if cell.kind == "text":
        return said == cell.expected
    return bool(json.loads(said) == json.loads(cell.expected))

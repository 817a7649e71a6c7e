"""Two answers to one request, and what can be told of them without a judge. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

import msgspec
from msgspec import Struct

from lumen.learning.schema import fits, problem
from lumen.wire.requests import ChatRequest, CompletionRequest

# Characters of a refusal: longer answers say more than no.
_LONGEST_REFUSAL = 600
_REFUSES = re.compile(
    r"^\W*(?:i'?m|i am|we'?re)?\s*(?:very |really |so )?(?:sorry|afraid)\b.{0,60}\b"
    r"(?:can'?t|cannot|can not|unable|won'?t)\b"
    r"|^\W*(?:i|we) (?:can'?t|cannot|can not|won'?t|will not|must decline|am unable|are unable)\b"
    r"|^\W*(?:as an ai|unfortunately,? i (?:can'?t|cannot))\b",
    re.I | re.S,
)


class ToolUse(Struct, frozen=True):
    """A call of a function that an answer makes; `arguments` as it wrote them."""

    name: str
    arguments: str


class Answer(Struct, frozen=True):
    """One answer. `cost`: pico-dollars, `None` where its target has no price. `ttft`, `seconds`: from being asked.

    `outcome`: ok or an error's code. `tokens`: output tokens, where known.
    """

    target: str
    outcome: str
    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    finish: str = ""
    refusal: bool = False
    tokens: int | None = None
    cost: int | None = None
    ttft: float | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def said(self) -> str:
        """Its text, and the functions it calls, as a judge or checker is shown it."""
        calls = [f"[calls {use.name}({use.arguments})]" for use in self.tools]
        return "\n".join([self.text, *calls] if self.text else calls)


class Facts(Struct, frozen=True):
    """What is kept of an answer where its text may not be."""

    target: str
    outcome: str
    tokens: int | None
    characters: int
    cost: int | None
    ttft: float | None
    seconds: float
    refused: bool
    tools: int
    tools_valid: bool | None


class Compared(Struct, frozen=True):
    """A pair in numbers. `quality`: of the incumbent's and of the candidate's answer, 0 to 1; `None`: not judged."""

    incumbent: Facts
    candidate: Facts
    quality: tuple[float, float] | None = None
    source: str = ""
    propensity: float = 1.0


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int = 0
    function: _Function | None = None


class _Said(Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode


class Read:
    """Collects choice 0 of an answer from the JSON of its events, streamed or whole; `most` bounds its characters."""

    def __init__(self, most: int = 200_000) -> None:
        self._most = most
        self._texts: list[str] = []
        self._size = 0
        self._calls: dict[int, list[str]] = {}
        self.finish = ""
        self.refusal = False

    def add(self, data: bytes) -> None:
        """One event's JSON; what is none is left out."""
        try:
            choices = _chunk(data).choices
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        for choice in choices or ():
            if choice.index:
                continue
            said = choice.delta or choice.message or _Said(choice.text)
            self.refusal = self.refusal or bool(said.refusal)
            self.finish = choice.finish_reason or self.finish
            self._keep(self._texts, said.content or said.refusal or "")
            for place, call in enumerate(said.tool_calls or ()):
                # A whole answer numbers its calls by their place alone.
                at = call.index if choice.delta is not None else place
                parts = self._calls.setdefault(at, ["", ""])
                if call.function is not None and len(self._calls) <= 64:
                    parts[0] += call.function.name or ""
                    rest: list[str] = [parts[1]]
                    self._keep(rest, call.function.arguments or "")
                    parts[1] = "".join(rest)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def tools(self) -> tuple[ToolUse, ...]:
        return tuple(ToolUse(*self._calls[at]) for at in sorted(self._calls))

    def _keep(self, into: list[str], text: str) -> None:
        text = text[: max(self._most - self._size, 0)]
        self._size += len(text)
        into.append(text)


def refused(answer: Answer) -> bool:
    """Whether an answer declines: by its own mark, a filter's, or in the words that answers decline in."""
    if answer.refusal or answer.finish == "content_filter" or answer.outcome == "content_filter":
        return True
    return len(answer.text) <= _LONGEST_REFUSAL and not answer.tools and _REFUSES.search(answer.text) is not None


def tools_valid(request: ChatRequest | CompletionRequest, answer: Answer) -> bool | None:
    """Whether every call is of a function that was offered, with arguments that fit; `None` where it makes none."""
    if not answer.tools or not isinstance(request, ChatRequest):
        return None
    offered = {tool.function.name: tool.function.parameters for tool in request.tools or ()}
    for use in answer.tools:
        if use.name not in offered:
            return False
        try:
            given = msgspec.json.decode(use.arguments or "{}")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        wanted = offered[use.name] or {}
        # A schema beyond what is understood here is no reason to call an answer bad.
        if not isinstance(given, dict) or (problem(wanted) is None and not fits(given, wanted)):
            return False
    return True


def facts(request: ChatRequest | CompletionRequest, answer: Answer) -> Facts:
    """What an answer comes to in numbers."""
    return Facts(
        answer.target, answer.outcome, answer.tokens, len(answer.text), answer.cost, answer.ttft,
        round(answer.seconds, 4), refused(answer), len(answer.tools), tools_valid(request, answer),
    )  # fmt: skip


def side_by_side(pairs: Sequence[Compared]) -> dict[str, Any]:
    """A report over many pairs: both sides, and how the candidate did; costs in pico-dollars, times in seconds."""
    judged = [pair for pair in pairs if pair.quality is not None]
    weights = [1.0 / pair.propensity for pair in judged]
    wins = sum(pair.quality[1] > pair.quality[0] for pair in judged if pair.quality)
    losses = sum(pair.quality[1] < pair.quality[0] for pair in judged if pair.quality)
    gains = [pair.quality[1] - pair.quality[0] for pair in judged if pair.quality]
    return {
        "pairs": len(pairs),
        "judged": len(judged),
        "better": wins,
        "worse": losses,
        "equal": len(judged) - wins - losses,
        # Of all the traffic, not of what was drawn: rarely drawn requests count for more of it.
        "quality_change": _weighted(gains, weights),
        "by": sorted({pair.source for pair in judged}),
        "incumbent": _side([pair.incumbent for pair in pairs]),
        "candidate": _side([pair.candidate for pair in pairs]),
    }


def _side(found: Sequence[Facts]) -> dict[str, Any]:
    good = [one for one in found if one.outcome == "ok"]
    calls = [one.tools_valid for one in good if one.tools_valid is not None]
    return {
        "targets": sorted({one.target for one in found}),
        "answers": len(found),
        "failed": len(found) - len(good),
        "cost": _mean(one.cost for one in good),
        "ttft": _median(one.ttft for one in good),
        "seconds": _median(one.seconds for one in good),
        "tokens": _mean(one.tokens for one in good),
        "characters": _mean(one.characters for one in good),
        "refusals": _mean(float(one.refused) for one in good),
        "tool_calls": len(calls),
        "tool_calls_valid": _mean(float(one) for one in calls),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float | None:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights) if values else None

"""Answers that are cut off anywhere: what is asked, and what a client must be able to rely on. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

STORY = {"messages": [{"role": "user", "content": "Tell me a long story."}]}
SAMPLED = {**STORY, "temperature": 0.8, "seed": 7}


def _bound(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


_WORDS = {"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 12}, "minItems": 12, "maxItems": 14}
_SIGNS = {"type": "array", "items": {"enum": ["🙂🙃", "🦊🐻‍❄️", "日本語", "łódź"]}, "minItems": 9, "maxItems": 12}
_DAYS = {"type": "array", "items": {"enum": ["monday", "friday", "sunday"]}, "minItems": 8, "maxItems": 8}
_CALL = {"city": {"type": "string"}, "days": _DAYS}
_WEATHER = {"type": "object", "properties": _CALL, "required": ["city", "days"], "additionalProperties": False}
ASKED: dict[str, dict[str, Any]] = {
    "greedy": {**STORY, "temperature": 0},
    "sampled with a seed": SAMPLED,
    "with penalties": {**SAMPLED, "seed": 3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    "bound to a JSON schema": {**SAMPLED, "response_format": _bound(_WORDS)},
    "characters of several bytes": {**SAMPLED, "response_format": _bound(_SIGNS)},
    "with stop strings": {**SAMPLED, "seed": 5, "stop": ["the end of it all", "qqqq"]},
    "inside a tool call": {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "temperature": 0,
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": _WEATHER}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
}
JSON = ("bound to a JSON schema", "characters of several bytes", "inside a tool call")


@dataclass
class Answer:
    """`deltas`: what each event said, text or arguments. `count`: completion tokens, as told."""

    deltas: list[str] = field(default_factory=list)
    finishes: list[str] = field(default_factory=list)
    rungs: list[str] = field(default_factory=list)
    count: int = 0

    @property
    def said(self) -> str:
        return "".join(self.deltas)

    @classmethod
    def of(cls, raw: str) -> Answer:
        """Raises AssertionError where it is not what a client must be able to rely on."""
        chunks = [json.loads(line[6:]) for line in raw.split("\n\n") if line.startswith("data: {")]
        made = cls()
        assert not any("error" in chunk for chunk in chunks), raw[-600:]
        assert raw.endswith("data: [DONE]\n\n"), raw[-600:]
        assert len({chunk["id"] for chunk in chunks}) == len({chunk["created"] for chunk in chunks}) == 1
        assert raw.count('"role"') == 1 and "token_ids" not in raw
        events = [chunk for chunk in chunks if chunk["choices"]]
        # Cut behind the finish reason, the answer is whole and only its usage may be lost.
        assert chunks[len(events) :] in ([], [chunk for chunk in chunks if not chunk["choices"]])
        made.count = sum(chunk["usage"]["completion_tokens"] for chunk in chunks[len(events) :])
        for (choice,) in (chunk["choices"] for chunk in events):
            calls = choice["delta"].get("tool_calls") or ()
            made.deltas.append(choice["delta"].get("content") or "")
            made.deltas[-1] += "".join(call["function"].get("arguments") or "" for call in calls)
            if choice["finish_reason"]:
                made.finishes.append(choice["finish_reason"])
        assert len(made.finishes) == 1 and "\ufffd" not in made.said
        mark = ": lumen-splice "
        made.rungs = [json.loads(x[len(mark) :])["rung"] for x in raw.split("\n\n") if x.startswith(mark)]
        return made


@dataclass
class Figures:
    """Answers of one kind that were cut, and how many of them equal the unbroken one byte for byte."""

    tokens: int
    cuts: int = 0
    equal: int = 0

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.cuts} cuts, {self.equal} equal"

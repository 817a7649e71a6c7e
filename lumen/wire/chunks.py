"""Writes answers in the OpenAI dialect, for the dialects that have to be translated into it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lumen.core.errors import MalformedError
from lumen.wire.answers import CompletionDetails, PromptDetails, Usage
from lumen.wire.call import Event

_encode = msgspec.json.Encoder().encode


class PromptCounts(PromptDetails, gc=False):
    """`cache_write_tokens`: tokens of the prompt written to the vendor's cache, which are priced above the rest."""

    cache_write_tokens: int | None = None


class Writer:
    """The events of one answer, under one id, time and model.

    Args:
        identity: the answer's id and time, until the target tells its own id.
        fixed: the identity is one the client has already seen, and so is the role.
    """

    __slots__ = ("_fixed", "identity", "include_usage", "model")

    def __init__(self, identity: tuple[str, int], model: str, *, include_usage: bool, fixed: bool) -> None:
        self.identity = identity
        self.model = model
        self.include_usage = include_usage
        self._fixed = fixed

    def named(self, id: str | None, model: str | None) -> None:
        """Take over what the target calls its answer and itself."""
        if id and not self._fixed:
            self.identity = (id, self.identity[1])
        self.model = model or self.model

    def role(self, index: int, events: list[Event]) -> None:
        """The role chunk of one choice; none where an earlier attempt has sent it."""
        if not self._fixed:
            events.append(self.chunk(index, {"role": "assistant", "content": ""}))

    def chunk(self, index: int, delta: Mapping[str, Any], finish: str | None = None) -> Event:
        """One event for what one choice adds, or for its end."""
        text = delta.get("content") or None
        actionable = "tool_calls" in delta or "refusal" in delta
        reasoning = "reasoning_content" in delta
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return Event(
            self._json("chat.completion.chunk", [choice]),
            content=text is not None or actionable or reasoning,
            finished=() if finish is None else (index,),
            identity=self.identity,
            text=text if index == 0 else None,
            actionable=actionable,
            reasoning=reasoning,
        )

    def usage(self, usage: Usage) -> Event:
        """The counts, shown to the client only where it asked for them."""
        shown = self._json("chat.completion.chunk", [], usage) if self.include_usage else b""
        return Event(shown, usage=usage)

    def whole(self, choices: Sequence[Mapping[str, Any]], usage: Usage | None) -> Event:
        """A complete answer in one event; each choice has `index`, `message`, `finish_reason`."""
        finished = tuple(choice["index"] for choice in choices)
        return Event(self._json("chat.completion", choices, usage), True, finished, usage, identity=self.identity)

    def _json(self, kind: str, choices: Sequence[Mapping[str, Any]], usage: Usage | None = None) -> bytes:
        id, created = self.identity
        made: dict[str, Any] = {"id": id, "object": kind, "created": created, "model": self.model, "choices": choices}
        if usage is not None:
            made["usage"] = usage_object(usage)
        return _encode(made)


def usage_object(usage: Usage) -> dict[str, Any]:
    """The counts as the API shows them; details that are not known are left out."""
    shown: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens or 0,
        "total_tokens": usage.total_tokens,
    }
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        details = getattr(usage, name)
        if details is not None:
            shown[name] = {key: value for key, value in msgspec.structs.asdict(details).items() if value is not None}
    return shown


def counts(
    prompt: int, completion: int, *, cached: int | None = None, written: int | None = None, reasoning: int | None = None
) -> Usage:
    """Token counts; `prompt` includes `cached` and `written`, `completion` includes `reasoning`."""
    known = cached is not None or written is not None
    return Usage(
        prompt,
        completion,
        prompt + completion,
        PromptCounts(cached, written) if known else None,
        CompletionDetails(reasoning) if reasoning is not None else None,
    )


def tool_start(number: int, id: str, name: str, arguments: str = "", extra: Any = None) -> dict[str, Any]:
    """The delta that begins a tool call; its arguments may follow in fragments."""
    call = {"index": number, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if extra is not None:
        call["extra_content"] = extra
    return {"tool_calls": [call]}


def tool_more(number: int, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": number, "function": {"arguments": arguments}}]}


def message(
    text: Sequence[str], reasoning: Sequence[str], calls: Sequence[Mapping[str, Any]], refusal: str | None = None
) -> dict[str, Any]:
    """An assistant message. `content` is null only where calls or a refusal stand in its place."""
    made: dict[str, Any] = {"role": "assistant", "content": "".join(text)}
    if not made["content"] and (calls or refusal):
        made["content"] = None
    if reasoning:
        made["reasoning_content"] = "".join(reasoning)
    if calls:
        made["tool_calls"] = list(calls)
    made["refusal"] = refusal
    return made


def unreadable(phase: str) -> MalformedError:
    what = "sent an event" if phase == "stream" else "gave an answer"
    return MalformedError(f"The target {what} that is not what its dialect says.", phase=phase)

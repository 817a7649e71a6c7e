"""What a client has of an answer, channel by channel, read back from the payloads that were sent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lumen.core.trace import Trace

_any = msgspec.json.Decoder().decode

CONTENT = "content"
REASONING = "reasoning"
# Names one channel goes by: the field of completions, and two vendors' words for the same thing.
ALIASES = {"text": CONTENT, "content": CONTENT, "reasoning_content": REASONING, "reasoning": REASONING,
           "refusal": "refusal"}  # fmt: skip
# (choice, channel); the channels of a tool call are named after its position.
Channel = tuple[int, str]


def tool_channels(number: int) -> tuple[str, str]:
    """The channels of a tool call's name and of its arguments."""
    return f"name {number}", f"arguments {number}"


def calls(delta: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """The fragments of tool calls in a delta: position, fragment, its function."""
    for position, call in enumerate(delta.get("tool_calls") or ()):
        if isinstance(call, dict):
            function = call.get("function")
            number = call.get("index")
            yield (
                number if isinstance(number, int) else position,
                call,
                function if isinstance(function, dict) else {},
            )


def channels(trace: Trace) -> dict[Channel, str]:
    """All text delivered so far. Complete where the trace is `replayable`, or holds plain text alone."""
    return channels_of(trace.text, trace.parts)


def channels_of(plain: str, parts: Sequence[bytes]) -> dict[Channel, str]:
    """All text of an answer, from the text of its choice 0 and the payloads that hold something else."""
    found: dict[Channel, list[str]] = {}
    for payload in parts:
        for choice in _any(payload).get("choices") or ():
            _collect(choice, found, skip=CONTENT if plain and not choice.get("index") else "")
    told = {channel: "".join(parts) for channel, parts in found.items()}
    if plain:
        told[0, CONTENT] = plain
    return told


def _collect(choice: dict[str, Any], found: dict[Channel, list[str]], skip: str) -> None:
    index = choice.get("index") or 0
    delta = choice["delta"] if isinstance(choice.get("delta"), dict) else choice
    seen = {skip}
    for field, channel in ALIASES.items():
        text = delta.get(field)
        if isinstance(text, str) and text and channel not in seen:
            seen.add(channel)
            found.setdefault((index, channel), []).append(text)
    for number, _, function in calls(delta):
        for channel, text in zip(tool_channels(number), (function.get("name"), function.get("arguments")), strict=True):
            found.setdefault((index, channel), []).append(text if isinstance(text, str) else "")

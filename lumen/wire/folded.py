"""A streamed answer put together to the whole one that it amounts to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lumen.wire.delivered import CONTENT, REASONING, calls, channels_of, tool_channels

_any = msgspec.json.Decoder().decode


def folded(text: str, parts: Sequence[bytes]) -> dict[str, Any] | None:
    """The answer as one JSON value, or `None` where nothing of it came.

    Args:
        text: the content of choice 0.
        parts: the payloads of events that hold something else: other choices, reasoning, refusals, calls of tools.
    """
    found = channels_of(text, parts)
    ids = _ids(parts)
    choices = [_choice(index, found, ids) for index in sorted({index for index, _ in found})]
    return {"choices": choices} if choices else None


def _choice(index: int, found: dict[tuple[int, str], str], ids: dict[tuple[int, int], str]) -> dict[str, Any]:
    own = {channel: text for (of, channel), text in found.items() if of == index}
    message: dict[str, Any] = {"role": "assistant", "content": own.get(CONTENT)}
    message |= {field: own[channel] for field, channel in (("reasoning_content", REASONING), ("refusal", "refusal"))
                if channel in own}  # fmt: skip
    made = []
    for number in sorted(int(channel.partition(" ")[2]) for channel in own if channel.startswith("arguments ")):
        name, arguments = (own.get(channel, "") for channel in tool_channels(number))
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        made.append({"id": ids[index, number], **call} if (index, number) in ids else call)
    return {"index": index, "message": {**message, "tool_calls": made} if made else message}


def _ids(parts: Sequence[bytes]) -> dict[tuple[int, int], str]:
    """(choice, position) → id, of every call of a tool."""
    found: dict[tuple[int, int], str] = {}
    for part in parts:
        for choice in _any(part).get("choices") or ():
            for number, call, _ in calls(choice.get("delta") or {}):
                if isinstance(call.get("id"), str) and call["id"]:
                    found.setdefault((choice.get("index") or 0, number), call["id"])
    return found

"""Fields of past messages that only some vendors take back; the others refuse a request that has them. Pure."""

from __future__ import annotations

from msgspec import UNSET, structs

from lumen.wire.requests import Message


def accepted(messages: list[Message], *, reasoning: bool, extra: bool) -> list[Message]:
    """The messages without what the target does not take; those very ones where there is nothing of that.

    Args:
        reasoning: it takes `reasoning_content`, what an assistant thought. extra: `extra_content` of tool calls.
    """
    for message in messages:
        # Most have nothing of either, and every message of every request comes by here.
        if (message.reasoning_content is not None or message.tool_calls) and _has(
            message, reasoning=reasoning, extra=extra
        ):
            break
    else:
        return messages
    kept = (_without(message, reasoning=reasoning, extra=extra) for message in messages)
    return [message for message in kept if message is not None]


def _has(message: Message, *, reasoning: bool, extra: bool) -> bool:
    if message.reasoning_content is not None and not reasoning:
        return True
    return not extra and any(call.extra_content is not UNSET for call in message.tool_calls or ())


def _without(message: Message, *, reasoning: bool, extra: bool) -> Message | None:
    """`None`: nothing is left of it, as of a turn that was only thought."""
    made = message
    if message.reasoning_content is not None and not reasoning:
        if message.content is None and not message.tool_calls and message.refusal is None:
            return None
        made = structs.replace(made, reasoning_content=None)
    if made.tool_calls and not extra:
        made = structs.replace(made, tool_calls=[structs.replace(c, extra_content=UNSET) for c in made.tool_calls])
    return made

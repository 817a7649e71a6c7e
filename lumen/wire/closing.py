"""The counts of a streamed answer whose target never told them: estimated, and marked as such. Pure."""

from __future__ import annotations

import msgspec

from lumen.wire.call import Operation

_encode = msgspec.json.Encoder().encode
_KINDS = {Operation.CHAT: "chat.completion.chunk", Operation.COMPLETION: "text_completion"}


def usage_chunk(
    operation: Operation, model: str, identity: tuple[str, int] | None, prompt: int, completion: int
) -> bytes:
    """The last chunk of a stream, as a client that asked for counts expects it; `estimated` tells that they are.

    Args:
        identity: id and time the answer goes by.
    """
    id, created = identity or ("", 0)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return _encode(
        {
            "id": id,
            "object": _KINDS[operation],
            "created": created,
            "model": model,
            "choices": [],
            "usage": {**counts, "estimated": True},
        }
    )

"""The text of a prompt, part by part, for whoever wants to know which prompts begin alike. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lumen.wire.requests import ChatRequest, CompletionRequest, Message, Plain, TextPart


def parts(request: ChatRequest | CompletionRequest | Plain) -> Iterator[tuple[str, str]]:
    """(role, text), in order. Of several prompts in one request the first; nothing of what is not text."""
    if isinstance(request, ChatRequest):
        for message in request.messages:
            yield message.role, _text(message)
    elif isinstance(request, CompletionRequest):
        first = request.prompt
        if isinstance(first, list) and first and not isinstance(first[0], int):
            first = first[0]
        if isinstance(first, str):
            yield "prompt", first
        elif isinstance(first, list):
            yield "ids", ",".join(map(str, first))


def _text(message: Message) -> str:
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content if isinstance(part, TextPart))
    calls = "".join(call.function.name + call.function.arguments for call in message.tool_calls or ())
    return (content or "") + calls

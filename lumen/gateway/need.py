"""What a request asks for, as money sees it before any target is chosen. Pure."""

from __future__ import annotations

import msgspec

from lumen.core.meter import input_bound
from lumen.wire.call import Call
from lumen.wire.passed import Passed
from lumen.wire.requests import ChatRequest, FilePart, ImagePart, Message, Plain, TextPart


class Need(msgspec.Struct, frozen=True, gc=False):
    """What a request asks for, before any target is chosen.

    `input_bound`: see `meter.input_bound`, without a target's window. `max_tokens`: as the client gave it.
    `output_bound`: the most tokens of what is no text; `images`, `seconds`: how many, and how much audio, at most.
    """

    input_bytes: int
    input_bound: int
    answers: int
    max_tokens: int | None
    output_bound: int = 0
    images: int = 0
    seconds: int = 0


def needed(call: Call, body: int) -> Need:
    """What a request asks for, from its call and the bytes of its JSON."""
    request = call.request
    if isinstance(request, Passed):
        size = body if request.text_bytes is None else request.text_bytes
        bound = input_bound(size, images=len(getattr(request, "files", ()))) + request.seconds
        return Need(size, bound, 0, None, request.output_bound, request.images, request.seconds)
    if isinstance(request, Plain):
        return Need(body, input_bound(body), 0, None)
    asked = request.max_tokens
    if not isinstance(request, ChatRequest):
        return Need(body, input_bound(body), call.answers, asked)
    images = opaque = 0
    text = body
    for message in request.messages:
        if isinstance(message.content, list):
            more_images, more_opaque, data = _attached(message)
            images, opaque, text = images + more_images, opaque + more_opaque, text - data
    bound = input_bound(text, tools=bool(request.tools), images=images, opaque=opaque)
    return Need(max(text, 0), bound, call.answers, request.max_completion_tokens or asked)


def _attached(message: Message) -> tuple[int, int, int]:
    """Images, files and audio of a message, and how many bytes of the request are their data and not text."""
    images = opaque = data = 0
    for part in message.content or ():
        if isinstance(part, ImagePart):
            images += 1
            data += len(part.image_url.url)
        elif not isinstance(part, str | TextPart):
            opaque += 1
            if isinstance(part, FilePart):
                data += len(part.file.file_data or "")
    return images, opaque, data

"""What every translation of a chat request needs: refusing what a dialect cannot say, and taking parts apart. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs

from lumen.wire.refusals import unsupported
from lumen.wire.requests import (
    AudioPart,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    RefusalPart,
    TextPart,
    ToolCall,
)

_any = msgspec.json.Decoder().decode
# Values that ask for nothing beyond what every model does anyway.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "parallel_tool_calls": (True,),
    "store": (False,),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "min_p": (0,),
    "typical_p": (1,),
    "top_k": (0, -1),
    "repeat_penalty": (1,),
    "repetition_penalty": (1,),
    "return_token_ids": (False,),
    "resume_token_ids": ([],),
}


def refuse(request: ChatRequest, reasons: Mapping[str, str]) -> None:
    """Refuse fields a dialect has no place for, unless their value asks for nothing.

    Raises:
        RefusedError: `unsupported_by_target`, with the field as its `param`.
    """
    for field, why in reasons.items():
        value = getattr(request, field)
        if value is not None and value not in NEUTRAL.get(field, ()):
            raise unsupported(field, why)


def relieved(request: ChatRequest, lent: Sequence[str], unknown: Container[str]) -> ChatRequest:
    """The request without those lent fields that a dialect or target does not know."""
    gone = dict.fromkeys([name for name in lent if name in unknown])
    return structs.replace(request, **gone) if gone else request


def refuse_incapable(request: ChatRequest, *, tools: bool, seed: bool, json_schema: bool) -> None:
    """Refuse what this one target is declared not to do.

    Raises:
        RefusedError: `unsupported_by_target`.
    """
    if request.tools and not tools:
        raise unsupported("tools", "its model calls no tools.")
    if request.seed is not None and not seed:
        raise unsupported("seed", "it does not sample from a seed.")
    if isinstance(request.response_format, JsonSchemaFormat) and not json_schema:
        raise unsupported("response_format", "its answers cannot be bound to a JSON schema.")


def stops(request: ChatRequest) -> list[str]:
    return [request.stop] if isinstance(request.stop, str) else request.stop or []


def max_tokens(request: ChatRequest) -> int | None:
    return request.max_completion_tokens or request.max_tokens


def parts(content: str | Sequence[ContentPart] | None, where: str) -> list[tuple[ContentPart, str]]:
    """The parts of a message that say something, each with its place in the request, such as `messages[0].content`."""
    if not content:
        return []
    if isinstance(content, str):
        return [(TextPart(content), where)]
    return [
        (part, f"{where}[{i}]") for i, part in enumerate(content) if not (isinstance(part, TextPart) and not part.text)
    ]


def texts(content: str | Sequence[ContentPart] | None, where: str, role: str) -> list[str]:
    """The parts of a message that may hold nothing but text.

    Raises:
        RefusedError: it holds something else.
    """
    found = []
    for part, place in parts(content, where):
        if isinstance(part, TextPart):
            found.append(part.text)
        elif isinstance(part, RefusalPart):
            found.append(part.refusal)
        else:
            raise unsupported(place, f"its {role} messages hold only text, not {kind_of(part)}.")
    return found


def kind_of(part: ContentPart) -> str:
    names = {ImagePart: "images", AudioPart: "audio", FilePart: "files"}
    return next((name for kind, name in names.items() if isinstance(part, kind)), "text")


def data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 text of a `data:` URL; `None` where it is none, or not in base64."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url[5:].partition(",")
    kind, *options = head.split(";")
    if not comma or "base64" not in options:
        return None
    return kind.lower(), data


def arguments(call: ToolCall, where: str) -> dict[str, Any]:
    """The arguments of a call as an object; an empty string stands for none.

    Raises:
        RefusedError: they are not a JSON object.
    """
    text = call.function.arguments
    try:
        found = _any(text) if text.strip() else {}
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise unsupported(f"{where}.function.arguments", "it takes arguments only as a JSON object.")
    return found

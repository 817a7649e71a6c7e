"""Small checks of the two vendors' request schemas: the fields there are, their types, and what they may hold.

Written from the public references, apart from the encoders, so that neither can repeat the other's mistake.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Json = dict[str, Any]
Text = Annotated[str, Meta(min_length=1)]
Media = Literal["image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf"]
Share = Annotated[float, Meta(ge=0, le=1)]


class _Exact(Struct, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """Names as Gemini writes them; what is not declared is a mistake."""


class _Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    """Names as Anthropic writes them."""


# -- Anthropic ---------------------------------------------------------------------------------------------------


class Base64(_Strict, tag_field="type", tag="base64"):
    media_type: Media
    data: str


class Url(_Strict, tag_field="type", tag="url"):
    url: Annotated[str, Meta(pattern="^https?://")]


class TextBlock(_Strict, tag_field="type", tag="text"):
    text: Text


class ImageBlock(_Strict, tag_field="type", tag="image"):
    source: Base64 | Url


class DocumentBlock(_Strict, tag_field="type", tag="document"):
    source: Base64
    title: str | None = None


class ToolUse(_Strict, tag_field="type", tag="tool_use"):
    id: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]+$")]
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    input: Json


class ToolResult(_Strict, tag_field="type", tag="tool_result"):
    tool_use_id: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]+$")]
    content: Annotated[list[TextBlock | ImageBlock | DocumentBlock], Meta(min_length=1)] | None = None


class Turn(_Strict):
    role: Literal["user", "assistant", "system"]
    content: Annotated[list[TextBlock | ImageBlock | DocumentBlock | ToolUse | ToolResult], Meta(min_length=1)]


class AnthropicTool(_Strict):
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    input_schema: Json
    description: str | None = None
    strict: bool | None = None


class Choice(_Strict):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(_Strict):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1024)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class Format(_Strict):
    type: Literal["json_schema"]
    schema: Json


class OutputConfig(_Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class User(_Strict):
    user_id: str


class AnthropicRequest(_Strict):
    model: Text
    max_tokens: Annotated[int, Meta(ge=1)]
    messages: Annotated[list[Turn], Meta(min_length=1)]
    system: list[TextBlock] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: list[Text] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: User | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    stream: bool | None = None


# -- Gemini ------------------------------------------------------------------------------------------------------


class Inline(_Exact):
    mime_type: Text
    data: str


class FileData(_Exact):
    file_uri: Text
    mime_type: str | None = None


class Call(_Exact):
    name: Text
    id: str
    args: Json


class Part(_Exact):
    text: Text | None = None
    inline_data: Inline | None = None
    file_data: FileData | None = None
    function_call: Call | None = None
    function_response: Result | None = None
    thought_signature: Text | None = None


class Result(_Exact):
    name: Text
    id: str
    response: Json
    parts: list[Part] | None = None


class Content(_Exact):
    role: Literal["user", "model"]
    parts: Annotated[list[Part], Meta(min_length=1)]


class System(_Exact):
    parts: Annotated[list[Part], Meta(min_length=1)]


class Function(_Exact):
    name: Annotated[str, Meta(pattern="^[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}$")]
    description: str | None = None
    parameters_json_schema: Json | None = None


class GeminiTool(_Exact):
    function_declarations: Annotated[list[Function], Meta(min_length=1)]


class Calling(_Exact):
    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"]
    allowed_function_names: list[str] | None = None


class ToolConfig(_Exact):
    function_calling_config: Calling


class ThinkingConfig(_Exact):
    include_thoughts: bool
    thinking_budget: Annotated[int, Meta(ge=0)] | None = None
    thinking_level: Literal["MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"] | None = None


class Config(_Exact):
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    candidate_count: Annotated[int, Meta(ge=2, le=8)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: Annotated[list[Text], Meta(max_length=5)] | None = None
    response_mime_type: Literal["application/json"] | None = None
    response_json_schema: Json | None = None
    thinking_config: ThinkingConfig | None = None
    media_resolution: Literal["MEDIA_RESOLUTION_LOW"] | None = None


class GeminiRequest(_Exact):
    contents: Annotated[list[Content], Meta(min_length=1)]
    system_instruction: System | None = None
    tools: list[GeminiTool] | None = None
    tool_config: ToolConfig | None = None
    generation_config: Config | None = None
    service_tier: Literal["flex", "priority", "standard"] | None = None


def check_anthropic(body: bytes) -> None:
    request = msgspec.json.decode(body, type=AnthropicRequest)
    thinking = request.thinking
    if thinking is not None and thinking.budget_tokens is not None:
        assert thinking.budget_tokens < request.max_tokens
    for before, after in zip(request.messages, request.messages[1:], strict=False):
        assert (before.role, after.role) != ("user", "user")


def check_gemini(body: bytes) -> None:
    request = msgspec.json.decode(body, type=GeminiRequest)
    called = {part.function_call.id for turn in request.contents for part in turn.parts if part.function_call}
    for turn in request.contents:
        for part in turn.parts:
            # The signature comes beside the part's one value.
            values = [part.text, part.inline_data, part.file_data, part.function_call, part.function_response]
            assert sum(value is not None for value in values) == 1
            if part.function_response is not None:
                assert part.function_response.id in called

"""Requests of the Anthropic Messages API as chat requests. Pure.

Source: the public Messages API reference, version 2023-06-01. Fields that are not declared here are not forwarded.
What would be lost is refused with a word about it; two things are dropped because they change no answer: cache marks
(`cache_control`), and the signatures of thoughts, which only the vendor that wrote them can read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from lumen.core.errors import RequestError
from lumen.wire.parse import decode_body
from lumen.wire.requests import (
    ChatRequest,
    ContentPart,
    FilePart,
    FileRef,
    FunctionCall,
    FunctionDef,
    ImagePart,
    ImageUrl,
    Json,
    JsonSchema,
    JsonSchemaFormat,
    MaxTokens,
    Message,
    NamedFunction,
    NamedTool,
    Share,
    StreamOptions,
    TextPart,
    Tool,
    ToolCall,
)

_EFFORTS = ((4096, "low"), (16_384, "medium"))
_text_of = msgspec.json.Encoder().encode


class Source(Struct):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class TextBlock(Struct, tag_field="type", tag="text"):
    text: str


class ImageBlock(Struct, tag_field="type", tag="image"):
    source: Source


class DocumentBlock(Struct, tag_field="type", tag="document"):
    source: Source
    title: str | None = None


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: Json


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    thinking: str


class RedactedBlock(Struct, tag_field="type", tag="redacted_thinking"):
    pass


ResultPart = TextBlock | ImageBlock | DocumentBlock


class ToolResultBlock(Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[ResultPart] | None = None
    is_error: bool | None = None


Block = TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedBlock


class Turn(Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class CustomTool(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    type: str | None = None
    description: str | None = None
    input_schema: Json | None = None
    strict: bool | None = None


class Choice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class Format(Struct):
    type: Literal["json_schema"]
    schema: Json


class OutputConfig(Struct):
    format: Format | None = None
    effort: str | None = None


class Metadata(Struct):
    user_id: str | None = None


class MessagesRequest(Struct, kw_only=True):
    model: str
    messages: Annotated[list[Turn], Meta(min_length=1)]
    max_tokens: MaxTokens
    system: str | list[TextBlock] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=16)] | None = None
    tools: Annotated[list[CustomTool], Meta(max_length=256)] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None


class CountRequest(MessagesRequest, kw_only=True):
    """The body of `count_tokens`: a request without a limit, as nothing is answered."""

    max_tokens: MaxTokens = 1


_messages = msgspec.json.Decoder(MessagesRequest).decode
_count = msgspec.json.Decoder(CountRequest).decode


def parse_messages(body: bytes) -> ChatRequest:
    """A `POST /v1/messages` body as a chat request.

    Raises:
        RequestError: 400, with `param` such as `messages[0].role`.
    """
    return chat_of(decode_body(_messages, body))


def parse_count(body: bytes) -> ChatRequest:
    """A `POST /v1/messages/count_tokens` body as the chat request whose prompt is to be counted.

    Raises:
        RequestError: 400.
    """
    return chat_of(decode_body(_count, body))


def chat_of(given: MessagesRequest) -> ChatRequest:
    """The chat request that asks for the same.

    Raises:
        RequestError: 400; it asks for something a chat request has no place for.
    """
    messages = _system(given)
    for i, turn in enumerate(given.messages):
        messages += _turn(turn, f"messages[{i}].content")
    request = ChatRequest(
        model=given.model,
        messages=messages,
        max_tokens=given.max_tokens,
        stream=given.stream,
        stream_options=StreamOptions(include_usage=True) if given.stream else None,
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        stop=given.stop_sequences or None,
        user=given.metadata.user_id if given.metadata else None,
        service_tier=given.service_tier,
        reasoning_effort=_effort(given),
        # A conversation that ends with the model's own turn asks for the rest of that turn.
        continue_final_message=True if given.messages[-1].role == "assistant" else None,
    )
    if "" in (given.stop_sequences or ()):
        raise _bad("stop_sequences", "A stop sequence must not be empty.")
    if given.output_config is not None and given.output_config.format is not None:
        schema = JsonSchema(name="answer", schema=given.output_config.format.schema, strict=True)
        request.response_format = JsonSchemaFormat(json_schema=schema)
    _tools(given, request)
    return request


def _system(given: MessagesRequest) -> list[Message]:
    if not given.system:
        return []
    if isinstance(given.system, str):
        return [Message("system", given.system)]
    return [Message("system", [TextPart(block.text) for block in given.system])]


def _effort(given: MessagesRequest) -> str | None:
    """How hard to think: as asked for, else as a budget of tokens says."""
    if given.output_config is not None and given.output_config.effort is not None:
        return given.output_config.effort
    thinking = given.thinking
    if thinking is None or thinking.type == "adaptive":
        return None
    if thinking.type == "disabled":
        return "none"
    if thinking.budget_tokens is None:
        raise _bad("thinking.budget_tokens", "Thinking that is 'enabled' needs 'budget_tokens'.")
    return next((effort for most, effort in _EFFORTS if thinking.budget_tokens <= most), "high")


def _turn(turn: Turn, where: str) -> list[Message]:
    if isinstance(turn.content, str):
        return [Message(turn.role, turn.content)]
    if not turn.content:
        raise _bad(where, "A message needs at least one content block.")
    if turn.role == "assistant":
        return [_assistant(turn.content, where)]
    made: list[Message] = []
    parts: list[ContentPart] = []
    for i, block in enumerate(turn.content):
        if isinstance(block, ToolResultBlock):
            if parts:
                made.append(Message(turn.role, parts))
                parts = []
            made.append(_result(block, f"{where}[{i}]"))
        else:
            parts.append(_part(block, f"{where}[{i}]"))
    return [*made, Message(turn.role, parts)] if parts else made


def _assistant(blocks: list[Block], where: str) -> Message:
    text: list[ContentPart] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        if isinstance(block, ToolUseBlock):
            calls.append(ToolCall(block.id, FunctionCall(block.name, _text_of(block.input).decode())))
        elif isinstance(block, ThinkingBlock):
            thoughts.append(block.thinking)
        elif isinstance(block, TextBlock):
            text.append(TextPart(block.text))
        elif not isinstance(block, RedactedBlock):
            raise _bad(f"{where}[{i}]", "An assistant's message holds only text, thinking and tool_use blocks.")
    whole = text[0].text if len(text) == 1 and isinstance(text[0], TextPart) else text or None
    if whole is None and not calls:
        whole = ""
    reasoning = "".join(thoughts) or None
    return Message("assistant", whole, tool_calls=calls or None, reasoning_content=reasoning)


def _result(block: ToolResultBlock, where: str) -> Message:
    content: str | list[ContentPart]
    if isinstance(block.content, list):
        content = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(block.content)]
        if all(isinstance(part, TextPart) for part in content):
            content = "".join(part.text for part in content if isinstance(part, TextPart))
    else:
        content = block.content or ""
    if block.is_error:
        # A chat request has no mark for it; the model must not take a failure for a result.
        content = f"Error: {content}" if isinstance(content, str) else [TextPart("Error:"), *content]
    return Message("tool", content, tool_call_id=block.tool_use_id)


def _part(block: Block, where: str) -> ContentPart:
    if isinstance(block, TextBlock):
        return TextPart(block.text)
    if isinstance(block, ImageBlock):
        return ImagePart(ImageUrl(_url(block.source, where)))
    if isinstance(block, DocumentBlock):
        if block.source.type == "text":
            return TextPart(block.source.data or "")
        if block.source.type != "base64":
            raise _bad(f"{where}.source", "Documents are taken as text or base64.")
        return FilePart(FileRef(file_data=_url(block.source, where), filename=block.title))
    raise _bad(where, "This block is allowed only in an assistant's message.")


def _url(source: Source, where: str) -> str:
    if source.type == "url" and source.url:
        return source.url
    if source.type == "base64" and source.media_type and source.data is not None:
        return f"data:{source.media_type};base64,{source.data}"
    raise _bad(f"{where}.source", "A source is 'base64' with 'media_type' and 'data', or 'url' with 'url'.")


def _tools(given: MessagesRequest, request: ChatRequest) -> None:
    tools = []
    for i, tool in enumerate(given.tools or ()):
        if tool.type not in (None, "custom"):
            raise _bad(f"tools[{i}].type", f"Only tools of your own are served here, not '{tool.type[:64]}'.")
        if tool.input_schema is None:
            raise _bad(f"tools[{i}].input_schema", f"Missing required parameter: 'tools[{i}].input_schema'.")
        tools.append(Tool(FunctionDef(tool.name, tool.description, tool.input_schema, tool.strict), "function"))
    request.tools = tools or None
    choice = given.tool_choice
    if choice is None:
        return
    if not tools and choice.type != "none":
        raise _bad("tool_choice", "'tool_choice' is only allowed when 'tools' are given.")
    if choice.disable_parallel_tool_use and tools:
        request.parallel_tool_calls = False
    if choice.type == "tool":
        if all(tool.function.name != choice.name for tool in tools):
            raise _bad("tool_choice.name", f"Tool choice '{(choice.name or '')[:64]}' is not among the given 'tools'.")
        request.tool_choice = NamedTool(NamedFunction(choice.name or ""), "function")
    elif tools:
        request.tool_choice = "required" if choice.type == "any" else choice.type


def _bad(param: str, message: str) -> RequestError:
    return RequestError(message, param=param, code="invalid_value")

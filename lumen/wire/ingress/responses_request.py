"""Requests of the OpenAI Responses API as chat requests. Pure.

Source: the public Responses API reference. Fields that are not declared here are not forwarded; what would change the
answer and has no place in a chat request (tools that a vendor runs itself, background work, automatic truncation) is
refused with a word about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

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
    JsonObjectFormat,
    JsonSchema,
    JsonSchemaFormat,
    MaxTokens,
    Message,
    NamedFunction,
    NamedTool,
    RefusalPart,
    ResponseFormat,
    Share,
    StreamOptions,
    Temperature,
    TextPart,
    Tool,
    ToolCall,
)

_T = TypeVar("_T")
LOGPROBS = "message.output_text.logprobs"
_Role = Literal["user", "assistant", "system", "developer"]


class Part(Struct):
    """One part of a message's content; which fields it has depends on its type."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Item(Struct, omit_defaults=True):
    """One item of a conversation; which fields it has depends on its type, which is `message` where none is given."""

    type: str = "message"
    id: str | None = None
    role: _Role | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    status: str | None = None


class ResponseTool(Struct, omit_defaults=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Chosen(Struct):
    type: str
    name: str | None = None


class TextFormat(Struct, omit_defaults=True):
    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: Json | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(Struct, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(Struct, kw_only=True):
    model: str
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: bool | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=256)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Chosen | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    prompt: Any = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None


_responses = msgspec.json.Decoder(ResponsesRequest).decode


def parse_responses(body: bytes) -> ResponsesRequest:
    """A `POST /v1/responses` body.

    Raises:
        RequestError: 400, with `param` such as `input[0].role`.
    """
    given = decode_body(_responses, body)
    if given.background:
        raise _bad("background", "Answers are given while you wait; leave out 'background'.")
    if given.truncation == "auto":
        raise _bad("truncation", "Nothing is cut off silently here; shorten the input, or leave out 'truncation'.")
    for field in ("conversation", "prompt"):
        if getattr(given, field) is not None:
            raise _bad(field, f"'{field}' is not kept here; send the items in 'input'.")
    return given


def items_of(given: ResponsesRequest) -> list[Item]:
    """The input as items, a text being one message of the user."""
    if isinstance(given.input, str):
        return [Item(role="user", content=given.input)]
    return given.input


def chat_of(given: ResponsesRequest, earlier: Sequence[Item] = ()) -> ChatRequest:
    """The chat request that asks for the same.

    Args:
        earlier: the items of the conversation so far, where the request goes on with one that was kept.

    Raises:
        RequestError: 400; it asks for something a chat request has no place for.
    """
    messages = _Messages()
    if given.instructions:
        messages.made.append(Message("system", given.instructions))
    for item in earlier:
        messages.add(item, "previous_response_id")
    for i, item in enumerate(items_of(given)):
        messages.add(item, f"input[{i}]")
    if not messages.made:
        raise _bad("input", "The input holds no message.")
    logprobs = given.top_logprobs is not None or LOGPROBS in (given.include or ())
    request = ChatRequest(
        model=given.model,
        messages=messages.made,
        max_completion_tokens=given.max_output_tokens,
        temperature=given.temperature,
        top_p=given.top_p,
        logprobs=True if logprobs else None,
        top_logprobs=given.top_logprobs,
        stream=given.stream,
        stream_options=StreamOptions(include_usage=True) if given.stream else None,
        parallel_tool_calls=given.parallel_tool_calls if given.tools else None,
        response_format=_format(given),
        reasoning_effort=given.reasoning.effort if given.reasoning else None,
        verbosity=given.text.verbosity if given.text else None,
        user=given.safety_identifier or given.user,
        service_tier=given.service_tier,
    )
    _tools(given, request)
    return request


class _Messages:
    """Items become messages; the calls of one turn, and what was thought before them, share one message."""

    def __init__(self) -> None:
        self.made: list[Message] = []
        self._thought = ""

    def add(self, item: Item, where: str) -> None:
        if item.type == "message":
            self._message(item, where)
        elif item.type == "function_call":
            call = ToolCall(_given(item.call_id, f"{where}.call_id"), _call(item, where))
            message = self._turn()
            message.tool_calls = [*(message.tool_calls or ()), call]
        elif item.type == "function_call_output":
            output = item.output if isinstance(item.output, str) else self._parts(item.output, f"{where}.output")
            self.made.append(Message("tool", output, tool_call_id=_given(item.call_id, f"{where}.call_id")))
        elif item.type == "reasoning":
            parts = item.content if isinstance(item.content, list) and item.content else item.summary
            self._thought += "".join(part.text or "" for part in parts or ())
        else:
            raise _bad(f"{where}.type", f"Items of the type '{item.type[:64]}' are not served here.")

    def _message(self, item: Item, where: str) -> None:
        if item.role is None:
            _given(item.role, f"{where}.role")
        elif item.role == "assistant":
            if self.made and self.made[-1].role == "assistant":
                # Two messages in a row of its own: the second is a turn of its own.
                self.made.append(Message("assistant", reasoning_content=self._thought or None))
                self._thought = ""
            self._turn().content = self._content(item, where)
        else:
            self._thought = ""
            self.made.append(Message(item.role, self._content(item, where)))

    def _turn(self) -> Message:
        """The message that the model's items go into: what is said first, then its calls."""
        last = self.made[-1] if self.made else None
        if last is None or last.role != "assistant" or self._thought:
            last = Message("assistant", reasoning_content=self._thought or None)
            self._thought = ""
            self.made.append(last)
        return last

    def _content(self, item: Item, where: str) -> str | list[ContentPart]:
        if isinstance(item.content, str):
            return item.content
        return self._parts(item.content, f"{where}.content")

    def _parts(self, parts: list[Part] | None, where: str) -> str | list[ContentPart]:
        made = [_part(part, f"{where}[{i}]") for i, part in enumerate(_given(parts, where))]
        texts = [part.text for part in made if isinstance(part, TextPart)]
        # Most servers take a list of parts only from the user; text alone needs none.
        return "".join(texts) if len(texts) == len(made) else made


def _part(part: Part, where: str) -> ContentPart:
    if part.type in ("input_text", "output_text", "text"):
        return TextPart(_given(part.text, f"{where}.text"))
    if part.type == "refusal":
        return RefusalPart(_given(part.refusal, f"{where}.refusal"))
    if part.type == "input_image":
        if part.image_url is None:
            raise _bad(f"{where}.image_url", "Images are taken by 'image_url' only: a web address or a data URL.")
        return ImagePart(ImageUrl(part.image_url, part.detail))
    if part.type == "input_file":
        return FilePart(FileRef(part.file_data, part.file_id, part.filename))
    raise _bad(f"{where}.type", f"Content of the type '{part.type[:64]}' is not served here.")


def _call(item: Item, where: str) -> FunctionCall:
    return FunctionCall(_given(item.name, f"{where}.name"), item.arguments or "")


def _given(value: _T | None, where: str) -> _T:
    if value is None:
        raise RequestError(f"Missing required parameter: '{where}'.", param=where, code="missing_required_parameter")
    return value


def _format(given: ResponsesRequest) -> ResponseFormat | None:
    wanted = given.text.format if given.text else None
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return JsonObjectFormat()
    name = _given(wanted.name, "text.format.name")
    return JsonSchemaFormat(JsonSchema(name, wanted.schema, wanted.description, wanted.strict))


def _tools(given: ResponsesRequest, request: ChatRequest) -> None:
    tools = []
    for i, tool in enumerate(given.tools or ()):
        if tool.type != "function":
            raise _bad(f"tools[{i}].type", f"Only tools of your own are served here, not '{tool.type[:64]}'.")
        name = _given(tool.name, f"tools[{i}].name")
        tools.append(Tool(FunctionDef(name, tool.description, tool.parameters, tool.strict), "function"))
    request.tools = tools or None
    choice = given.tool_choice
    if isinstance(choice, Chosen):
        if choice.type != "function" or all(tool.function.name != choice.name for tool in tools):
            raise _bad("tool_choice", "'tool_choice' names no function among the given 'tools'.")
        request.tool_choice = NamedTool(NamedFunction(choice.name or ""), "function")
    elif tools:
        request.tool_choice = choice
    elif choice == "required":
        raise _bad("tool_choice", "'tool_choice' is only allowed when 'tools' are given.")


def _bad(param: str, message: str) -> RequestError:
    return RequestError(message, param=param, code="invalid_value")

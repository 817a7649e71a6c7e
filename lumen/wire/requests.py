"""The OpenAI requests Lumen accepts, as typed structs: decoding one is validating it and keeping an allow-list.

A field that is not declared here never reaches a target, at any depth. `null` means "not given".
Source: the public OpenAI API reference (chat, completions, embeddings).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Json = dict[str, Any]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
MaxTokens = Annotated[int, Meta(ge=1, le=10_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stops = Annotated[list[str], Meta(max_length=16)]


class _Part(Struct, omit_defaults=True):
    pass


class ImageUrl(_Part):
    url: str
    detail: str | None = None


class InputAudio(_Part):
    data: str
    format: str


class FileRef(_Part):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class TextPart(_Part, tag_field="type", tag="text"):
    text: str


class ImagePart(_Part, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class AudioPart(_Part, tag_field="type", tag="input_audio"):
    input_audio: InputAudio


class FilePart(_Part, tag_field="type", tag="file"):
    file: FileRef


class RefusalPart(_Part, tag_field="type", tag="refusal"):
    refusal: str


ContentPart = TextPart | ImagePart | AudioPart | FilePart | RefusalPart


class FunctionCall(Struct, omit_defaults=True):
    name: str
    arguments: str


class GoogleExtra(Struct, omit_defaults=True):
    thought_signature: str | None = None


class ExtraContent(Struct, omit_defaults=True):
    """What a vendor needs back with a call it made: Gemini refuses a conversation without its signatures."""

    google: GoogleExtra | None = None


class ToolCall(Struct):
    # Without `omit_defaults`: servers require `type` although it has one value.
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"
    extra_content: ExtraContent | UnsetType | None = UNSET


class Message(Struct, omit_defaults=True):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], Meta(min_length=1)] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class PrefixMessage(Message):
    """The beginning of the answer, for targets that want it marked. Only Lumen writes it: no request decodes to it."""

    prefix: bool = False


class FunctionDef(Struct, omit_defaults=True):
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.-]+$")]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Struct):
    function: FunctionDef
    type: Literal["function"]


class NamedFunction(Struct):
    name: str


class NamedTool(Struct):
    function: NamedFunction
    type: Literal["function"]


class JsonSchema(Struct, omit_defaults=True):
    name: str
    schema: Json | None = None
    description: str | None = None
    strict: bool | None = None


class TextFormat(Struct, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(Struct, tag_field="type", tag="json_object"):
    pass


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StreamOptions(Struct, omit_defaults=True):
    include_usage: bool | None = None


class Sampling(Struct, omit_defaults=True, kw_only=True):
    """What chat and completions share. The second half are extensions that local engines understand."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_tokens: MaxTokens | None = None
    stop: str | Stops | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    user: str | None = None

    top_k: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    return_token_ids: bool | None = None
    resume_token_ids: list[int] | None = None
    resume_exact: bool | None = None


class ChatRequest(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=256)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    prediction: Json | None = None
    modalities: list[str] | None = None
    continue_final_message: bool | None = None


class ContinuedChat(ChatRequest, kw_only=True):
    """A chat whose last message a target is to continue. Only Lumen writes it: no request decodes to it."""

    add_generation_prompt: bool | None = None


class CompletionRequest(Sampling, kw_only=True):
    prompt: Any
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None


class Plain(Struct, omit_defaults=True, kw_only=True):
    """What is asked for in one piece and cannot be gone on with: everything but text that a model makes."""

    model: str


class EmbeddingRequest(Plain, kw_only=True):
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65536)] | None = None
    user: str | None = None


# What only local engines understand: never sent to a remote target.
SAMPLERS = ("top_k", "min_p", "typical_p", "repeat_penalty", "repetition_penalty")
LOCAL_ONLY = (
    *SAMPLERS,
    "return_token_ids",
    "resume_token_ids",
    "resume_exact",
    "continue_final_message",
)

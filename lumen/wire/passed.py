"""Requests that are handed on to a target that has such an endpoint: tokens, ranking, moderation, images, audio. Pure.

Each is a struct that keeps an allow-list, as in `requests.py`; forms keep the client's own bytes, of which only the
model's name is changed. Sources: the public OpenAI API reference (moderations, images, audio), the rerank endpoint as
Jina, Cohere and vLLM have it, and vLLM's `/tokenize` and `/detokenize`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from lumen.core.errors import RequestError
from lumen.wire.call import Call, Operation
from lumen.wire.multipart import Part, boundary_of, scan
from lumen.wire.parse import decode_body
from lumen.wire.requests import ChatRequest, Json, Message, Plain, Tool

_P = TypeVar("_P", bound=Plain)
Count = Annotated[int, Meta(ge=1, le=10_000)]
_MOST_VALUE = 64 * 1024
_MOST_PROMPT = 64 * 1024
# No codec in use keeps speech in fewer bytes a second.
_LEAST_RATE = 500
# The most tokens that a model is known to spend on an image (6,240), and on a second of audio, with room.
_IMAGE_TOKENS = 10_000
_SECOND_TOKENS = 25


class Passed(Plain, kw_only=True):
    """What every request of this kind has."""

    @property
    def images(self) -> int:
        """How many images it makes at most."""
        return 0

    @property
    def seconds(self) -> int:
        """How much audio it holds at most."""
        return 0

    @property
    def text_bytes(self) -> int | None:
        """Bytes of it that a model reads as text; `None`: all of them."""
        return None

    @property
    def output_bound(self) -> int:
        """The most tokens of an answer, where those are counted."""
        return self.images * _IMAGE_TOKENS + self.seconds * _SECOND_TOKENS


class TokenizeRequest(Passed, kw_only=True):
    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=256)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class DetokenizeRequest(Passed, kw_only=True):
    tokens: list[Annotated[int, Meta(ge=0, le=2**31 - 1)]]


class RerankRequest(Passed, kw_only=True):
    query: str
    documents: Annotated[list[str | Json], Meta(min_length=1, max_length=10_000)]
    top_n: Count | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Count | None = None
    max_chunks_per_doc: Count | None = None
    rank_fields: list[str] | None = None


class ModerationRequest(Passed, kw_only=True):
    input: str | Annotated[list[str | Json], Meta(min_length=1, max_length=2048)]


class ImageRequest(Passed, kw_only=True):
    prompt: Annotated[str, Meta(min_length=1, max_length=_MOST_PROMPT)]
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: str | None = None
    quality: str | None = None
    style: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: str | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    background: str | None = None
    moderation: str | None = None
    seed: int | None = None
    user: str | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    stream: bool | None = None

    @property
    def images(self) -> int:
        return self.n or 1


class SpeechRequest(Passed, kw_only=True):
    input: Annotated[str, Meta(min_length=1, max_length=_MOST_PROMPT)]
    voice: str | Json
    instructions: str | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4)] | None = None
    stream_format: str | None = None


class FormRequest(Passed, kw_only=True, dict=True):
    """A form with files. `fields`: its values; `files`: the names of its files. The bytes are `upload`, and are never
    written out with the rest.
    """

    fields: dict[str, str]
    files: list[str]
    audio: bool

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as it is made."""
        return self.fields.get("stream", "").lower() in ("true", "1")

    @property
    def upload(self) -> Upload:
        found: Upload = self.__dict__["upload"]
        return found

    @property
    def images(self) -> int:
        many = self.fields.get("n", "1")
        return 0 if self.audio else int(many) if many.isdigit() and len(many) < 3 else 1

    @property
    def seconds(self) -> int:
        return self.upload.size // _LEAST_RATE if self.audio else 0

    @property
    def text_bytes(self) -> int | None:
        return sum(len(value) for value in self.fields.values())


class Received:
    """A form as it came: its bytes, held once, and its content type."""

    __slots__ = ("body", "kind")

    def __init__(self, body: bytearray, kind: str) -> None:
        self.body, self.kind = body, kind

    def __len__(self) -> int:
        return len(self.body)


class Upload:
    """The bytes of a form, to be sent with another model's name in the place of `[start:end]`."""

    __slots__ = ("_end", "_start", "kind", "size", "view")

    def __init__(self, given: Received, start: int, end: int) -> None:
        self.view, self.kind, self.size = memoryview(given.body), given.kind, len(given)
        self._start, self._end = start, end

    def named(self, model: str) -> tuple[bytes | memoryview, ...]:
        """The pieces of the body for this model."""
        return self.view[: self._start], model.encode(), self.view[self._end :]


def _json(kind: type[_P], operation: Operation) -> tuple[Callable[[bytes], _P], Callable[[_P], Call]]:
    decode = msgspec.json.Decoder(kind).decode

    def parse(body: bytes) -> _P:
        return decode_body(decode, body)

    return parse, lambda request: _call(operation, request, stream=bool(getattr(request, "stream", None)))


def _form(
    operation: Operation, needed: str, *, audio: bool, streams: bool
) -> tuple[Callable[[Received], FormRequest], Callable[[FormRequest], Call]]:
    def parse(given: Received) -> FormRequest:
        request = parse_form(given, needed, audio=audio)
        if request.stream and not streams:
            raise RequestError("'stream' is not supported here.", param="stream", code="unsupported_parameter")
        return request

    return parse, lambda request: _call(operation, request, stream=request.stream)


def _call(operation: Operation, request: Passed, *, stream: bool) -> Call:
    """What is streamed is one answer, which is whole when the target says so."""
    return Call(operation, request, stream, False, int(stream))


def parse_form(given: Received, needed: str, *, audio: bool) -> FormRequest:
    """A form. `needed`: the file that it must have.

    Raises:
        RequestError: 400 or 415.
    """
    parts = scan(given.body, boundary_of(given.kind))
    values = {part.name: part for part in parts if not part.file}
    files = [part.name for part in parts if part.file]
    if "model" not in values or sum(part.name == "model" for part in parts) > 1:
        raise _missing("model")
    if not any(name in (needed, f"{needed}[]") for name in files):
        raise _missing(needed)
    fields = {name: _value(given, part) for name, part in values.items()}
    if fields.get("stream", "false").lower() not in ("", "false", "0", "true", "1"):
        raise RequestError("'stream' is true or false.", param="stream", code="invalid_value")
    request = FormRequest(model=fields["model"], fields=fields, files=files, audio=audio)
    at = values["model"]
    request.__dict__["upload"] = Upload(given, at.start, at.end)
    return request


def _value(given: Received, part: Part) -> str:
    if part.end - part.start > _MOST_VALUE:
        raise RequestError(f"'{part.name[:64]}' is too long.", param=part.name[:64], code="string_above_max_length")
    try:
        return bytes(given.body[part.start : part.end]).decode()
    except UnicodeDecodeError:
        raise RequestError(f"'{part.name[:64]}' is not valid UTF-8.", param=part.name[:64]) from None


def _missing(name: str) -> RequestError:
    return RequestError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


parse_tokenize_body, tokenize_call = _json(TokenizeRequest, Operation.TOKENIZE)
parse_detokenize, detokenize_call = _json(DetokenizeRequest, Operation.DETOKENIZE)
parse_rerank, rerank_call = _json(RerankRequest, Operation.RERANK)
parse_moderation, moderation_call = _json(ModerationRequest, Operation.MODERATION)
parse_image, image_call = _json(ImageRequest, Operation.IMAGE)
parse_image_edit, image_edit_call = _form(Operation.IMAGE_EDIT, "image", audio=False, streams=True)
parse_image_variation, image_variation_call = _form(Operation.IMAGE_VARIATION, "image", audio=False, streams=False)
parse_transcription, transcription_call = _form(Operation.TRANSCRIPTION, "file", audio=True, streams=True)
parse_translation, translation_call = _form(Operation.TRANSLATION, "file", audio=True, streams=False)
_speech = msgspec.json.Decoder(SpeechRequest).decode


def parse_tokenize(body: bytes) -> TokenizeRequest:
    """A `/tokenize` body: a prompt, or messages to which the model's chat template is applied.

    Raises:
        RequestError: 400.
    """
    request = parse_tokenize_body(body)
    if (request.prompt is None) == (request.messages is None):
        raise RequestError("Give 'prompt' or 'messages', and not both.", param="prompt", code="invalid_value")
    return request


def parse_speech(body: bytes) -> SpeechRequest:
    """A `/v1/audio/speech` body.

    Raises:
        RequestError: 400.
    """
    request = decode_body(_speech, body)
    if request.stream_format not in (None, "audio"):
        raise RequestError(
            "'stream_format' other than 'audio' is not supported.", param="stream_format", code="unsupported_value"
        )
    return request


def speech_call(request: SpeechRequest) -> Call:
    """Audio goes on as it comes; one answer, which is whole when the target has ended it."""
    return Call(Operation.SPEECH, request, True, False, 1)


def counted(request: ChatRequest) -> TokenizeRequest:
    """The request that counts the prompt of a chat."""
    going_on = bool(request.continue_final_message)
    return TokenizeRequest(
        model=request.model,
        messages=request.messages,
        tools=request.tools,
        add_generation_prompt=not going_on,
        continue_final_message=True if going_on else None,
    )


STREAM_KIND = "text/event-stream; charset=utf-8"
_AUDIO = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


def kind_of(request: Any) -> str:
    """The content type of a good answer to it."""
    if isinstance(request, SpeechRequest):
        return _AUDIO[request.response_format or "mp3"]
    if isinstance(request, ImageRequest | FormRequest) and request.stream:
        return STREAM_KIND
    if isinstance(request, FormRequest) and request.audio:
        form = request.fields.get("response_format")
        if form in ("text", "srt", "vtt"):
            return "text/vtt" if form == "vtt" else "text/plain; charset=utf-8"
    return "application/json"

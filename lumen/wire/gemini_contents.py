"""The messages of a chat request as the contents and parts of the Gemini API. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lumen.wire.refusals import unsupported
from lumen.wire.requests import (
    AudioPart,
    ContentPart,
    ExtraContent,
    FilePart,
    ImagePart,
    Message,
    RefusalPart,
    TextPart,
    ToolCall,
)
from lumen.wire.translate import arguments, data_url, kind_of, parts, texts

# What the vendor documents for calls in a conversation that its model did not make itself.
_UNSIGNED = "skip_thought_signature_validator"
# The API fetches an image itself, but must be told its type, which only the address can tell here.
_FETCHED = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}
_FILES = "https://generativelanguage.googleapis.com/"
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mp3"}
_any = msgspec.json.Decoder().decode


class Contents:
    """The conversation as turns of user and model.

    Args:
        images: the model sees images.
        signed: the model wants calls of its own to come back with their signatures.
    """

    def __init__(self, *, images: bool, signed: bool) -> None:
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []
        self._images = images
        self._signed = signed
        self._called: dict[str, str] = {}
        self._details: set[bool] = set()
        self._results: list[dict[str, Any]] | None = None

    @property
    def low_detail(self) -> bool:
        """Every image is wanted in low detail."""
        return self._details == {True}

    def add(self, message: Message, where: str) -> None:
        role = message.role
        if role == "function":
            raise unsupported(f"{where}.role", "it takes results only of 'tool' messages.")
        if message.name is not None and role != "tool":
            raise unsupported(f"{where}.name", "its messages carry no names.")
        if role == "tool":
            self._result(message, where)
            return
        self._results = None
        if role in ("system", "developer"):
            if self.turns:
                raise unsupported(f"{where}.role", "it takes system prompts only before the conversation.")
            self.system += [{"text": text} for text in texts(message.content, f"{where}.content", "system")]
        elif role == "assistant":
            self._turn("model", self._model(message, where), where)
        else:
            found = [self._part(part, place) for part, place in parts(message.content, f"{where}.content")]
            self._turn("user", found, where)

    def _turn(self, role: str, found: list[dict[str, Any]], where: str) -> None:
        if not found:
            raise unsupported(f"{where}.content", "its messages must not be empty.")
        self.turns.append({"role": role, "parts": found})

    def _model(self, message: Message, where: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"text": text} for text in texts(message.content, f"{where}.content", "assistant")
        ]
        if message.refusal:
            found.append({"text": message.refusal})
        for i, call in enumerate(message.tool_calls or ()):
            given = arguments(call, f"{where}.tool_calls[{i}]")
            self._called[call.id] = call.function.name
            part: dict[str, Any] = {"functionCall": {"id": call.id, "name": call.function.name, "args": given}}
            signature = _signature(call)
            if signature is None and self._signed and i == 0:
                # Of parallel calls only the first is signed.
                signature = _UNSIGNED
            if signature is not None:
                part["thoughtSignature"] = signature
            found.append(part)
        return found

    def _result(self, message: Message, where: str) -> None:
        """Results of parallel calls share one turn."""
        id = message.tool_call_id or ""
        name = self._called.get(id)
        if name is None:
            raise unsupported(f"{where}.tool_call_id", "it needs the call this result belongs to.")
        told, seen = [], []
        for part, place in parts(message.content, f"{where}.content"):
            if isinstance(part, ImagePart):
                seen.append(self._part(part, place))
            else:
                told.append(part)
        response: dict[str, Any] = {
            "id": id,
            "name": name,
            "response": _response(texts(told, f"{where}.content", "tool")),
        }
        if seen:
            response["parts"] = seen
        if self._results is None:
            self._results = []
            self.turns.append({"role": "user", "parts": self._results})
        self._results.append({"functionResponse": response})

    def _part(self, part: ContentPart, where: str) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"text": part.text}
        if isinstance(part, RefusalPart):
            return {"text": part.refusal}
        if isinstance(part, ImagePart):
            return self._image(part, where)
        if isinstance(part, AudioPart):
            kind = _AUDIO.get(part.input_audio.format)
            if kind is None:
                raise unsupported(f"{where}.input_audio.format", "it hears 'wav' and 'mp3'.")
            return _inline(kind, part.input_audio.data)
        return _file(part, where)

    def _image(self, part: ImagePart, where: str) -> dict[str, Any]:
        if not self._images:
            raise unsupported(where, "its model sees no images.")
        self._details.add(part.image_url.detail == "low")
        if len(self._details) > 1:
            raise unsupported(f"{where}.image_url.detail", "it sees all images of a request in the same detail.")
        url, place = part.image_url.url, f"{where}.image_url.url"
        if found := data_url(url):
            if not found[0].startswith("image/"):
                raise unsupported(place, f"it takes no {kind_of(part)} of this type.")
            return _inline(*found)
        if url.startswith(("gs://", _FILES)):
            return {"fileData": {"fileUri": url}}
        kind = _FETCHED.get(url.partition("?")[0].rpartition(".")[2].lower())
        if not url.startswith("https://") or kind is None:
            endings = ", ".join("." + ending for ending in _FETCHED)
            raise unsupported(place, f"it takes images as base64 in a data URL, or by an https address with {endings}.")
        return {"fileData": {"fileUri": url, "mimeType": kind}}


def _file(part: FilePart, where: str) -> dict[str, Any]:
    file = part.file
    if file.file_data is None:
        raise unsupported(
            f"{where}.file.file_id", "a file id is known only to the vendor that gave it; send 'file_data'."
        )
    found = data_url(file.file_data)
    if found is None:
        raise unsupported(f"{where}.file.file_data", "it takes files as base64 in a data URL.")
    return _inline(*found)


def _inline(kind: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": kind, "data": data}}


def _response(told: Sequence[str]) -> dict[str, Any]:
    """A result is an object: the tool's own where it gave one, else its text as the output."""
    text = "".join(told)
    try:
        found = _any(text)
    except (msgspec.MsgspecError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"output": text}


def _signature(call: ToolCall) -> str | None:
    extra = call.extra_content
    if isinstance(extra, ExtraContent) and extra.google is not None:
        return extra.google.thought_signature
    return None

"""The messages of a chat request as the turns and content blocks of the Anthropic Messages API. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lumen.wire.refusals import unsupported
from lumen.wire.requests import ContentPart, FilePart, FileRef, ImagePart, Message, RefusalPart, TextPart
from lumen.wire.translate import arguments, data_url, kind_of, parts, texts

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


class Turns:
    """The conversation as turns of user and assistant; results of parallel calls share one user turn."""

    def __init__(self, *, images: bool) -> None:
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []
        self._images = images
        self._ids: dict[str, str] = {}

    def add(self, message: Message, where: str) -> None:
        role = message.role
        if role == "function":
            raise unsupported(f"{where}.role", "it takes results only of 'tool' messages.")
        if message.name is not None and role != "tool":
            raise unsupported(f"{where}.name", "its messages carry no names.")
        if role in ("system", "developer"):
            self._system(message, where)
        elif role == "assistant":
            self._turn("assistant", self._assistant(message, where), where)
        elif role == "tool":
            self._turn("user", [self._result(message, where)], where)
        else:
            self._turn("user", self._blocks(message.content, f"{where}.content"), where)

    def _system(self, message: Message, where: str) -> None:
        found = [_text(text) for text in texts(message.content, f"{where}.content", "system")]
        if not self.turns:
            self.system += found
        elif found:
            # Newer models take instructions in the middle; what an older one says to it lets another target try.
            self.turns.append({"role": "system", "content": found})

    def _turn(self, role: str, blocks: list[dict[str, Any]], where: str) -> None:
        if not blocks:
            raise unsupported(f"{where}.content", "its messages must not be empty.")
        if self.turns and role == "user" and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})

    def _assistant(self, message: Message, where: str) -> list[dict[str, Any]]:
        blocks = [_text(text) for text in texts(message.content, f"{where}.content", "assistant")]
        if message.refusal:
            blocks.append(_text(message.refusal))
        for i, call in enumerate(message.tool_calls or ()):
            place = f"{where}.tool_calls[{i}]"
            if not TOOL_NAME.fullmatch(call.function.name):
                raise unsupported(f"{place}.function.name", "its tool names hold only letters, digits, '_' and '-'.")
            name, given = call.function.name, arguments(call, place)
            blocks.append({"type": "tool_use", "id": self._id(call.id), "name": name, "input": given})
        return blocks

    def _result(self, message: Message, where: str) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": self._id(message.tool_call_id or "")}
        if content := self._blocks(message.content, f"{where}.content"):
            block["content"] = content
        return block

    def _id(self, id: str) -> str:
        """Ids of calls made by other vendors may hold characters this one refuses."""
        if _ID.fullmatch(id):
            return id
        return self._ids.setdefault(id, f"lumen_call_{len(self._ids)}")

    def _blocks(self, content: str | Sequence[ContentPart] | None, where: str) -> list[dict[str, Any]]:
        return [self._block(part, place) for part, place in parts(content, where)]

    def _block(self, part: ContentPart, where: str) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return _text(part.text)
        if isinstance(part, RefusalPart):
            return _text(part.refusal)
        if isinstance(part, ImagePart):
            if not self._images:
                raise unsupported(where, "its model sees no images.")
            if part.image_url.detail == "low":
                raise unsupported(f"{where}.image_url.detail", "it sees every image in full.")
            return {"type": "image", "source": _image(part.image_url.url, f"{where}.image_url.url")}
        if isinstance(part, FilePart):
            return _document(part.file, f"{where}.file")
        raise unsupported(where, f"it takes no {kind_of(part)}.")


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(url: str, where: str) -> dict[str, Any]:
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    found = data_url(url)
    if found is None:
        raise unsupported(where, "it takes images by web address or as base64 in a data URL.")
    kind, data = found
    if kind not in _IMAGES:
        raise unsupported(where, "it sees JPEG, PNG, GIF and WebP images.")
    return {"type": "base64", "media_type": kind, "data": data}


def _document(file: FileRef, where: str) -> dict[str, Any]:
    if file.file_data is None:
        raise unsupported(f"{where}.file_id", "a file id is known only to the vendor that gave it; send 'file_data'.")
    found = data_url(file.file_data)
    if found is None or found[0] != "application/pdf":
        raise unsupported(f"{where}.file_data", "it takes files as PDF, as base64 in a data URL.")
    made: dict[str, Any] = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": found[1]},
    }
    if file.filename is not None:
        made["title"] = file.filename
    return made

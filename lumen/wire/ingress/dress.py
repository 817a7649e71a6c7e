"""What the gateway asks of a client dialect's answers. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from lumen.core.errors import LumenError
from lumen.wire.answers import Usage
from lumen.wire.chunks import unreadable


class Dress(Protocol):
    """Turns one answer, piece by piece, from the OpenAI dialect into the client's own. Fed in order, used once."""

    def begin(self, request_id: str) -> None:
        """Told once, before anything else: the id under which the request is known."""

    def chunk(self, data: bytes) -> bytes:
        """The frames for one JSON chunk of a stream; empty where the client gets nothing of it."""

    def end(self) -> bytes:
        """The frames that close a whole stream, in place of `[DONE]`."""

    def failed(self, error: LumenError) -> bytes:
        """The frames that tell of an error inside a stream."""

    def whole(self, data: bytes) -> bytes:
        """A complete answer as one JSON body."""


class Sealed(ABC):
    """A dress that has something to do when an answer is complete, before its last words are made."""

    @abstractmethod
    async def seal(self, body: bytes | None) -> None:
        """Do it. `body`: a whole answer; `None`: it was streamed."""


class CallFunction(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class CallDelta(Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: CallFunction | None = None


class AnswerPart(Struct, gc=False):
    """A message, or what a chunk adds to one."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallDelta] | None = None

    @property
    def thought(self) -> str | None:
        return self.reasoning_content or self.reasoning


class AnswerChoice(Struct, gc=False):
    index: int = 0
    delta: AnswerPart | None = None
    message: AnswerPart | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Any = None


class Answer(Struct, gc=False):
    """A whole answer or a chunk of one, read as far as another dialect needs it."""

    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[AnswerChoice] = []
    usage: Usage | None = None


_decode = msgspec.json.Decoder(Answer).decode
encode = msgspec.json.Encoder().encode


def decode_answer(data: bytes) -> Answer:
    """An answer, or a chunk of one.

    Raises:
        MalformedError: a target sent something that the OpenAI dialect does not say.
    """
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise unreadable("stream") from None


def named_frame(event: str, payload: Any) -> bytes:
    """One server-sent event with a name of its own."""
    return b"event: " + event.encode() + b"\ndata: " + encode(payload) + b"\n\n"

"""Requests that go on as they are, to a target that has such an endpoint in the shape of the OpenAI dialect."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from lumen.core.errors import BrokenError, MalformedError, UpstreamError
from lumen.providers.base import MAX_ANSWER, Decoder, Dialect, Form, HttpCall, Resume
from lumen.wire.answers import Units, Usage
from lumen.wire.call import Call, Event, Operation
from lumen.wire.decoding import StreamDecoder, WholeDecoder, check_kind
from lumen.wire.passed import FormRequest, Passed, SpeechRequest, kind_of
from lumen.wire.refusals import in_answer, unsupported
from lumen.wire.sse import DONE

_encode = msgspec.json.Encoder().encode
_TOKENS = frozenset({Operation.TOKENIZE, Operation.DETOKENIZE})
_IMAGES = frozenset({Operation.IMAGE, Operation.IMAGE_EDIT, Operation.IMAGE_VARIATION})


class Passing:
    """A target's dialect for the endpoints that are handed on; `able`: it has the one that is asked for."""

    __slots__ = ("_able", "_dialect")

    def __init__(self, dialect: Dialect, *, able: bool) -> None:
        self._dialect = dialect
        self._able = able

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        """The request for `model`.

        Raises:
            RefusedError: `unsupported_by_target`.
        """
        request, path = call.request, call.operation.value
        if not self._able:
            raise unsupported(None, f"the endpoint '{path}'.")
        accept = kind_of(request).partition(";")[0]
        if isinstance(request, FormRequest):
            upload = request.upload
            return HttpCall(path, b"", accept, form=Form(upload.kind, upload.named(model)))
        made = copy.copy(request)
        made.model = model
        return HttpCall(f"/{path}" if call.operation in _TOKENS else path, _encode(made), accept)

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        """Raises:
        MalformedError: the answer is of another kind.
        """
        request = call.request
        if isinstance(request, SpeechRequest):
            if not content_type.startswith(("audio/", "application/octet-stream", "binary/")):
                raise MalformedError("The target did not answer with audio.", phase="headers")
            return Sounds()
        if call.stream:
            if content_type.startswith("application/json"):
                # Some models cannot, and answer whole.
                return WholeDecoder(partial(_at_once, call), MAX_ANSWER)
            check_kind(content_type, stream=True)
            return Parts(call)
        if kind_of(request).startswith("text/"):
            if not content_type.startswith(("text/", "application/")) or content_type.startswith("text/html"):
                raise MalformedError("The target did not answer with text.", phase="headers")
            return WholeDecoder(lambda body: Event(body, True), MAX_ANSWER)
        check_kind(content_type, stream=False)
        return WholeDecoder(partial(_read, call), MAX_ANSWER)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return self._dialect.refusal(status, headers, body)


class Sounds:
    """Audio, piece by piece as it comes."""

    __slots__ = ("_any", "done")

    def __init__(self) -> None:
        self.done = False
        self._any = False

    def feed(self, data: bytes) -> list[Event]:
        self._any = True
        return [Event(data, True)]

    def finish(self) -> list[Event]:
        if not self._any:
            raise BrokenError("The target's answer is empty.", phase="stream")
        return [Event(b"", finished=(0,))]


class Parts(StreamDecoder):
    """Images and transcripts as they are made: the target's own events, each as a whole frame."""

    __slots__ = ("_call", "_ended", "_usage", "_wanted")

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        # How many times the target will say that something is complete: each image is by itself.
        request = call.request
        self._wanted = max(request.images, 1) if isinstance(request, Passed) else 1
        self._ended = 0
        self._usage = Units(0, None)

    def _take(self, payload: bytes, events: list[Event]) -> None:
        if payload == DONE:
            return
        try:
            part = _part(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError("The target's stream is not what its dialect says.", phase="stream") from None
        if part.error is not None or part.type == "error":
            raise in_answer(part.error if part.error is not None else {"message": part.message})
        if not part.type.endswith(_LAST):
            events.append(Event(_framed(part.type, payload), True))
            return
        self._ended += 1
        self.done = self._ended >= self._wanted
        events.append(Event(_framed(part.type, payload), True, (0,) if self.done else (), self._counted(part)))

    def _counted(self, part: _Answer) -> Usage | None:
        """All that was told until now; each image is told of by itself."""
        more = _usage(self._call, part)
        images = self._ended if self._call.operation in _IMAGES else 0
        if not isinstance(more, Units):
            more = Units(0, None)
        known = self._usage
        before, after = known.prompt_tokens + more.prompt_tokens, known.completion_tokens
        if more.completion_tokens is not None:
            after = (after or 0) + more.completion_tokens
        self._usage = Units(before, after, images=images, seconds=known.seconds + more.seconds)
        return self._usage

    def _end(self) -> None:
        if not self._ended:
            raise BrokenError("The target's answer broke off.", phase="stream")


def _framed(kind: str, payload: bytes) -> bytes:
    """An event with its name, as the reference has it; payloads of several lines stay so."""
    lines = b"\n".join([b"data: " + line for line in payload.split(b"\n")])
    return b"event: %b\n%b\n\n" % (kind.encode(), lines)


def _at_once(call: Call, body: bytes) -> Event:
    """A whole answer as the events of a stream that has nothing but its end."""
    whole = _read(call, body)
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedError("The target's answer is not what its dialect says.", phase="body") from None
    usage = {"usage": told["usage"]} if "usage" in told else {}
    if call.operation not in _IMAGES:
        parts = [{"type": "transcript.text.done", "text": told.get("text", ""), **usage}]
    else:
        kind = "image_generation.completed" if call.operation is Operation.IMAGE else "image_edit.completed"
        images = [image for image in told.get("data") or () if isinstance(image, dict)]
        parts = [{"type": kind, **image, **usage} for image in images]
    frames = b"".join([_framed(part["type"], _encode(part)) for part in parts])
    return Event(frames, True, (0,), whole.usage)


class _Answer(Struct):
    """What is read of an answer; the rest goes on unread."""

    error: Any = None
    data: list[Raw] | None = None
    duration: Any = None
    usage: Any = None
    meta: Any = None


class _Part(_Answer):
    """What is read of one event of a stream."""

    type: Annotated[str, Meta(pattern=r"^[a-z0-9_.]{1,128}\Z")] = "message"
    message: Any = None


_part = msgspec.json.Decoder(_Part).decode
# How the types of events end that say that something is complete.
_LAST = (".completed", ".done")
_answer = msgspec.json.Decoder(_Answer).decode


def _read(call: Call, body: bytes) -> Event:
    """One whole answer: a single event, the target's own bytes."""
    try:
        answer = _answer(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedError("The target's answer is not what its dialect says.", phase="body") from None
    if answer.error is not None:
        raise in_answer(answer.error)
    if call.operation in _TOKENS:
        # Nothing is generated, so there is nothing to count; said so that nothing is guessed.
        return Event(body, finished=(0,), usage=Usage())
    return Event(body, True, usage=_usage(call, answer))


def _usage(call: Call, answer: _Answer) -> Usage | None:
    """What the target says it used, in whichever of their fields; `None`: it does not say."""
    told = answer.usage if isinstance(answer.usage, dict) else {}
    meta = answer.meta if isinstance(answer.meta, dict) else {}
    tokens = meta.get("tokens")
    told = told or (tokens if isinstance(tokens, dict) else {})
    before = _count(told, "prompt_tokens", "input_tokens")
    after = _count(told, "completion_tokens", "output_tokens")
    if before is None and after is None:
        before, after = _count(told, "total_tokens"), 0
    images = len(answer.data or ()) if call.operation in _IMAGES else 0
    length = told.get("seconds", told.get("duration", answer.duration))
    seconds = float(length) if isinstance(length, int | float) and 0 <= length < 10**7 else 0.0
    if before is None and not (images or seconds):
        return None
    return Units(before or 0, None if before is None else after or 0, images=images, seconds=seconds)


def _count(told: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = told.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None

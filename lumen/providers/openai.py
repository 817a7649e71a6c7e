"""The OpenAI dialect: most vendors, and every local engine, which also speaks token ids as vLLM does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec

from lumen.core.errors import BrokenError, MalformedError, RefusedError, Retry, UpstreamError
from lumen.providers.base import MAX_ANSWER, Capabilities, Decoder, HttpCall, Resume
from lumen.wire.answers import Chunk, Whole
from lumen.wire.call import Call, Event
from lumen.wire.requests import LOCAL_ONLY, EmbeddingRequest, StreamOptions
from lumen.wire.sse import DONE, SseError, SseParser

_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(Chunk).decode
_whole = msgspec.json.Decoder(Whole).decode
_any = msgspec.json.Decoder().decode
_WITH_USAGE = StreamOptions(include_usage=True)
# Statuses after which the same target may be asked once more.
_TRANSIENT = frozenset({500, 502, 503, 504, 520, 529})
# A client's own mistake, as the target sees it: passed on, never retried.
_CLIENTS_OWN = frozenset({400, 404, 409, 413, 415, 422})


def make(capabilities: Capabilities) -> OpenAI:
    return OpenAI(capabilities)


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class OpenAI:
    """The dialect with one target's capabilities."""

    __slots__ = ("can", "local", "token_ids")

    def __init__(self, can: Capabilities) -> None:
        self.can = can
        self.token_ids = can.token_ids
        self.local = can.local

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        request = copy.copy(call.request)
        request.model = model
        if not isinstance(request, EmbeddingRequest):
            if not self.local:
                for name in LOCAL_ONLY:
                    if hasattr(request, name):
                        setattr(request, name, None)
            if call.stream and self.can.stream_usage:
                # Metering needs the counts whether or not the client does.
                request.stream_options = _WITH_USAGE
            if call.stream and self.token_ids and call.answers == 1:
                request.return_token_ids = True
            if resume is not None:
                request.resume_token_ids = list(resume.token_ids)
        accept = "text/event-stream" if call.stream else "application/json"
        return HttpCall(call.operation.value, _encode(request), accept)

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        if call.stream:
            if not content_type.startswith("text/event-stream"):
                raise MalformedError("The target did not answer with an event stream.", phase="headers")
            return _StreamDecoder(call, self.token_ids, resume)
        if not content_type.startswith("application/json"):
            raise MalformedError("The target did not answer with JSON.", phase="headers")
        return _WholeDecoder(call)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        told = _error_of(body)
        retry_after = _seconds(headers.get("retry-after"))
        if status in (401, 403) and not self.local:
            return RefusedError("The target refused Lumen's credentials.", phase="headers", upstream_status=status)
        if status == 429:
            return RefusedError(
                told.get("message") or "The target is over its rate limit.",
                phase="headers",
                upstream_status=status,
                status=429,
                type="rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=retry_after,
            )
        if status in _CLIENTS_OWN:
            return RefusedError(
                told.get("message") or f"The target refused the request with status {status}.",
                phase="headers",
                upstream_status=status,
                status=status,
                type=told.get("type") or "invalid_request_error",
                param=told.get("param"),
                code=told.get("code"),
                retry=Retry.NEVER,
            )
        return RefusedError(
            f"The target failed with status {status}.",
            phase="headers",
            upstream_status=status,
            status=503 if status == 503 else 502,
            retry=Retry.SAME if status in _TRANSIENT else Retry.OTHER,
            retry_after=retry_after,
        )


class _StreamDecoder:
    """Events of one streamed answer. Forwards the upstream's own bytes unless a field must change."""

    __slots__ = ("_failed", "_identity", "_include_usage", "_left", "_parser", "_rewrite", "_strip", "done")

    def __init__(self, call: Call, token_ids: bool, resume: Resume | None) -> None:
        self._parser = SseParser()
        self._failed: UpstreamError | None = None
        self.done = False
        self._include_usage = call.include_usage
        self._left = set(range(call.answers))
        self._identity = resume.identity if resume else None
        self._strip = not call.token_ids
        # Only a target that streams token ids can be resumed, and only its events ever need rewriting.
        self._rewrite = token_ids and call.answers == 1

    def feed(self, data: bytes) -> list[Event]:
        if self._failed is not None:
            raise self._failed
        events: list[Event] = []
        try:
            for payload in self._parser.feed(data):
                if (event := self._event(payload)) is not None:
                    events.append(event)
        except SseError as error:
            self._failed = MalformedError(f"The target's stream cannot be read: {error}.", phase="stream")
        except UpstreamError as error:
            self._failed = error
        if self._failed is not None and not events:
            raise self._failed
        # What came before the failure belongs to the client; the failure itself follows with the next call.
        return events

    def finish(self) -> list[Event]:
        if self._failed is not None:
            raise self._failed
        events = [event for payload in self._parser.finish() if (event := self._event(payload))]
        if self._left:
            raise BrokenError("The target's stream ended before the answer did.", phase="stream")
        return events

    def _event(self, payload: bytes) -> Event | None:
        if payload == DONE:
            self.done = not self._left
            return None
        try:
            chunk = _chunk(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError("The target sent an event that is not a chunk.", phase="stream") from None
        if chunk.error is not None:
            raise _in_stream(chunk.error)
        if not chunk.choices:
            shown = payload if chunk.usage is not None and self._include_usage else b""
            if shown and self._rewrite:
                shown = self._rewritten(shown)[0]
            return Event(shown, usage=chunk.usage)
        content, finished, ids = False, [], None
        for choice in chunk.choices:
            delta = choice.delta
            if choice.text or (
                delta is not None and (delta.content or delta.tool_calls or delta.reasoning_content or delta.reasoning)
            ):
                content = True
            if choice.token_ids is not None:
                ids = choice.token_ids
            if choice.finish_reason:
                finished.append(choice.index)
                self._left.discard(choice.index)
        identity = None
        if self._rewrite:
            payload, identity = self._rewritten(payload)
        return Event(payload, content, tuple(finished), chunk.usage, ids, identity)

    def _rewritten(self, payload: bytes) -> tuple[bytes, tuple[str, int] | None]:
        """The payload without token ids the client did not ask for, under the answer's first id and time."""
        whole: dict[str, Any] = _any(payload)
        if self._identity is not None:
            whole["id"], whole["created"] = self._identity
        if self._strip:
            whole.pop("prompt_token_ids", None)
            for choice in whole["choices"]:
                choice.pop("token_ids", None)
        return _encode(whole), (whole.get("id", ""), whole.get("created", 0))


class _WholeDecoder:
    """One whole answer: a single event, the upstream's own bytes."""

    __slots__ = ("_answers", "_parts", "_size", "done")

    def __init__(self, call: Call) -> None:
        self._answers = call.answers
        self._parts: list[bytes] = []
        self._size = 0
        self.done = False

    def feed(self, data: bytes) -> list[Event]:
        self._size += len(data)
        if self._size > MAX_ANSWER:
            raise MalformedError("The target's answer is larger than the bound.", phase="body")
        self._parts.append(data)
        return []

    def finish(self) -> list[Event]:
        body = b"".join(self._parts)
        try:
            whole = _whole(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError("The target's answer is not what its dialect says.", phase="body") from None
        if whole.error is not None:
            raise _in_stream(whole.error)
        finished = tuple(c.index for c in whole.choices or () if c.finish_reason)
        if len(finished) < self._answers or (whole.choices is None and whole.data is None):
            raise MalformedError("The target's answer has no finish reason.", phase="body")
        return [Event(body, True, finished, whole.usage)]


def _error_of(body: bytes) -> dict[str, Any]:
    """The error object of a refusal, whatever wraps it; only strings are kept."""
    try:
        found = _any(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    inner = found.get("error", found) if isinstance(found, dict) else {}
    if isinstance(inner, str):
        return {"message": inner[:2000]}
    if not isinstance(inner, dict):
        return {}
    return {key: value[:2000] for key, value in inner.items() if isinstance(value, str)}


def _in_stream(error: Any) -> UpstreamError:
    told = error if isinstance(error, dict) else {"message": str(error)}
    message = told.get("message")
    return RefusedError(
        message[:2000] if isinstance(message, str) else "The target reported an error in its answer.",
        phase="stream",
        upstream_status=200,
        code=told["code"] if isinstance(told.get("code"), str) else "upstream_error",
    )


def _seconds(value: str | None) -> float | None:
    """`Retry-After` in seconds; dates are left to the default pause."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None

"""The OpenAI dialect as vLLM speaks it: an answer can go on from token ids, in another process of the same model.

What vLLM has for that is a completion whose prompt is token ids: those of the prompt, which it told with the first
event, and those of the answer so far. It comes back as text, which is put into the events of the chat it belongs to.
Penalties, grammar and parsers begin afresh there, so only plain text goes on so (`Capabilities.sampler_state`).

Source: vLLM's OpenAI-compatible server, `return_token_ids` of chat and completions; run against 0.32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import asdict

from lumen.core.errors import MalformedError
from lumen.providers.base import Capabilities, Decoder, HttpCall, Resume
from lumen.providers.openai import OpenAI, OpenAIStream, headers, identity
from lumen.wire.answers import Chunk, PromptDetails, Usage
from lumen.wire.call import Call, Event, Operation
from lumen.wire.decoding import check_kind
from lumen.wire.matching import Diverged
from lumen.wire.refusals import in_answer, unsupported
from lumen.wire.requests import CompletionRequest, Plain, Sampling, StreamOptions
from lumen.wire.sse import DONE

__all__ = ["headers", "make"]

_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(Chunk).decode
_any = msgspec.json.Decoder().decode
_SHARED = tuple(name for name in Sampling.__struct_fields__ if name not in ("model", "stream", "stream_options"))


def make(capabilities: Capabilities) -> VLLM:
    return VLLM(capabilities)


class VLLM(OpenAI):
    """The dialect with one target's capabilities."""

    __slots__ = ()

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        if isinstance(call.request, Plain):
            return super().encode(call, model, None)
        request = _understood(call.request)
        if resume is None:
            return _marked(super().encode(msgspec.structs.replace(call, request=request), model, None), call)
        told = {name: getattr(request, name) for name in _SHARED}
        going_on = CompletionRequest(
            **{**told, "return_token_ids": True, "max_tokens": self._left(request, resume)},
            model=model,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
            prompt=[*resume.prompt_ids, *resume.token_ids],
        )
        return _marked(HttpCall(Operation.COMPLETION.value, _encode(going_on), "text/event-stream"), call)

    def _left(self, request: Any, resume: Resume) -> int:
        """What is left of the answer's limit. Without one: the whole window, which vLLM cuts to what is free of it."""
        most: int | None = getattr(request, "max_completion_tokens", None) or request.max_tokens
        if most is not None:
            return max(1, most - len(resume.token_ids))
        return resume.context or len(resume.prompt_ids) + len(resume.token_ids)

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        if not (call.stream and self.token_ids and call.answers == 1):
            return super().decoder(call, content_type, resume)
        check_kind(content_type, stream=True)
        return _GoneOn(call, resume) if resume is not None and resume.token_ids else _Stream(call, resume)


def _understood(request: Any) -> Any:
    """The request in vLLM's own names.

    Raises:
        RefusedError: it asks for a sampler that vLLM does not have.
    """
    if request.typical_p not in (None, 1):
        raise unsupported("typical_p", "it does not know this sampler.")
    made = copy.copy(request)
    made.repetition_penalty = request.repetition_penalty or request.repeat_penalty
    made.repeat_penalty = made.typical_p = made.resume_token_ids = made.resume_exact = None
    return made


def _marked(made: HttpCall, call: Call) -> HttpCall:
    """The request with what its computed prefixes are kept apart by, and whose turn it is: no client can set these."""
    more = f',"cache_salt":"{call.salt}"' if call.salt else ""
    if call.rank:
        # There the lower number goes first.
        more += f',"priority":{-call.rank}'
    return msgspec.structs.replace(made, body=b"%b%b}" % (made.body[:-1], more.encode())) if more else made


class _Known:
    """Which token ids belong to text that is out.

    vLLM holds a token back whose bytes end in the middle of a character, and goes wrong where a prompt ends there. An
    event of one token that brought text ends where a character does; of one with several nobody can tell. So ids are
    told once it is sure that all of them are text, and until then the text is ahead of them.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[int] = []

    def take(self, ids: Sequence[int] | None, text: str | None) -> list[int] | None:
        """The ids that are sure after an event; `None` where it told none."""
        if ids is None:
            return None
        self._held += ids
        if not text or len(ids) > 1:
            return []
        sure, self._held = self._held, []
        return sure


class _Stream(OpenAIStream):
    """An answer from its beginning: events as in the OpenAI dialect, and the ids that are needed to go on with it."""

    __slots__ = ("_known", "_prompted")

    def __init__(self, call: Call, resume: Resume | None) -> None:
        super().__init__(call, True, resume)
        self._known = _Known()
        self._prompted = False

    def _take(self, payload: bytes, events: list[Event]) -> None:
        before = len(events)
        super()._take(payload, events)
        if len(events) == before:
            return
        event = events[-1]
        event.token_ids = self._known.take(event.token_ids, event.text)
        if not self._prompted:
            chunk = _chunk(payload)
            event.prompt_ids = chunk.prompt_token_ids or (chunk.choices[0].prompt_token_ids if chunk.choices else None)
            self._prompted = True


class _GoneOn(OpenAIStream):
    """A completion from token ids, as the continuation of the answer that those ids began."""

    __slots__ = ("_ahead", "_before", "_call", "_known", "_prompt")

    def __init__(self, call: Call, resume: Resume) -> None:
        super().__init__(call, True, resume)
        self._call = call
        self._known = _Known()
        self._ahead = resume.ahead
        self._prompt, self._before = len(resume.prompt_ids), len(resume.token_ids)

    def _take(self, payload: bytes, events: list[Event]) -> None:
        if payload == DONE:
            self.done = not self._left
            return
        try:
            chunk = _chunk(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError("The target sent an event that is not a chunk.", phase="stream") from None
        if chunk.error is not None:
            raise in_answer(chunk.error)
        usage = self._of_the_whole(chunk.usage) if chunk.usage is not None else None
        if not chunk.choices:
            events.append(Event(self._shown(payload, usage), usage=usage))
            return
        choice = chunk.choices[0]
        text = self._new(choice.text or "", last=choice.finish_reason is not None)
        ids = self._known.take(choice.token_ids, choice.text)
        finished = (0,) if choice.finish_reason else ()
        self._left.difference_update(finished)
        data = self._rewrapped(payload, text, choice.token_ids)
        events.append(Event(data, bool(text), finished, usage, ids, identity(data), text or None))

    def _new(self, text: str, *, last: bool) -> str:
        """What of `text` the client has not got yet.

        Raises:
            Diverged: it is not what the client has.
        """
        ahead = self._ahead
        if not ahead:
            return text
        size = min(len(ahead), len(text))
        if ahead[:size] != text[:size] or (last and size < len(ahead)):
            raise Diverged("other text than before came after the same tokens")
        self._ahead = ahead[size:]
        return text[size:]

    def _rewrapped(self, payload: bytes, text: str, ids: list[int] | None) -> bytes:
        whole: dict[str, Any] = _any(payload)
        old = whole["choices"][0]
        new: dict[str, Any] = {"index": 0}
        if self._call.operation is Operation.CHAT:
            whole["object"] = "chat.completion.chunk"
            new["delta"] = {"content": text} if text else {}
        else:
            new["text"] = text
        new |= {"logprobs": None, "finish_reason": old.get("finish_reason")}
        if self._call.token_ids:
            new["token_ids"] = ids
        whole["choices"] = [new]
        if self._identity is not None:
            whole["id"], whole["created"] = self._identity
        return _encode(whole)

    def _of_the_whole(self, usage: Usage) -> Usage:
        """Its prompt held the answer so far."""
        output = (usage.completion_tokens or 0) + self._before
        details = usage.prompt_tokens_details
        if details is not None and details.cached_tokens is not None:
            details = PromptDetails(min(details.cached_tokens, self._prompt))
        return Usage(self._prompt, output, self._prompt + output, details, usage.completion_tokens_details)

    def _shown(self, payload: bytes, usage: Usage | None) -> bytes:
        if usage is None or not self._include_usage:
            return b""
        whole: dict[str, Any] = _any(payload)
        if self._call.operation is Operation.CHAT:
            whole["object"] = "chat.completion.chunk"
        if self._identity is not None:
            whole["id"], whole["created"] = self._identity
        counts = {name: value for name, value in asdict(usage).items() if value is not None}
        details = {"cached_tokens": usage.prompt_tokens_details.cached_tokens} if usage.prompt_tokens_details else None
        whole["usage"] = {**counts, **({"prompt_tokens_details": details} if details else {})}
        return _encode(whole)

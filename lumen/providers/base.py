"""The seam of a provider dialect: a call becomes HTTP, bytes become events, a refusal becomes an error.

One file a dialect, found by name. Nothing here does I/O; `gateway/upstream.py` moves the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol, cast

from msgspec import Struct

from lumen.core.errors import UpstreamError
from lumen.wire.call import Call, Event

MAX_ANSWER = 64 * 1024 * 1024


class Form(Struct, frozen=True, gc=False):
    """A body in pieces that are sent one after the other, so that none is copied; `kind`: its content type."""

    kind: str
    parts: tuple[bytes | memoryview, ...]

    @property
    def size(self) -> int:
        return sum(len(part) for part in self.parts)


class HttpCall(Struct, frozen=True, gc=False):
    """One POST, relative to the target's base URL. `headers`: whole lines of its own header, beside the target's.

    `form`: sent in place of `body`.
    """

    path: str
    body: bytes
    accept: str
    headers: bytes = b""
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Where an answer goes on: the tokens the client already has, and the id and time it was begun under.

    `prompt_ids`: the tokens of the prompt, where the target told them. `ahead`: text that the client has beyond the
    last of `token_ids`. `context`: tokens of the target's window, where that is known.
    """

    token_ids: Sequence[int]
    identity: tuple[str, int] | None
    prompt_ids: Sequence[int] = ()
    ahead: str = ""
    context: int | None = None


class Decoder(Protocol):
    """The answer of one attempt, fed bytes as they come.

    `done`: the target has said that the answer is complete; only the connection's end is missing.
    """

    done: bool

    def feed(self, data: bytes) -> list[Event]:
        """Events completed by `data`.

        Raises:
            UpstreamError: the answer reports a failure or is not what the dialect says.
        """
        ...

    def finish(self) -> list[Event]:
        """The end of the connection.

        Raises:
            UpstreamError: the answer is not complete.
        """
        ...


class Dialect(Protocol):
    """A wire schema, bound to what one target can do."""

    def encode(self, call: Call, model: str, resume: Resume | None) -> HttpCall:
        """The request for `model`, its fields those the target understands."""
        ...

    def decoder(self, call: Call, content_type: str, resume: Resume | None) -> Decoder:
        """A decoder for a 200 answer of this content type."""
        ...

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """The error for an answer that is not 200; header names are in lower case."""
        ...


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one target can do, declared by its preset or the configuration and probed by `lumen provider test`.

    `local`: it is a program of this machine that Lumen runs: its own words are believed, and its end is waited out.
    `samplers`: it takes what OpenAI's API does not have (`top_k`, `min_p`, `repetition_penalty` …), as local ones do.
    `prefill`: how it continues a partial assistant message: `none`; `prefix` (a `prefix: true` field on the last
    message); `continue` (`continue_final_message` with `add_generation_prompt: false`); `native` (it continues
    when the conversation ends with an assistant message). `prefill_echo`: its answer then begins with that message.
    `reasoning_content`: it takes back, in later turns, what the assistant thought, where others refuse the field.
    `extra_content`: the same of what a vendor adds to its tool calls, such as Gemini's signatures.
    `sampler_state`: with `token_ids`: they go through penalties, stop strings, grammar and the random draw again, so
    that any answer can go on; without it only plain text can.
    The last seven: it has the endpoints of that kind, in the shape of the OpenAI dialect.
    """

    local: bool = False
    token_ids: bool = False
    prefill: Literal["none", "prefix", "continue", "native"] = "none"
    prefill_echo: bool = False
    seed: bool = True
    samplers: bool = False
    logprobs: bool = True
    json_schema: bool = True
    tools: bool = True
    images: bool = True
    n: bool = True
    stream_usage: bool = True
    reasoning_content: bool = False
    extra_content: bool = False
    sampler_state: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens", "as_given"] = "as_given"
    tokenize: bool = False
    rerank: bool = False
    moderations: bool = False
    image_generation: bool = False
    image_edits: bool = False
    transcription: bool = False
    speech: bool = False


class Module(Protocol):
    """What the file of a dialect offers."""

    def make(self, capabilities: Capabilities) -> Dialect: ...

    def headers(self, key: str) -> dict[str, str]:
        """The headers that carry a key, and whatever else every request needs."""
        ...


def module(name: str) -> Module:
    """The file `lumen/providers/<name>.py`.

    Raises:
        LookupError: there is no such dialect.
    """
    try:
        found: Module = cast(Module, import_module(f"lumen.providers.{name}"))
    except ImportError:
        raise LookupError(f"there is no provider dialect named '{name}'") from None
    return found

"""What Lumen reads from an answer in the OpenAI dialect: only what routing, resuming and metering need.

Decoding skips every other field, so an answer can be forwarded byte for byte while it is understood.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct


class PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None
    accepted_prediction_tokens: int | None = None


class Usage(Struct, gc=False):
    """Token counts of one answer; absent details are `None`, which is not zero."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Units(Usage, gc=False):
    """The usage of what is also counted in images, or in seconds of audio."""

    images: int = 0
    seconds: float = 0.0


class Delta(Struct, gc=False):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class Choice(Struct, gc=False):
    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Chunk(Struct, gc=False):
    """One event of a stream. `error` is set where the upstream reports a failure inside the stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    prompt_token_ids: list[int] | None = None


class WholeChoice(Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class Whole(Struct):
    """A complete answer: chat or completion (`choices`), or embeddings (`data`)."""

    choices: list[WholeChoice] | None = None
    data: list[Raw] | None = None
    usage: Usage | None = None
    error: Any = None

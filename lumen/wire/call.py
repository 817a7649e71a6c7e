"""What one client asked for, and what comes back: the two values that travel the whole path of a request."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from lumen.wire.answers import Usage
from lumen.wire.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Plain

# What the gateway lends to streams that may have to go on elsewhere.
SEED = "seed"
Request = ChatRequest | CompletionRequest | Plain


class Operation(StrEnum):
    """The endpoint asked for; its value is the path below `/v1/`, or below `/` for tokens."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    RERANK = "rerank"
    MODERATION = "moderations"
    IMAGE = "images/generations"
    IMAGE_EDIT = "images/edits"
    IMAGE_VARIATION = "images/variations"
    TRANSCRIPTION = "audio/transcriptions"
    TRANSLATION = "audio/translations"
    SPEECH = "audio/speech"


class Call(Struct, frozen=True, gc=False):
    """A validated request. `answers`: how many choices must finish before the answer is whole.

    `lent`: fields of it that are not the client's but the gateway's (a seed, a route's defaults): a target that does
    not know one answers without it, where it would refuse the client's own.
    `salt`: computed prefixes are shared with requests of the same salt alone; empty: with all that have none.
    `rank`: whose turn it is at a local model: above 0 before others, below 0 after them.
    """

    operation: Operation
    request: Request
    stream: bool
    include_usage: bool
    answers: int
    lent: tuple[str, ...] = ()
    salt: str = ""
    rank: int = 0

    @property
    def token_ids(self) -> bool:
        """Whether the client itself asked for token ids."""
        request = self.request
        return not isinstance(request, Plain) and bool(request.return_token_ids)


class Event(Struct, gc=False):
    """One piece of an answer. `data`: the JSON for the client, empty where the client gets nothing of it.

    `content`: a part of the answer arrived. `finished`: indexes of choices that ended with this event.
    `token_ids`: every token this event stands for, where the target tells. `identity`: the answer's id and time,
    on the first event at least. `text`: the content it adds to choice 0, where it adds to no other choice.
    `actionable`: it holds a part of a tool call or a refusal. `reasoning`: it holds a part of the reasoning.
    `comment`: a whole comment frame that goes out in place of an event. `prompt_ids`: the tokens of the prompt, once,
    where the target tells them and can go on from them.
    """

    data: bytes
    content: bool = False
    finished: tuple[int, ...] = ()
    usage: Usage | None = None
    token_ids: list[int] | None = None
    identity: tuple[str, int] | None = None
    text: str | None = None
    actionable: bool = False
    reasoning: bool = False
    comment: bytes = b""
    prompt_ids: list[int] | None = None


def chat_call(request: ChatRequest) -> Call:
    return Call(Operation.CHAT, request, bool(request.stream), _usage(request), request.n or 1)


def completion_call(request: CompletionRequest) -> Call:
    prompts = request.prompt
    many = len(prompts) if isinstance(prompts, list) and not isinstance(prompts[0], int) else 1
    return Call(Operation.COMPLETION, request, bool(request.stream), _usage(request), many * (request.n or 1))


def embedding_call(request: EmbeddingRequest) -> Call:
    return Call(Operation.EMBEDDING, request, False, False, 0)


def _usage(request: ChatRequest | CompletionRequest) -> bool:
    return request.stream_options is not None and bool(request.stream_options.include_usage)

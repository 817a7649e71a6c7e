"""One choice of one request while it runs: what the engine thread knows of it, and what it hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from lumen.workers.llamacpp.chat.output import Delta, OutputMachine
from lumen.workers.llamacpp.fair import NORMAL
from lumen.workers.llamacpp.guess import Lookup, Odds
from lumen.workers.llamacpp.sampling import Sampler, TokenLogprob

NEVER = 1 << 62
"""A position no sequence reaches."""

_USUAL_ANSWER = 256
"""Tokens of an answer that are charged, and of its rest that cells are held for, before it is known how long it
becomes."""


class Event(msgspec.Struct):
    """What one step adds to one choice. `tokens`: all ids consumed since the choice's previous event
    (held-back text included).

    finish: the last event of its choice. tail: the end of its text was held back until then. An answer that goes on
    from its tokens says that again, so the client must have text and finish, or neither.
    rest: bytes of it that are still to be written, the others have been.
    error: (HTTP status, message), the choice ends without an answer.
    started: the choice was given a slot; `cached` tells how many prompt tokens were there already.
    completion, accepted: with the last event, tokens of the answer, and those of them that had been guessed.
    """

    choice: int
    deltas: list[Delta] = []
    tokens: list[int] = []
    logprobs: list[TokenLogprob] = []
    finish: str | None = None
    tail: bool = False
    error: tuple[int, str] | None = None
    started: bool = False
    cached: int = 0
    completion: int = 0
    accepted: int = 0
    rest: bytes = b""


class Line(Protocol):
    """A way to the client that needs no loop."""

    def send(self, event: Event) -> bool:
        """Whether `event` has been written; else it must go by way of the loop."""


class Outbox:
    """Events of one request on their way from the engine thread to the loop, with a bound.

    `sent` is written by the engine thread alone and `taken` by the loop alone, so the difference needs no
    lock. A request whose outbox is full keeps its KV cells and waits; `wake` tells the engine that there is
    room again.

    Where the loop has set a `line`, and `written` (by the loop alone: events that have reached the client) says that it
    owes the client nothing, an event need not wait for the loop.
    """

    __slots__ = ("_wake", "deliver", "limit", "line", "sent", "stalled", "taken", "whole", "written")

    def __init__(
        self, deliver: Callable[[Event], None], wake: Callable[[], None], limit: int, whole: bool = False
    ) -> None:
        self.deliver = deliver  # called on the loop, once an event
        self.limit = limit
        self.whole = whole  # nobody looks at the answer before it is whole
        self.sent = 0
        self.taken = 0
        self.written = 0
        self.line: Line | None = None
        self.stalled = False
        self._wake = wake

    @property
    def full(self) -> bool:
        return self.sent - self.taken >= self.limit

    def blocked(self) -> bool:
        """Whether it is full; then `wake` tells when it is not any more. On the engine thread."""
        if not self.full:
            return False
        self.stalled = True
        # The loop may have emptied it just before it could see the mark.
        return self.full

    def past(self, event: Event) -> bool:
        """Send `event` past the loop, if nothing that went by way of it is still under way."""
        return self.line is not None and self.written == self.sent and self.line.send(event)

    def took(self) -> None:
        """The loop has written one event out."""
        self.taken += 1
        if self.stalled and self.sent - self.taken <= self.limit // 2:
            self.stalled = False
            self._wake()


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` is prompt + answer; the first `computed` of them are in the KV cache of `slot` (-1: none yet)."""

    choice: int
    prompt_len: int
    tokens: list[int]
    sampler: Sampler
    machine: OutputMachine
    outbox: Outbox
    max_answer: int  # tokens of the answer at most, those resumed from included
    salt: str = ""
    adapter: int = 0  # number of the LoRA adapter that it is computed with; 0: none
    caller: str = ""  # whose turn it takes
    rank: int = NORMAL  # its class, of `fair.CLASSES`
    since: float = 0.0  # when it came (seconds, monotonic)
    reuse: bool = True
    single_from: int = NEVER
    exact: bool = False  # the same request gives the same bytes: from nothing, in decodes of its own
    special: frozenset[int] = frozenset()  # tokens whose text is shown although they are control tokens
    ignore_eos: bool = False
    slot: int = -1
    computed: int = 0
    cached: int = 0
    arrival: int = 0
    started: bool = False
    cancelled: bool = False
    ended: bool = False  # the loop has had its last event
    ahead: int = 0  # cells behind `computed` that hold guesses
    accepted: int = 0  # guessed tokens that were drawn
    lookup: Lookup | None = None
    odds: list[Odds] | None = None  # of guesses of each grade
    reading: bool = False  # the draft model is about to read what it lacks of it
    unsent_deltas: list[Delta] = field(default_factory=list)
    unsent: list[int] = field(default_factory=list)
    unsent_logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_len

    @property
    def worst(self) -> int:
        """KV cells this sequence may come to need."""
        return self.prompt_len + self.max_answer

    @property
    def likely(self) -> int:
        """KV cells this sequence is thought to come to need."""
        return min(self.worst, len(self.tokens) + _USUAL_ANSWER)

    @property
    def cost(self) -> int:
        """Tokens that its caller is charged for it when it begins."""
        return self.prompt_len + min(self.max_answer, _USUAL_ANSWER)

    @property
    def spent(self) -> int:
        """Tokens that were computed for it."""
        return self.prompt_len - self.cached + self.answered

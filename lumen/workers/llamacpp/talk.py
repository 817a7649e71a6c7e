"""What answers say: tokens drawn, made text, and handed to the loop a step at a time. On the engine thread alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from lumen.workers.llamacpp.chat.output import Delta
from lumen.workers.llamacpp.context import Context
from lumen.workers.llamacpp.grammar import GrammarError
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.sampling import top_logprobs
from lumen.workers.llamacpp.sequence import Event, Outbox, Sequence

log = logging.getLogger("lumen.worker.engine")

Post = Callable[[list[tuple[Outbox, Event]]], None]


class Talk:
    """`post` hears each step's events at once. `leave` is told of each answer that is done and how; `stall` that
    somebody's outbox is full.
    """

    def __init__(
        self,
        context: Context | None,
        counters: Counters,
        post: Post,
        leave: Callable[[Sequence, str], None],
        stall: Callable[[], None],
    ) -> None:
        self.post = post
        self._context = context
        self._counters = counters
        self._leave = leave
        self._stall = stall
        self._events: list[tuple[Outbox, Event]] = []
        self._held: set[Sequence] = set()  # some of whose text waits for the next tokens

    def take(self, sequence: Sequence, row: int, more: int = 0) -> bool:
        """Draw the next token of `sequence` from logits `row` and act on it; False where its answer is done.

        `more`: so many tokens may wait for the next ones, to be sent with them.
        """
        context = self._context
        assert context is not None, "the server admits no generation where there is no context"
        vocab, answered = context.model.vocab, sequence.answered
        try:
            token = sequence.sampler.take(context, row, answered)
        except GrammarError as error:
            self._give_up(sequence, error)
            return False
        if vocab.is_eog(token) and not sequence.ignore_eos:
            self._finish(sequence, "stop")
            return False
        self._counters.generated_tokens += 1
        sequence.tokens.append(token)
        sequence.unsent.append(token)
        alternatives = sequence.sampler.params.logprobs
        if alternatives is not None:
            sequence.unsent_logprobs.append(top_logprobs(context.logits(row), token, alternatives))
        machine = sequence.machine
        deltas = machine.push(vocab.piece(token, token in sequence.special))
        if machine.stopped:
            self._finish(sequence, "stop", deltas)
            return False
        if answered + 1 >= sequence.max_answer:
            self._finish(sequence, "length", deltas)
            return False
        if deltas:
            if sequence.outbox.whole:
                sequence.unsent_deltas += deltas
            elif len(sequence.unsent) <= more:
                sequence.unsent_deltas += deltas
                self._held.add(sequence)
            else:
                self.emit(sequence, self._event(sequence, deltas))
        return True

    def _event(self, sequence: Sequence, deltas: list[Delta]) -> Event:
        """With all that was not sent before."""
        if sequence.unsent_deltas:
            deltas, sequence.unsent_deltas = joined(sequence.unsent_deltas + deltas), []
        event = Event(sequence.choice, deltas, sequence.unsent, sequence.unsent_logprobs)
        sequence.unsent, sequence.unsent_logprobs = [], []
        return event

    def _finish(self, sequence: Sequence, reason: Literal["stop", "length"], deltas: list[Delta] | None = None) -> None:
        last, finish = sequence.machine.finish(reason)
        event = self._event(sequence, (deltas or []) + last)
        event.tail = bool(last)
        event.finish, event.completion, event.cached = finish, sequence.answered, sequence.cached
        event.accepted = sequence.accepted
        self.emit(sequence, event)
        self._leave(sequence, finish)

    def _give_up(self, sequence: Sequence, error: GrammarError) -> None:
        """Nothing that the model could say is allowed: that is the end of this answer, and of no other."""
        log.error("an answer broke: %s", error)
        if sequence.unsent_deltas:
            self.emit(sequence, self._event(sequence, []))
        self.emit(sequence, Event(sequence.choice, error=(500, "The model can say nothing that the format allows.")))
        self._leave(sequence, "error")

    def emit(self, sequence: Sequence, event: Event) -> None:
        """Past the loop where that is possible, else with the rest of this step."""
        outbox = sequence.outbox
        if not outbox.past(event):
            outbox.sent += 1
            self._events.append((outbox, event))
            if outbox.full:
                self._stall()

    def release(self) -> None:
        """Send what waits for the next tokens: they are not at hand at once."""
        for sequence in self._held:
            if sequence.unsent_deltas:
                self.emit(sequence, self._event(sequence, []))
        self._held.clear()

    def flush(self) -> None:
        """Hand the step's events to the loop, all at once."""
        if self._events:
            events, self._events = self._events, []
            self.post(events)


def joined(deltas: list[Delta]) -> list[Delta]:
    """The same with contents that follow each other in one piece."""
    out: list[Delta] = []
    pieces: list[str] = []  # added one by one, a long answer would be copied once for each token of it
    for delta in deltas:
        if delta.content is not None:
            pieces.append(delta.content)
            continue
        if pieces:
            out.append(Delta(content="".join(pieces)))
            pieces = []
        out.append(delta)
    return [*out, Delta(content="".join(pieces))] if pieces else out

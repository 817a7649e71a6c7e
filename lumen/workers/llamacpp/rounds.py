"""Steps in which everybody gets the next token, one after another, with nothing to plan; and guesses on top of them."""

from __future__ import annotations

import time
from collections.abc import Sequence as Many

from lumen.workers.llamacpp.context import Context
from lumen.workers.llamacpp.guess import DRAFT
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.scheduler import Chunk
from lumen.workers.llamacpp.sequence import Sequence
from lumen.workers.llamacpp.speculator import Guesses, Speculator
from lumen.workers.llamacpp.talk import Talk


class Rounds:
    """On the engine's thread alone.

    What `together` seconds bring is sent together; where a step takes longer, nothing waits. What a guess brings is.
    0: each token is sent by itself, those of a guess too.
    """

    def __init__(
        self,
        context: Context,
        counters: Counters,
        talk: Talk,
        speculator: Speculator | None,
        together: float,
    ) -> None:
        self._context = context
        self._counters = counters
        self._talk = talk
        self._speculator = speculator
        self._together = together
        self._entered = 0.0  # when the last step began
        self.aligned = False  # whether the context's last batch was one token of each of those of the round

    def step(self, everyone: Many[Sequence]) -> float:
        """One more token for everyone, more where guesses hold. Returns seconds of all decodes; raises as they do.

        `everyone` stands in the order of the last planned batch.
        """
        speculator, entered, before = self._speculator, time.monotonic(), self._entered
        self._entered = entered
        guesses = speculator.guess(everyone) if speculator is not None and not everyone[0].exact else None
        begun = time.monotonic()
        rows = self._decode(everyone, guesses)
        ended = time.monotonic()
        # What is drawn is on its way to the clients before anything is thought about.
        if speculator is None or guesses is None:
            more = int(self._together / max(entered - before, 1e-6))
            for row, sequence in enumerate(everyone):
                sequence.computed += 1
                self._talk.take(sequence, row, more)
            if speculator is not None:
                speculator.without(len(everyone), ended - begun)
        else:
            held = [self._accept(*each) for each in zip(everyone, guesses.tokens, rows, strict=True)]
            self._talk.release()
            self._count(guesses, held)
            speculator.learn(guesses, held, ended - begun)
        return ended - entered

    def _count(self, guesses: Guesses, held: list[int]) -> None:
        counters = self._counters
        counters.draft_tokens += sum(map(len, guesses.tokens))
        counters.accepted_draft_tokens += sum(held)
        for guess, offer, good in zip(guesses.tokens, guesses.offers, held, strict=True):
            if offer is not None and offer.grade == DRAFT:
                counters.model_draft_tokens += len(guess)
                counters.accepted_model_draft_tokens += good

    def _decode(self, everyone: Many[Sequence], guesses: Guesses | None) -> Many[int]:
        """The row of each one's last token."""
        if guesses is not None:
            self.aligned = False
            return self._context.verify(everyone, guesses.tokens)
        if not self.aligned:
            rows = self._context.decode([Chunk(sequence, sequence.computed, 1, True) for sequence in everyone])
            self.aligned = True
            return rows
        self._context.again([sequence.tokens[-1] for sequence in everyone], exact=everyone[0].exact)
        return range(len(everyone))

    def _accept(self, sequence: Sequence, guess: list[int], row: int) -> int:
        """Draw from the rows of a guess as long as the draws are what was guessed; returns how many were."""
        sequence.ahead, held = len(guess) + 1, 0
        more = len(guess) if self._together else 0
        for guessed in [*guess, None]:
            sequence.computed += 1
            sequence.ahead -= 1
            goes_on = self._talk.take(sequence, row + held, more)
            if guessed is None or not goes_on or sequence.tokens[-1] != guessed:
                break
            held += 1
            sequence.accepted += 1
        if sequence.ahead:
            self._context.cut(sequence.slot, sequence.computed)
            sequence.ahead = 0
        return held

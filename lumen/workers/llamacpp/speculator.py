"""Guesses for the sequences of a step, whoever makes them, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Sequence as Many
from dataclasses import dataclass

from lumen.workers.llamacpp.drafter import NEAR, Drafter
from lumen.workers.llamacpp.guess import DRAFT, Odds, at_first
from lumen.workers.llamacpp.guesser import Offer, Texts
from lumen.workers.llamacpp.sequence import Sequence
from lumen.workers.llamacpp.wager import Always, Choice, Tally, Wager

_STALL = 0.05
"""Seconds that a step may grow by for what the draft model reads."""
_FIRST_READ = 32
"""Tokens it is given to read as long as nobody knows how long that takes; the fewest ever."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """What may come after the next token of each sequence of a step; empty for some. `offers`: what it came from."""

    tokens: list[list[int]]
    offers: list[Offer | None]
    depth: int

    def rows(self, draft: bool) -> int:
        """Guessed tokens, those of the draft model or the others."""
        return sum(len(guess) for guess, offer in self._each() if offer is not None and (offer.grade == DRAFT) is draft)

    def _each(self) -> zip[tuple[list[int], Offer | None]]:
        return zip(self.tokens, self.offers, strict=True)


class Speculator:
    """On the engine's thread alone. `guess` before a decode, then `learn` or `without`."""

    def __init__(self, wager: Wager | Always, drafter: Drafter | None = None) -> None:
        self.drafter = drafter
        self._wager = wager
        self._texts = Texts()
        self._odds = at_first()
        self._tried = 0  # the arrival of the sequence that it read something of last, for a try
        self._pace = 0.0  # seconds a token that the draft model reads

    def guess(self, everyone: Many[Sequence]) -> Guesses | None:
        """What may come next; None where it would not pay."""
        most = self._wager.most(len(everyone))
        if not most:
            return None
        # The last token of an answer has nothing behind it to guess.
        rooms = [min(most, sequence.max_answer - sequence.answered - 1) for sequence in everyone]
        text = self._texts.offers(everyone, rooms)
        if self.drafter is None and not any(text):
            return None
        draft: list[Offer | None] = [None] * len(everyone)
        if self.drafter is not None:
            draft = self._drafts(self.drafter, everyone, rooms, text, most)
        choice = self._wager.choose(self._chances(text), self._chances(draft), most)
        return self._made(choice, text, draft) if choice.depth else None

    def _drafts(
        self, drafter: Drafter, everyone: Many[Sequence], rooms: Many[int], text: list[Offer | None], most: int
    ) -> list[Offer | None]:
        """What the draft model could guess now, once it has read what it lacks, where that is worth its time."""
        offers = drafter.offers(everyone, rooms)
        near = [offer if offer is not None and offer.behind <= NEAR else None for offer in offers]
        far = [offer for offer in offers if offer is not None and offer.behind > NEAR]
        if not far:
            return near
        begun = [offer for offer in far if offer.sequence.reading]
        if not begun:
            begun = self._worth_reading(far, text, near, offers, most)
        if begun:
            self._read(drafter, begun, len(everyone))
        return near

    def _worth_reading(
        self, far: list[Offer], text: list[Offer | None], now: list[Offer | None], then: list[Offer | None], most: int
    ) -> list[Offer]:
        """Those of whom the draft model should read what it lacks: all, one for a try, or nobody."""
        behind = sum(offer.behind for offer in far)
        left = sum(offer.sequence.max_answer - offer.sequence.answered for offer in far) / len(far)
        known, before, after = (self._chances(each) for each in (text, now, then))
        if self._wager.reads(known, before, after, most, behind, left):
            for offer in far:
                offer.sequence.reading = True
            return far
        nearest = min(far, key=lambda offer: offer.behind)
        arrival = nearest.sequence.arrival
        if not self._wager.tries(begun=arrival == self._tried):
            return []
        self._tried = arrival
        return [nearest]

    def _read(self, drafter: Drafter, offers: list[Offer], sequences: int) -> None:
        """A piece of what the draft model lacks of these, as much as does not hold everybody up for long."""
        begun = time.monotonic()
        count = drafter.read(offers, max(_FIRST_READ, int(_STALL / self._pace)) if self._pace else _FIRST_READ)
        seconds = time.monotonic() - begun
        for offer in offers:
            offer.sequence.reading = offer.sequence.reading and offer.behind - count > NEAR
        if count:
            self._pace = seconds / count if not self._pace else 0.7 * self._pace + 0.3 * seconds / count
            self._wager.read(sequences, count, seconds)

    def _chances(self, offers: Many[Offer | None]) -> list[float | None]:
        return [self._of(offer)[0].likely if offer is not None else None for offer in offers]

    def _of(self, offer: Offer) -> tuple[Odds, Odds]:
        """What is known of guesses like this one: of its sequence's, and of all."""
        sequence = offer.sequence
        if sequence.odds is None:
            sequence.odds = [known.fresh() for known in self._odds]
        return sequence.odds[offer.grade], self._odds[offer.grade]

    def _made(self, choice: Choice, text: list[Offer | None], draft: list[Offer | None]) -> Guesses | None:
        offers: list[Offer | None] = [None] * len(text)
        tokens: list[list[int]] = [[] for _ in text]
        for guesser, known, wanted in ((self._texts, text, choice.text), (self.drafter, draft, choice.draft)):
            places = [i for i, wants in enumerate(wanted) if wants]
            those = [offer for i in places if (offer := known[i]) is not None]
            if guesser is None or not those:
                continue
            for i, offer, guess in zip(places, those, guesser.guess(those, choice.depth), strict=True):
                tokens[i] = guess[: offer.most]
                offers[i] = offer if tokens[i] else None
        if self.drafter is not None and any(choice.draft) and self.drafter.decodes:
            drafted = sum(choice.draft)
            self._wager.drafted(len(text), drafted, self.drafter.decodes, self.drafter.seconds)
        return Guesses(tokens, offers, choice.depth) if any(tokens) else None

    def learn(self, guesses: Guesses, held: list[int], seconds: float) -> None:
        """A decode of `guesses` took `seconds`; `held` of each one's tokens were drawn."""
        text, draft = Tally(guesses.rows(False)), Tally(guesses.rows(True))
        for guess, offer, good in zip(guesses.tokens, guesses.offers, held, strict=True):
            if offer is not None:
                for one in self._of(offer):
                    one.learn(good, len(guess))
                (draft if offer.grade == DRAFT else text).held += good
        self._wager.guessed(len(held), guesses.depth, text, draft, seconds)

    def without(self, sequences: int, seconds: float) -> None:
        """A decode of one token for each of `sequences` took `seconds`."""
        self._wager.plain(sequences, seconds)

    def sleep(self) -> None:
        """Give back what a draft model holds but its weights."""
        if self.drafter is not None:
            self.drafter.sleep()

    def rouse(self) -> None:
        """Take it again. Raises `LoadError` where there is no memory for it."""
        if self.drafter is not None:
            self.drafter.rouse()

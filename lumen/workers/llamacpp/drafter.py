"""A draft model beside the model: it guesses what a sequence goes on with, by the draws that this will be made with.

It has a context of its own, with a lane for each answer that runs. A lane is told nothing: before each guess what it
holds is compared with the sequence, cut where the two part, and what is missing is read. So it follows whatever the
model's own cells went through: guesses taken back, prefixes restored, answers sent back to the queue, cancelled, or
gone on with by another request of the same key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence as Many
from dataclasses import dataclass

from lumen.workers.llamacpp.context import Aborted, Context, DecodeFailed, NoRoom
from lumen.workers.llamacpp.guess import DRAFT
from lumen.workers.llamacpp.guesser import Offer
from lumen.workers.llamacpp.prefix import MIN_REUSE
from lumen.workers.llamacpp.radix import common_prefix
from lumen.workers.llamacpp.scheduler import Chunk
from lumen.workers.llamacpp.sequence import NEVER, Sequence

log = logging.getLogger("lumen.worker.drafter")

NEAR = 32
"""Tokens that a lane may be behind and still be read with the first decode of a guess."""


@dataclass(slots=True, eq=False)
class Lane:
    """A sequence of the draft's context: `tokens[:computed]` are in its cells. `owner`: the arrival of its answer."""

    slot: int
    tokens: list[int]
    computed: int = 0
    owner: int = 0
    salt: str = ""
    sure: int = 0  # leading tokens known to be its owner's
    single_from: int = NEVER
    adapter: int = 0
    exact: bool = False


class Drafter:
    """`Guesser` by a draft model. On the engine's thread alone."""

    def __init__(self, context: Context, fewer: bool = False) -> None:
        """`context`: of the draft model, with a lane for each answer that may run. `fewer`: its vocabulary, which may
        be filled up less far than the model's, lacks tokens.
        """
        self.context = context
        self._fewer = fewer
        self._reach = context.n_cells // context.shape.n_seq if context.shape.lanes else context.n_cells
        self._lanes = [Lane(slot, []) for slot in range(context.shape.n_seq)]
        self._of: dict[int, Lane] = {}  # by the arrival of its answer
        self.broken = False
        self.seconds = 0.0  # that the last guess took
        self.decodes = 0  # and decodes

    def offers(self, everyone: Many[Sequence], rooms: Many[int]) -> list[Offer | None]:
        if self.broken:
            return [None] * len(everyone)
        active = {sequence.arrival for sequence in everyone}
        found: list[Offer | None] = []
        for sequence, room in zip(everyone, rooms, strict=True):
            if room < 1 or len(sequence.tokens) + room > self._reach:
                found.append(None)
                continue
            lane = self._of.get(sequence.arrival) or self._seat(sequence, active)
            self._align(lane, sequence)
            missing = sequence.tokens[lane.computed :]
            known = not self._fewer or max(missing) < self.context.model.vocab.size
            found.append(Offer(sequence, room, DRAFT, behind=len(missing)) if known else None)
        return found

    def _seat(self, sequence: Sequence, active: set[int]) -> Lane:
        """A lane for a sequence that has none: one that holds its beginning, for the same key, else the lowest idle."""
        idle = [lane for lane in self._lanes if lane.owner not in active]
        lane, shared = idle[0], 0
        if sequence.reuse:
            for one in idle:
                length = common_prefix(one.tokens, sequence.tokens) if one.salt == sequence.salt else 0
                if length >= MIN_REUSE and length > shared:
                    lane, shared = one, length
        self._of.pop(lane.owner, None)
        if not shared:
            self._cut(lane, 0)
        lane.owner, lane.salt, lane.sure = sequence.arrival, sequence.salt, 0
        self._of[lane.owner] = lane
        return lane

    def _align(self, lane: Lane, sequence: Sequence) -> None:
        """Drop what is not the sequence's. Its last token is always left to be read: guesses begin behind it."""
        held, tokens = lane.tokens, sequence.tokens
        most = min(lane.computed, len(tokens) - 1)
        alike = min(lane.sure, most) or min(common_prefix(held, tokens), most)
        while alike < most and held[alike] == tokens[alike]:
            alike += 1
        lane.sure = alike
        if alike < lane.computed:
            self._cut(lane, alike)

    def _cut(self, lane: Lane, length: int) -> None:
        if lane.computed > length:
            self.context.cut(lane.slot, length)
        del lane.tokens[length:]
        lane.computed = length

    def read(self, offers: Many[Offer], most: int) -> int:
        """Read what is missing of these sequences, `most` tokens at most, but none's last; returns how many."""
        chunks = []
        left = min(most, self.context.shape.n_batch)
        for offer in sorted(offers, key=lambda offer: self._of[offer.sequence.arrival].slot):
            lane = self._of[offer.sequence.arrival]
            count = min(left, offer.behind - 1)
            if count > 0:
                lane.tokens += offer.sequence.tokens[lane.computed : lane.computed + count]
                chunks.append(Chunk(lane, lane.computed, count, False))
                left -= count
        return sum(chunk.count for chunk in chunks) if chunks and self._decode(chunks) is not None else 0

    def guess(self, offers: Many[Offer], depth: int) -> list[list[int]]:
        begun, self.decodes = time.monotonic(), 0
        lanes = [self._of[offer.sequence.arrival] for offer in offers]
        order = sorted(range(len(offers)), key=lambda i: lanes[i].slot)
        guesses: list[list[int]] = [[] for _ in offers]
        rows: Many[int] | None = self._begin([(lanes[i], offers[i].sequence) for i in order])
        for step in range(depth):
            if rows is None:
                break
            for i, row in zip(order, rows, strict=True):
                sequence = offers[i].sequence
                guesses[i].append(sequence.sampler.propose(self.context, row, sequence.answered + step))
            if step + 1 < depth:
                rows = self._go_on([lanes[i] for i in order], [guesses[i][-1] for i in order], first=step == 0)
        self.seconds = time.monotonic() - begun
        return [self._usable(offer, guess) for offer, guess in zip(offers, guesses, strict=True)]

    def _begin(self, those: Many[tuple[Lane, Sequence]]) -> list[int] | None:
        """Read what is missing of sequences; the row behind each one's last token."""
        chunks = []
        for lane, sequence in those:
            start = lane.computed
            lane.tokens += sequence.tokens[start:]
            chunks.append(Chunk(lane, start, len(lane.tokens) - start, True))
        return self._decode(chunks)

    def _go_on(self, lanes: Many[Lane], tokens: list[int], *, first: bool) -> Many[int] | None:
        """Read one token each; the row behind it."""
        for lane, token in zip(lanes, tokens, strict=True):
            lane.tokens.append(token)
        if first:
            return self._decode([Chunk(lane, lane.computed, 1, True) for lane in lanes])
        return self._again(lanes, tokens)

    def _decode(self, chunks: list[Chunk]) -> list[int] | None:
        """The row of each chunk that asks for one; None: it could not be done, and the lanes are as before."""
        lanes = [chunk.sequence for chunk in chunks if isinstance(chunk.sequence, Lane)]
        try:
            rows = self.context.decode(chunks)
        except (NoRoom, Aborted, DecodeFailed) as error:
            self._failed(lanes, error)
            return None
        self.decodes += 1
        for lane, chunk in zip(lanes, chunks, strict=True):
            lane.computed += chunk.count
        return rows

    def _again(self, lanes: Many[Lane], tokens: list[int]) -> Many[int] | None:
        try:
            self.context.again(tokens)
        except (NoRoom, Aborted, DecodeFailed) as error:
            self._failed(lanes, error)
            return None
        self.decodes += 1
        for lane in lanes:
            lane.computed += 1
        return range(len(lanes))

    def _failed(self, lanes: Many[Lane], error: Exception) -> None:
        for lane in lanes:
            del lane.tokens[lane.computed :]
        if isinstance(error, NoRoom):  # lanes share their cells: those that nobody uses now give theirs back
            busy = {id(lane) for lane in lanes}
            for lane in self._lanes:
                if id(lane) not in busy:
                    self._cut(lane, 0)
                    lane.sure = 0
            return
        log.error("the draft model failed and is not used any more: %s", error)
        self.broken = True
        self.forget()

    def _usable(self, offer: Offer, guess: list[int]) -> list[int]:
        """As far as the model can take it: what ends an answer has nothing behind it to be computed."""
        vocab, size = offer.sequence.sampler.vocab, offer.sequence.sampler.vocab.size
        for place, token in enumerate(guess):
            if token >= size or (vocab.is_eog(token) and not offer.sequence.ignore_eos):
                return guess[:place]
        return guess

    def forget(self) -> None:
        """Every lane is empty."""
        for lane in self._lanes:
            lane.tokens, lane.computed, lane.owner, lane.salt, lane.sure = [], 0, 0, "", 0
        self._of.clear()
        self.context.clear()

    def sleep(self) -> None:
        """Give cells and buffers back; weights stay."""
        self.forget()
        self.context.close()

    def close(self) -> None:
        """Free everything, weights too; not to be used any more."""
        self.context.close()
        self.context.model.close()

    def rouse(self) -> None:
        """Take them again. Raises `LoadError` where there is no memory for them."""
        self.context.reopen()

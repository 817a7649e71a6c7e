"""Who of those that wait may begin now: in the queue's order, as long as there are slots and cells."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many

from lumen.workers.llamacpp.fair import FairQueue
from lumen.workers.llamacpp.prefix import MIN_REUSE, PrefixCache
from lumen.workers.llamacpp.radix import common_prefix
from lumen.workers.llamacpp.sequence import Sequence


class Admission:
    """`waiting`: who does. `tight`: cells ran out, so nobody is admitted until somebody leaves. `soon`: somebody waits
    for what another computes, and may begin a step or two later.
    """

    def __init__(self, slots: int, lanes: bool) -> None:
        """`lanes`: each sequence has cells of its own."""
        self.waiting: FairQueue[Sequence] = FairQueue()
        self.tight = False
        self.soon = False
        self._slots = slots
        self._lanes = lanes

    def admit(self, running: Many[Sequence], cache: PrefixCache, n_cells: int, now: float) -> Iterator[Sequence]:
        """One after another whoever may begin, taken from the queue; the caller adds each one to `running`.

        What all that run will likely need fits `n_cells`: few answers become as long as they may, and where they do one
        makes room. That one begins again where its worst case fits, so that it is not sent back and forth. The first
        one that does not fit is waited for: those behind it would for ever be smaller.
        """
        self.soon = False
        if not self.waiting or len(running) >= self._slots or (self.tight and running):
            return
        self.tight = False
        cells = n_cells - sum(sequence.likely for sequence in running)
        soon: set[Sequence] = set()
        while len(running) < self._slots and cache.available():
            sequence = self.waiting.next(now, soon)
            if sequence is None or (sequence.worst if sequence.started else sequence.likely) > cells:
                return
            if not self._lanes and running and (sequence.exact or running[-1].exact):
                return  # They share cells, and sums hang on whose cells lie between one's own.
            if _shares_soon(sequence, running, cache):
                soon.add(sequence)
                self.soon = True
                continue
            self.waiting.take(sequence)
            cells -= sequence.likely
            yield sequence

    def reap(self) -> None:
        """Those that were cancelled wait no more."""
        for sequence in [sequence for sequence in self.waiting if sequence.cancelled]:
            self.waiting.remove(sequence)
            sequence.sampler.close()


def _shares_soon(sequence: Sequence, running: Many[Sequence], cache: PrefixCache) -> bool:
    """Whether a running sequence computes a longer prefix of this one than there is now: worth a few steps' wait."""
    if not sequence.reuse:
        return False
    now = -1
    for other in running:
        if other.computed >= other.prompt_len or other.salt != sequence.salt:
            continue
        shared = min(common_prefix(sequence.tokens, other.tokens), len(sequence.tokens) - 1, other.prompt_len)
        if shared >= MIN_REUSE and shared > other.computed:
            now = cache.match(sequence.tokens, sequence.salt) if now < 0 else now
            if shared > now:
                return True
    return False

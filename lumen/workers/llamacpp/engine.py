"""The engine: one thread that owns the context. A step is admit → schedule → decode → sample → emit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from concurrent.futures import Future
from operator import attrgetter

from lumen.workers.llamacpp.admission import Admission
from lumen.workers.llamacpp.context import Aborted, Context, DecodeFailed, NoRoom
from lumen.workers.llamacpp.embed import Embedder
from lumen.workers.llamacpp.keeper import Keeper
from lumen.workers.llamacpp.lanes import new_cache
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.model import LoadError
from lumen.workers.llamacpp.orders import Orders
from lumen.workers.llamacpp.paces import Paces
from lumen.workers.llamacpp.rounds import Rounds
from lumen.workers.llamacpp.scheduler import Chunk, decodes
from lumen.workers.llamacpp.sequence import Event, Sequence
from lumen.workers.llamacpp.speculator import Speculator
from lumen.workers.llamacpp.talk import Post, Talk

log = logging.getLogger("lumen.worker.engine")

_GAP_STEPS = 8
"""Steps after which an empty lane between running ones is filled: until then the next request may come for it."""

_MAX_FAILURES = 3
"""Decodes that fail one after another before the engine is given up."""


class Engine:
    """Continuous batching over one context. Every public method may be called from any thread."""

    def __init__(
        self,
        context: Context | None,
        slots: int,
        park: tuple[int, int],
        counters: Counters,
        post: Post,
        embedder: Embedder,
        on_death: Callable[[], None],
        speculator: Speculator | None = None,
        keeper: Keeper | None = None,
        together: float = 0.0,
    ) -> None:
        """`context` None: embeddings only. `park`: cells, and bytes of host memory, for prefixes of finished answers.

        `post` hears each step's events at once; `on_death` that the thread broke. `speculator` None: nothing is
        guessed; `keeper` None: nothing is kept on a disk. `together`: seconds that a token may wait for the next ones.
        """
        self._context = context
        self._slots = slots
        self._park = park
        self._counters = counters
        self._embedder = embedder
        self._on_death = on_death
        self._keeper = keeper if context is not None else None
        self._speculator = speculator
        self._orders = Orders()
        self._running: list[Sequence] = []
        self._round: list[Sequence] = []  # whom the next step advances by one token, in the order of the last batch
        self._talk = Talk(context, counters, post, self._leave, self._interrupt)
        self._arrivals = 0
        self._paces = Paces()
        self._failures = 0
        self._stopping = False
        self._asleep = False
        self._lanes = context is not None and context.shape.lanes
        self._admission = Admission(slots, self._lanes)
        self._waiting = self._admission.waiting
        self._shut = False  # whoever waits cannot begin before somebody leaves, or an order comes
        self._gap = 0  # steps since some lane between running ones is empty
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        if context is not None:
            self._rounds = Rounds(context, counters, self._talk, speculator, together)
            self._cache = new_cache(context, self._park)
            counters.cells_total = context.n_cells

    def start(self) -> None:
        self._thread.start()
        if self._keeper is not None:
            self._keeper.begin()

    def submit(self, sequences: Many[Sequence]) -> None:
        """Queue the choices of one request."""
        self._orders.give(lambda: self._waiting.extend(sequences))

    def cancel(self, sequences: Many[Sequence]) -> None:
        """Nobody waits for these any more: their slots are free at the next step."""
        for sequence in sequences:
            sequence.cancelled = True
        if sequences:
            self.wake()

    def wake(self) -> None:
        """Look around again: an outbox has room, or there are embeddings to make."""
        self._orders.wake()

    def stop(self, abort: bool, timeout: float) -> bool:
        """End the thread after this step, or (`abort`) within it; whoever still runs gets an error. True: it
        has ended.
        """

        def order() -> None:
            self._stopping = True

        self._orders.give(order)
        if abort and self._context is not None:
            self._context.abort()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def sleep(self) -> Future[bool]:
        """Give cells and buffers back; weights stay, and prefixes in host memory. False: somebody runs or waits."""
        return self._orders.ask(self._sleep)

    def rouse(self) -> Future[bool]:
        """Take cells and buffers again. Fails with `LoadError` where there is no memory for them."""
        return self._orders.ask(self._rouse)

    @property
    def asleep(self) -> bool:
        return self._asleep

    def _sleep(self) -> bool:
        if self._running or self._waiting or self._embedder.pending:
            return False
        if self._context is not None and not self._asleep:
            while self._cache.evict():
                continue
            self._context.close()
            self._counters.cells_used = 0
            if self._speculator is not None:
                self._speculator.sleep()
            self._keep()
        self._embedder.close()
        self._asleep = True
        return True

    def _keep(self) -> None:
        """Bring to the disk what the next process may go on with."""
        if self._keeper is not None:
            self._keeper.keep(self._cache)

    def _rouse(self) -> bool:
        if self._context is not None and self._asleep:
            self._context.reopen()
            try:
                if self._speculator is not None:
                    self._speculator.rouse()
            except LoadError:
                self._context.close()
                raise
        self._asleep = False
        return True

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        sound = False
        try:
            while not self._stopping:
                if self._orders or not self._round:
                    self._hear(block=not (self._busy() or self._embedder.pending))
                self._step()
                if self._embedder.pending:
                    self._talk.release()
                    self._talk.flush()
                    self._embedder.step()
            sound = True
        except Exception:
            log.exception("the engine broke")
            self._on_death()
        finally:
            self._fail_all((503, "The worker is shutting down."), self._running + list(self._waiting))
            self._embedder.fail()
            self._flush()
        if sound:
            self._keep()

    def _busy(self) -> bool:
        """Whether a step now would get anywhere."""
        waits = bool(self._waiting) and not self._shut
        return waits or bool(self._round) or any(not _stalled(sequence) for sequence in self._running)

    def _hear(self, block: bool) -> None:
        if block:
            self._tidy_up()
            self._orders.obey()
            self._shut = False
        while self._orders:
            self._round, self._shut = [], False
            self._orders.obey()

    def _tidy_up(self) -> None:
        """Do now, while nobody waits, what the next sequence would have to wait for."""
        if self._context is not None and not self._asleep and not self._orders:
            self._cache.ahead()

    # One step

    def _step(self) -> None:
        if not self._round:
            self._reap()
            self._admit()
        if self._gap or not self._round:
            self._close_ranks()
        if self._round:
            self._repeat()
        else:
            self._flush()  # an answer can begin while its prompt is computed
            self._advance_all()
        self._flush()

    def _advance_all(self) -> None:
        """Decide who gets how many tokens, and compute them."""
        ready = [sequence for sequence in self._running if not _stalled(sequence)]
        if not ready:
            return
        batches = list(decodes(ready, self._paces.limits(self._need().shape.n_batch), self._lanes))
        for batch in batches:
            if len(batches) > 1:  # an earlier decode of this step may have cost some their places
                batch[:] = [chunk for chunk in batch if chunk.sequence in self._running]
            if not batch:
                continue
            rows = self._decode(batch)
            if not rows:
                break
            alike = len(batches) == 1 and all(chunk.sample and chunk.count == 1 for chunk in batch)
            if alike and not (self._waiting and self._admission.soon):
                self._rounds.aligned = True
                self._round = [chunk.sequence for chunk in batch]  # type: ignore[misc]
            for chunk, row in zip(batch, rows, strict=True):
                self._advance(chunk.sequence, chunk.count, row)  # type: ignore[arg-type]
            self._flush()

    def _repeat(self) -> None:
        """One more token for everyone in the round: as if planned, with nothing left to plan."""
        everyone, begun = self._round, time.monotonic()
        try:
            seconds = self._rounds.step(everyone)
        except NoRoom:
            self._round = []  # the next step makes room
        except (Aborted, DecodeFailed) as error:
            self._recover(error)
        else:
            self._account(seconds, begun, len(everyone), len(everyone))

    def _close_ranks(self) -> None:
        """After a lane has been empty for some steps (else its successor is here at once), close the gap."""
        if not self._running or not self._cache.ragged:
            self._gap = 0
            return
        self._gap += 1
        if self._gap > _GAP_STEPS and (move := self._cache.close_ranks()) is not None:
            source, target = move
            self._round = []
            next(sequence for sequence in self._running if sequence.slot == source).slot = target

    def _need(self) -> Context:
        assert self._context is not None, "the server admits no generation where there is no context"
        return self._context

    def _reap(self) -> None:
        """Let cancelled sequences go; what they computed stays parked for a retry."""
        for sequence in [s for s in self._running if s.cancelled]:
            self._leave(sequence, "cancelled")
        self._admission.reap()

    def _admit(self) -> None:
        if self._waiting:
            if self._asleep and not self._roused():
                return
            if self._keeper is not None:
                self._keeper.look(self._cache, (sequence.tokens for sequence in self._waiting))
            n_cells = self._need().n_cells
            for sequence in self._admission.admit(self._running, self._cache, n_cells, time.monotonic()):
                self._enter(sequence)
            self._shut = bool(self._waiting)

    def _roused(self) -> bool:
        """Nobody should ask a sleeper, but whoever does is answered: that it cannot wake, if need be."""
        try:
            return self._rouse()
        except LoadError as error:
            self._fail_all((503, f"The engine cannot wake: {error}."), list(self._waiting))
            return False

    def _enter(self, sequence: Sequence) -> None:
        sequence.slot, sequence.computed = self._cache.take(sequence.tokens, sequence.salt, sequence.reuse)
        if not sequence.started:
            sequence.started = True
            sequence.cached = min(sequence.computed, sequence.prompt_len)
            self._arrivals += 1
            sequence.arrival = self._arrivals
            self._counters.prompt_tokens += sequence.prompt_len
            self._counters.cached_tokens += sequence.cached
            self._talk.emit(sequence, Event(sequence.choice, started=True, cached=sequence.cached))
        self._round = []
        self._running.append(sequence)
        self._running.sort(key=attrgetter("arrival"))

    def _decode(self, chunks: list[Chunk]) -> list[int]:
        """The logits row of each chunk; none where it broke. Who had to make room loses its chunks."""
        context = self._need()
        fresh = sum(chunk.count for chunk in chunks)
        begun = time.monotonic()
        while True:
            try:
                rows = context.decode(chunks)
                break
            except NoRoom:
                if not self._cache.evict():
                    victim = self._preempt()
                    chunks[:] = [chunk for chunk in chunks if chunk.sequence is not victim]
                    if not chunks:
                        return []
            except (Aborted, DecodeFailed) as error:
                self._recover(error)
                return []
        self._account(time.monotonic() - begun, begun, fresh, len(chunks))
        return rows

    def _account(self, seconds: float, begun: float, tokens: int, chunks: int) -> None:
        self._failures = 0
        self._counters.step(begun, seconds)
        self._paces.learn(seconds, tokens, chunks)

    def _cells_used(self) -> int:
        return self._cache.parked_cells + sum(sequence.computed for sequence in self._running)

    def _advance(self, sequence: Sequence, count: int, row: int) -> None:
        sequence.computed += count
        if count > 1 and sequence.computed <= sequence.prompt_len:
            self._cache.publish(sequence.slot, sequence.tokens[: sequence.computed])
        if row >= 0:
            self._talk.take(sequence, row)

    def _leave(self, sequence: Sequence, how: str) -> None:
        self._round, self._shut = [], False
        self._running.remove(sequence)
        self._admission.tight = False
        if sequence.ahead:
            self._need().cut(sequence.slot, sequence.computed)
            sequence.ahead = 0
        self._cache.park(sequence.slot, sequence.tokens[: sequence.computed])
        sequence.sampler.close()
        self._waiting.settle(sequence.caller, sequence.spent - sequence.cost)
        self._counters.finished[how] = self._counters.finished.get(how, 0) + 1

    def _interrupt(self) -> None:
        """The next step is planned anew."""
        self._round = []

    def _flush(self) -> None:
        """Hand the step's events to the loop, all at once."""
        if not self._round:
            self._talk.release()
            counters = self._counters
            counters.running, counters.waiting = len(self._running), len(self._waiting)
            if self._context is not None and not self._asleep:
                counters.cells_used = self._cells_used()
        self._talk.flush()

    # When something does not fit or breaks

    def _preempt(self) -> Sequence:
        """Send the youngest of the lowest class back to the queue: it will be computed again when there is room."""
        self._round, self._shut = [], False
        youngest = min(self._running, key=_dispensable)
        if len(self._running) == 1:
            self._fail_all((500, "The KV cache cannot hold this sequence."), [youngest])
            return youngest
        self._running.remove(youngest)
        self._cache.release(youngest.slot)
        youngest.slot, youngest.computed = -1, 0
        self._waiting.put_back(youngest)
        self._counters.preemptions += 1
        self._admission.tight = True
        return youngest

    def _recover(self, error: Exception) -> None:
        """A decode broke: nothing in the context can be trusted, so everyone running fails and the cache
        starts afresh.
        """
        self._failures += 1
        log.error("decode failed: %s", error)
        self._fail_all((500, "The engine failed on this batch."), list(self._running))
        if isinstance(error, Aborted):
            self._stopping = True  # what is parked was not part of the batch, and is as it was
            return
        context = self._need()
        context.clear()
        self._cache = new_cache(context, self._park)
        if self._failures >= _MAX_FAILURES:
            raise error

    def _fail_all(self, error: tuple[int, str], sequences: Many[Sequence]) -> None:
        self._round, self._shut = [], False
        self._talk.release()
        for sequence in sequences:
            if sequence in self._running:
                self._running.remove(sequence)
                self._cache.release(sequence.slot)
            elif sequence in self._waiting:
                self._waiting.remove(sequence)
            sequence.sampler.close()
            self._talk.emit(sequence, Event(sequence.choice, error=error))


def _stalled(sequence: Sequence) -> bool:
    return not sequence.cancelled and sequence.outbox.blocked()


def _dispensable(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank, -sequence.arrival

"""The engine: one thread that owns the context. A step is admit → schedule → decode → sample → emit."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Literal

from lumen.workers.llamacpp.chat.output import Delta
from lumen.workers.llamacpp.context import Aborted, Context, DecodeFailed, NoRoom
from lumen.workers.llamacpp.embed import Embedder
from lumen.workers.llamacpp.lanes import LaneCache
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.model import LoadError
from lumen.workers.llamacpp.prefix import MIN_REUSE, PrefixCache, Shelf
from lumen.workers.llamacpp.radix import common_prefix
from lumen.workers.llamacpp.rounds import Rounds
from lumen.workers.llamacpp.sampling import top_logprobs
from lumen.workers.llamacpp.scheduler import Chunk, Limits, decodes, mixed_budget
from lumen.workers.llamacpp.sequence import NEVER, Event, Outbox, Sequence
from lumen.workers.llamacpp.speculator import Speculator

log = logging.getLogger("lumen.worker.engine")

Post = Callable[[list[tuple[Outbox, Event]]], None]

_STALL_TARGET = 0.05
"""Seconds a step may grow by for the sake of prompts while other answers are being streamed."""

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
    ) -> None:
        """`context` None: embeddings only. `park`: cells, and bytes of host memory, for prefixes of finished answers.

        `post` hears each step's events at once; `on_death` that the thread broke. `speculator` None: nothing is
        guessed.
        """
        self._context = context
        self._slots = slots
        self._park = park
        self._counters = counters
        self._post = post
        self._embedder = embedder
        self._on_death = on_death
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._round: list[Sequence] = []  # whom the next step advances by one token, in the order of the last batch
        self._events: list[tuple[Outbox, Event]] = []
        self._arrivals = 0
        self._prefill_pace = 0.0  # seconds a prompt token, smoothed
        self._decode_pace = 0.0  # seconds of the last step without prompts
        self._failures = 0
        self._tight = False  # cells ran out: nobody is admitted until somebody leaves
        self._stopping = False
        self._asleep = False
        self._lanes = context is not None and context.shape.lanes
        self._gap = 0  # steps since some lane between running ones is empty
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        if context is not None:
            self._rounds = Rounds(context, counters, self._take, speculator)
            self._cache = self._new_cache(context)
            counters.cells_total = context.n_cells

    def start(self) -> None:
        self._thread.start()

    def submit(self, sequences: Many[Sequence]) -> None:
        """Queue the choices of one request."""
        self._inbox.put(lambda: self._waiting.extend(sequences))

    def cancel(self, sequences: Many[Sequence]) -> None:
        """Nobody waits for these any more: their slots are free at the next step."""
        for sequence in sequences:
            sequence.cancelled = True
        self.wake()

    def wake(self) -> None:
        """Look around again: an outbox has room, or there are embeddings to make."""
        self._inbox.put(_nothing)

    def stop(self, abort: bool, timeout: float) -> bool:
        """End the thread after this step, or (`abort`) within it; whoever still runs gets an error. True: it
        has ended.
        """

        def order() -> None:
            self._stopping = True

        self._inbox.put(order)
        if abort and self._context is not None:
            self._context.abort()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def sleep(self) -> Future[bool]:
        """Give cells and buffers back; weights stay, and prefixes in host memory. False: somebody runs or waits."""
        return self._order(self._sleep)

    def rouse(self) -> Future[bool]:
        """Take cells and buffers again. Fails with `LoadError` where there is no memory for them."""
        return self._order(self._rouse)

    @property
    def asleep(self) -> bool:
        return self._asleep

    def _order(self, act: Callable[[], bool]) -> Future[bool]:
        done: Future[bool] = Future()

        def obey() -> None:
            try:
                done.set_result(act())
            except LoadError as error:
                done.set_exception(error)

        self._inbox.put(obey)
        return done

    def _sleep(self) -> bool:
        if self._running or self._waiting or self._embedder.pending:
            return False
        if self._context is not None and not self._asleep:
            while self._cache.evict():
                continue
            self._context.close()
            self._counters.cells_used = 0
        self._embedder.close()
        self._asleep = True
        return True

    def _rouse(self) -> bool:
        if self._context is not None and self._asleep:
            self._context.reopen()
        self._asleep = False
        return True

    @property
    def waiting(self) -> int:
        """Answers that wait for a slot, about: what was submitted within this step counts once a request."""
        return len(self._waiting) + self._inbox.qsize()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._hear(block=not (self._busy() or self._embedder.pending))
                self._step()
                self._embedder.step()
        except Exception:
            log.exception("the engine broke")
            self._on_death()
        finally:
            self._fail_all((503, "The worker is shutting down."), self._running + list(self._waiting))
            self._embedder.fail()
            self._flush()

    def _busy(self) -> bool:
        """Whether a step now would get anywhere."""
        return bool(self._round or self._waiting) or any(not self._stalled(sequence) for sequence in self._running)

    def _hear(self, block: bool) -> None:
        if block:
            self._inbox.get()()
        while not self._inbox.empty():
            self._round = []
            self._inbox.get()()

    # One step

    def _step(self) -> None:
        if self._asleep and self._waiting:
            # Nobody should ask a sleeper, but whoever does is answered.
            self._rouse()
        if not self._round:
            self._reap()
            self._admit()
        if self._running:
            self._close_ranks()
        if self._round:
            self._repeat()
        else:
            self._flush()  # an answer can begin while its prompt is computed
            self._advance_all()
        self._flush()

    def _advance_all(self) -> None:
        """Decide who gets how many tokens, and compute them."""
        ready = [sequence for sequence in self._running if not self._stalled(sequence)]
        if not ready:
            return
        batches = list(decodes(ready, self._limits(), self._lanes))
        for batch in batches:
            if batch[0].sequence not in self._running:
                continue  # An earlier decode of this step cost it its place.
            rows = self._decode(batch)
            if not rows:
                break
            if len(batches) == 1 and all(chunk.sample and chunk.count == 1 for chunk in batch):
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
        if not self._cache.ragged:
            self._gap = 0
            return
        self._gap += 1
        if self._gap > _GAP_STEPS and (move := self._cache.close_ranks()) is not None:
            source, target = move
            self._round = []
            next(sequence for sequence in self._running if sequence.slot == source).slot = target

    def _limits(self) -> Limits:
        batch = self._need().shape.n_batch
        return Limits(batch, mixed_budget(batch, self._prefill_pace, max(_STALL_TARGET, self._decode_pace)))

    def _need(self) -> Context:
        assert self._context is not None, "the server admits no generation where there is no context"
        return self._context

    @staticmethod
    def _stalled(sequence: Sequence) -> bool:
        outbox = sequence.outbox
        if sequence.cancelled or not outbox.full:
            return False
        outbox.stalled = True
        # The loop may have emptied it just before it could see the mark.
        return outbox.full

    def _reap(self) -> None:
        """Let cancelled sequences go; what they computed stays parked for a retry."""
        for sequence in [s for s in self._running if s.cancelled]:
            self._leave(sequence, "cancelled")
        if any(sequence.cancelled for sequence in self._waiting):
            for sequence in [s for s in self._waiting if s.cancelled]:
                self._waiting.remove(sequence)
                sequence.sampler.close()

    def _admit(self) -> None:
        """Give slots to waiting sequences, oldest first, as long as the worst case of all fits the cells."""
        if not self._waiting or len(self._running) >= self._slots or (self._tight and self._running):
            return
        self._tight = False
        cells = self._need().n_cells - sum(sequence.worst for sequence in self._running)
        for sequence in list(self._waiting):
            if not self._lanes and self._running and (sequence.exact or self._running[-1].exact):
                break  # They share cells, and sums hang on whose cells lie between one's own.
            if len(self._running) >= self._slots or not self._cache.available() or sequence.worst > cells:
                break
            if not self._shares_soon(sequence):
                self._waiting.remove(sequence)
                cells -= sequence.worst
                self._enter(sequence)

    def _shares_soon(self, sequence: Sequence) -> bool:
        """Whether a running sequence is computing a longer prefix of this one than there is now: worth a few
        steps' wait.
        """
        if not sequence.reuse:
            return False
        now = -1
        for other in self._running:
            if other.computed >= other.prompt_len or other.salt != sequence.salt:
                continue
            shared = min(common_prefix(sequence.tokens, other.tokens), len(sequence.tokens) - 1, other.prompt_len)
            if shared >= MIN_REUSE and shared > other.computed:
                now = self._cache.match(sequence.tokens, sequence.salt) if now < 0 else now
                if shared > now:
                    return True
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
            self._emit(sequence, Event(sequence.choice, started=True, cached=sequence.cached))
        self._round = []
        self._running.append(sequence)
        self._running.sort(key=_arrival)

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
        counters = self._counters
        counters.steps += 1
        counters.busy_seconds += seconds
        counters.last_step = begun + seconds
        counters.mark(begun)
        if tokens == chunks:
            self._decode_pace = seconds
        elif tokens >= chunks + 32:
            pace = seconds / tokens
            self._prefill_pace = pace if not self._prefill_pace else 0.7 * self._prefill_pace + 0.3 * pace

    def _cells_used(self) -> int:
        return self._cache.parked_cells + sum(sequence.computed for sequence in self._running)

    def _advance(self, sequence: Sequence, count: int, row: int) -> None:
        sequence.computed += count
        if count > 1 and sequence.computed <= sequence.prompt_len:
            self._cache.publish(sequence.slot, sequence.tokens[: sequence.computed])
        if row >= 0:
            self._take(sequence, row)

    def _take(self, sequence: Sequence, row: int) -> bool:
        """Draw the next token of `sequence` and act on it; False where its answer is done."""
        context = self._need()
        vocab = context.model.vocab
        token = sequence.sampler.take(context, row, sequence.answered)
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
        if sequence.answered >= sequence.max_answer:
            self._finish(sequence, "length", deltas)
            return False
        if deltas:
            if sequence.outbox.whole:
                sequence.unsent_deltas += deltas
            else:
                self._emit(sequence, self._event(sequence, deltas))
        return True

    def _event(self, sequence: Sequence, deltas: list[Delta]) -> Event:
        event = Event(sequence.choice, deltas, sequence.unsent, sequence.unsent_logprobs)
        sequence.unsent, sequence.unsent_logprobs = [], []
        return event

    def _finish(self, sequence: Sequence, reason: Literal["stop", "length"], deltas: list[Delta] | None = None) -> None:
        last, finish = sequence.machine.finish(reason)
        event = self._event(sequence, sequence.unsent_deltas + (deltas or []) + last)
        event.finish, event.completion, event.cached = finish, sequence.answered, sequence.cached
        event.accepted = sequence.accepted
        self._emit(sequence, event)
        self._leave(sequence, finish)

    def _leave(self, sequence: Sequence, how: str) -> None:
        self._round = []
        self._running.remove(sequence)
        self._tight = False
        if sequence.ahead:
            self._need().cut(sequence.slot, sequence.computed)
            sequence.ahead = 0
        self._cache.park(sequence.slot, sequence.tokens[: sequence.computed])
        sequence.sampler.close()
        self._counters.finished[how] = self._counters.finished.get(how, 0) + 1

    def _emit(self, sequence: Sequence, event: Event) -> None:
        outbox = sequence.outbox
        if not outbox.past(event):
            outbox.sent += 1
            self._events.append((outbox, event))
            if outbox.full:
                self._round = []

    def _flush(self) -> None:
        """Hand the step's events to the loop, all at once."""
        if not self._round:
            counters = self._counters
            counters.running, counters.waiting = len(self._running), len(self._waiting)
            if self._context is not None and not self._asleep:
                counters.cells_used = self._cells_used()
        if self._events:
            events, self._events = self._events, []
            self._post(events)

    # When something does not fit or breaks

    def _preempt(self) -> Sequence:
        """Send the youngest running sequence back to the queue: it will be computed again when there is room."""
        self._round = []
        youngest = max(self._running, key=_arrival)
        if len(self._running) == 1:
            self._fail_all((500, "The KV cache cannot hold this sequence."), [youngest])
            return youngest
        self._running.remove(youngest)
        self._cache.release(youngest.slot)
        youngest.slot, youngest.computed, youngest.single_from = -1, 0, NEVER
        self._waiting.appendleft(youngest)
        self._counters.preemptions += 1
        self._tight = True
        return youngest

    def _recover(self, error: Exception) -> None:
        """A decode broke: nothing in the context can be trusted, so everyone running fails and the cache
        starts afresh.
        """
        self._failures += 1
        log.error("decode failed: %s", error)
        self._fail_all((500, "The engine failed on this batch."), list(self._running))
        context = self._need()
        context.clear()
        self._cache = self._new_cache(context)
        if isinstance(error, Aborted):
            self._stopping = True
        elif self._failures >= _MAX_FAILURES:
            raise error

    def _fail_all(self, error: tuple[int, str], sequences: Many[Sequence]) -> None:
        self._round = []
        for sequence in sequences:
            if sequence in self._running:
                self._running.remove(sequence)
                self._cache.release(sequence.slot)
            elif sequence in self._waiting:
                self._waiting.remove(sequence)
            sequence.sampler.close()
            self._emit(sequence, Event(sequence.choice, error=error))

    def _new_cache(self, context: Context) -> PrefixCache:
        cells, shelf = self._park
        kind = LaneCache if context.shape.lanes else PrefixCache
        return kind(context, context.shape.n_seq, cells, Shelf(shelf), divisible=not context.model.recurrent)


def _nothing() -> None:
    """A command that only wakes the engine."""


def _arrival(sequence: Sequence) -> int:
    return sequence.arrival

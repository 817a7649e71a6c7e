"""The engine's decisions when cells run out or a decode breaks, step by step over a context without a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lumen.workers.llamacpp.chat.output import Delta, OutputMachine, ToolDelta
from lumen.workers.llamacpp.context import DecodeFailed, NoRoom
from lumen.workers.llamacpp.engine import Engine
from lumen.workers.llamacpp.grammar import GrammarError
from lumen.workers.llamacpp.metrics import Counters, render
from lumen.workers.llamacpp.model import LoadError
from lumen.workers.llamacpp.prefix import State
from lumen.workers.llamacpp.scheduler import Chunk
from lumen.workers.llamacpp.sequence import Event, Outbox, Sequence
from lumen.workers.llamacpp.talk import joined

EOG = 9


class Vocab:
    def is_eog(self, token: int) -> bool:
        return token == EOG

    def piece(self, token: int, special: bool = False) -> bytes:
        return b"%d " % token


class Context:
    """KV cells as lists of tokens. It says it has `n_cells`, and has `room`."""

    def __init__(self, n_cells: int, room: int, lanes: bool = False) -> None:
        self.n_cells = n_cells
        self.room = room
        self.shape = SimpleNamespace(n_batch=64, n_seq=8, lanes=lanes)
        self.model = SimpleNamespace(vocab=Vocab(), recurrent=False)
        self.held: dict[int, list[int]] = {slot: [] for slot in range(8)}
        self.failures = 0
        self.batches: list[list[tuple[int, int]]] = []
        self.slots: list[int] = []  # of the last batch
        self.saved = 0

    def decode(self, chunks: list[Chunk]) -> list[int]:
        if self.failures:
            self.failures -= 1
            raise DecodeFailed("broken")
        if sum(map(len, self.held.values())) + sum(chunk.count for chunk in chunks) > self.room:
            raise NoRoom
        self.batches.append([(chunk.start, chunk.count) for chunk in chunks])
        self.slots = [chunk.sequence.slot for chunk in chunks]
        for chunk in chunks:
            assert len(self.held[chunk.sequence.slot]) == chunk.start
            self.held[chunk.sequence.slot] += chunk.sequence.tokens[chunk.start : chunk.start + chunk.count]
        return [i if chunk.sample else -1 for i, chunk in enumerate(chunks)]

    def again(self, tokens: list[int], *, exact: bool = False) -> None:
        if self.failures:
            self.failures -= 1
            raise DecodeFailed("broken")
        if sum(map(len, self.held.values())) + len(tokens) > self.room:
            raise NoRoom
        self.batches.append([(len(self.held[slot]), 1) for slot in self.slots])
        for slot, token in zip(self.slots, tokens, strict=True):
            self.held[slot].append(token)

    def cut(self, slot: int, start: int) -> bool:
        del self.held[slot][start:]
        return True

    def drop(self, slot: int) -> None:
        self.held[slot] = []

    def copy(self, source: int, target: int, end: int) -> bool:
        self.held[target] = self.held[source][:end]
        return True

    def holds(self, slot: int, end: int) -> bool:
        return len(self.held[slot]) >= end

    def size(self, slot: int) -> int:
        return 8 * len(self.held[slot])

    def save(self, slot: int) -> State | None:
        self.saved += 1
        return np.array(self.held[slot], np.int64).view(np.uint8)

    def restore(self, slot: int, state: State) -> bool:
        self.held[slot] = state.view(np.int64).tolist()
        return True

    def clear(self) -> None:
        self.held = {slot: [] for slot in self.held}

    def abort(self) -> None:
        raise AssertionError("nobody asked for this")


class Sampler:
    """Counts up: token number p of the answer is 100 + p."""

    params = SimpleNamespace(logprobs=None)
    grammar = None
    closed = 0

    def take(self, _context: object, _row: int, position: int) -> int:
        return 100 + position

    def close(self) -> None:
        self.closed += 1


class Embedder:
    pending = False

    def step(self) -> None:
        return

    def fail(self) -> None:
        return


class Bench:
    """An engine that is stepped by hand."""

    def __init__(self, context: Context, slots: int = 4, together: float = 0.0) -> None:
        self.events: list[Event] = []
        self.counters = Counters()
        self.died = threading.Event()
        fakes: Any = (context, Embedder())
        post, died = self.post, self.died.set
        self.engine = Engine(fakes[0], slots, (16, 1 << 20), self.counters, post, fakes[1], died, together=together)

    def post(self, events: list[tuple[Outbox, Event]]) -> None:
        for outbox, event in events:
            outbox.took()
            self.events.append(event)

    def sequence(self, choice: int, prompt: list[int], answer: int, limit: int = 100, worst: int = 0) -> Sequence:
        outbox = Outbox(lambda _event: None, self.engine.wake, limit)
        sampler: Any = Sampler()
        machine = OutputMachine(None, ())
        made = Sequence(choice, len(prompt), list(prompt), sampler, machine, outbox, answer)
        self.engine.submit([made])
        return made

    def steps(self, n: int) -> None:
        for _ in range(n):
            self.engine._hear(block=False)
            self.engine._step()

    def finished(self) -> dict[int, str | None]:
        return {event.choice: event.finish for event in self.events if event.finish or event.error}


def prompt(block: int, n: int = 20) -> list[int]:
    return [block * 1000 + i for i in range(n)]


def test_when_nobody_was_left_behind_the_engine_is_not_woken() -> None:
    bench = Bench(Context(100, 100))
    bench.engine.cancel([])
    assert len(bench.engine._orders) == 0


def test_what_the_next_one_would_wait_for_is_copied_once_nobody_runs() -> None:
    context = Context(1000, 1000)
    bench = Bench(context)
    bench.sequence(0, prompt(0), 3)
    bench.steps(8)
    bench.engine._tidy_up()
    assert context.saved == 1
    bench.sequence(1, prompt(1), 3)
    bench.steps(8)
    assert context.saved == 1
    assert bench.finished() == dict.fromkeys(range(2), "length")


def test_admission_counts_the_worst_case() -> None:
    bench = Bench(Context(100, 100))
    for i in range(4):
        bench.sequence(i, prompt(i), 20)
    bench.steps(1)
    assert (bench.counters.running, bench.counters.waiting) == (2, 2)
    bench.steps(60)
    assert bench.finished() == dict.fromkeys(range(4), "length")


def test_answers_that_may_become_long_run_beside_each_other_until_they_are() -> None:
    """Three of 500 cells at most in 1000: all begin, two stay, and who made room comes back for all it may need."""
    bench = Bench(Context(1000, 1000))
    sequences = [bench.sequence(i, prompt(i), 480) for i in range(3)]
    bench.steps(2)
    assert bench.counters.running == 3
    most = 0
    for _ in range(1500):
        bench.steps(1)
        most = max(most, sum(len(sequence.tokens) for sequence in bench.engine._running))
    assert bench.finished() == dict.fromkeys(range(3), "length")
    assert bench.counters.preemptions == 1 and most <= 1003
    for sequence in sequences:
        assert sequence.tokens[20:] == [100 + p for p in range(480)]


def test_when_cells_run_out_the_youngest_is_computed_again_and_everyone_finishes() -> None:
    context = Context(1000, 95)
    bench = Bench(context)
    sequences = [bench.sequence(i, prompt(i), 30) for i in range(4)]
    bench.steps(200)
    assert bench.finished() == dict.fromkeys(range(4), "length")
    assert bench.counters.preemptions > 0
    for sequence in sequences:
        assert sequence.tokens[20:] == [100 + p for p in range(30)]
        texts = [d.content for e in bench.events if e.choice == sequence.choice for d in e.deltas]
        assert texts == [f"{100 + p} " for p in range(30)]
    assert sum(event.started for event in bench.events) == 4


def test_the_lowest_class_makes_room_although_it_came_first() -> None:
    context = Context(1000, 75)
    bench = Bench(context)
    low, *others = [bench.sequence(i, prompt(i), 30) for i in range(3)]
    low.rank = 0
    bench.steps(8)
    assert bench.counters.preemptions == 1
    assert low.slot == -1
    assert all(sequence.slot >= 0 for sequence in others)
    bench.steps(100)
    assert bench.finished() == dict.fromkeys(range(3), "length")
    assert low.tokens[20:] == [100 + p for p in range(30)]


def test_callers_take_turns_whatever_one_of_them_sends() -> None:
    bench = Bench(Context(1000, 1000), slots=1)
    flood = [bench.sequence(i, prompt(i), 3) for i in range(40)]
    for sequence in flood:
        sequence.caller = "flood"
    bench.engine._hear(block=False)
    bench.steps(2)
    other = bench.sequence(99, prompt(99), 3)
    other.caller = "other"
    while not other.ended and 99 not in bench.finished():
        bench.steps(1)
    assert len(bench.finished()) < 25  # a turn is 256 tokens, an answer is charged 23


def test_a_sequence_that_never_fits_fails_alone() -> None:
    bench = Bench(Context(1000, 40))
    bench.sequence(0, prompt(0), 100)
    bench.sequence(1, prompt(1, 10), 5)
    bench.steps(200)
    assert bench.finished()[1] == "length"
    (failed,) = [event for event in bench.events if event.error]
    assert (failed.choice, failed.error and failed.error[0]) == (0, 500)


def test_a_broken_decode_fails_who_runs_and_the_next_request_works() -> None:
    context = Context(1000, 1000)
    bench = Bench(context)
    running = bench.sequence(0, prompt(0), 50)
    bench.steps(3)
    context.failures = 1
    bench.steps(1)
    assert [event.choice for event in bench.events if event.error] == [0]
    assert running.sampler.closed == 1  # type: ignore[attr-defined]
    bench.sequence(1, prompt(0), 3)
    bench.steps(5)
    assert bench.finished()[1] == "length"
    assert bench.events[-1].cached == 0


def test_an_engine_that_keeps_breaking_says_so_and_ends() -> None:
    context = Context(1000, 1000)
    context.failures = 10
    bench = Bench(context)
    sequences = [bench.sequence(i, prompt(i), 5) for i in range(12)]
    bench.engine.start()
    assert bench.died.wait(100)
    assert bench.engine.stop(False, 10)
    assert len([event for event in bench.events if event.error]) == len(sequences)


def test_a_full_outbox_pauses_its_sequence_only() -> None:
    bench = Bench(Context(1000, 1000))
    slow = bench.sequence(0, prompt(0), 50, limit=5)
    bench.post = lambda events: bench.events.extend(event for _outbox, event in events)  # type: ignore[method-assign]
    bench.engine._talk.post = bench.post
    fast = bench.sequence(1, prompt(1), 30)
    bench.steps(40)
    assert slow.outbox.sent == 5
    assert fast.answered == 30
    assert not bench.engine._busy()
    for _ in range(3):
        slow.outbox.took()
    assert bench.engine._busy()
    bench.steps(10)
    assert slow.outbox.sent == 8


def test_while_whoever_runs_is_paused_nobody_looks_at_the_queue_again_and_again() -> None:
    bench = Bench(Context(1000, 1000), slots=1)
    slow = bench.sequence(0, prompt(0), 8, limit=5)
    bench.post = lambda events: bench.events.extend(event for _outbox, event in events)  # type: ignore[method-assign]
    bench.engine._talk.post = bench.post
    next_one = bench.sequence(1, prompt(1), 3)
    bench.steps(20)
    assert slow.outbox.sent == 5
    assert not bench.engine._busy()
    while slow.outbox.taken < slow.outbox.sent:
        slow.outbox.took()
    bench.steps(1)
    assert bench.engine._busy()
    while bench.engine._busy():
        bench.steps(1)
    assert bench.finished() == dict.fromkeys(range(2), "length")
    assert next_one.answered == 3


def test_a_cancelled_sequence_leaves_at_the_next_step_and_its_prefix_stays() -> None:
    bench = Bench(Context(1000, 1000))
    gone = bench.sequence(0, prompt(0), 50)
    bench.steps(4)
    bench.engine.cancel([gone])
    bench.steps(1)
    assert bench.counters.running == 0
    bench.sequence(1, [*prompt(0), 7], 2)
    bench.steps(4)
    assert bench.counters.cached_tokens == 20


def test_requests_that_share_a_prompt_being_computed_wait_for_it() -> None:
    context = Context(4000, 4000)
    bench = Bench(context)
    shared = prompt(0, 200)
    for i in range(4):
        bench.sequence(i, [*shared, 5000 + i], 2)
    bench.steps(12)
    assert bench.finished() == dict.fromkeys(range(4), "length")
    computed = sum(count for batch in context.batches for _start, count in batch)
    assert computed < 250
    assert bench.counters.cached_tokens == 3 * 200


def test_who_waits_for_a_prefix_is_let_in_once_it_is_there_though_its_last_token_came_alone() -> None:
    bench = Bench(Context(4000, 4000))
    bench.sequence(0, prompt(0), 2)
    bench.steps(6)
    first = bench.sequence(1, prompt(0), 50)  # all but its last token is there
    second = bench.sequence(2, [*prompt(0), *prompt(7)], 5)
    bench.steps(4)
    assert first.answered >= 3
    assert second.slot >= 0
    bench.steps(10)
    assert bench.finished()[2] == "length"
    assert first.answered < 50


def test_who_made_room_in_a_decode_is_not_part_of_the_next_one() -> None:
    """Sequences of different adapters are computed one after another in a step."""
    context = Context(1000, 105)
    bench = Bench(context)
    sequences = [bench.sequence(i, prompt(i), 30) for i in range(4)]
    for sequence, adapter in zip(sequences, (1, 2, 1, 2), strict=True):
        sequence.adapter = adapter
    bench.steps(400)
    assert bench.counters.preemptions > 0
    assert bench.finished() == dict.fromkeys(range(4), "length")
    for sequence in sequences:
        assert sequence.tokens[20:] == [100 + p for p in range(30)]


def test_an_exact_answer_that_made_room_is_computed_as_it_was_the_first_time() -> None:
    context = Context(1000, 105, lanes=True)
    bench = Bench(context)
    sequences = [bench.sequence(i, prompt(i), 30) for i in range(3)]
    sequences[-1].exact, sequences[-1].single_from = True, 20
    bench.steps(200)
    assert bench.counters.preemptions > 0
    assert bench.finished() == dict.fromkeys(range(3), "length")
    assert max(count for batch in context.batches for _start, count in batch) == 20


def test_a_round_that_repeats_computes_what_a_planned_one_does() -> None:
    """Whatever interrupts it: someone coming, leaving, being cancelled or stalled, or cells that run out."""
    context = Context(1000, 1000)
    bench = Bench(context)
    first, second = bench.sequence(0, prompt(0), 30), bench.sequence(1, prompt(1), 10)
    bench.steps(6)
    assert context.batches[-1] == [(24, 1), (24, 1)]
    third = bench.sequence(2, prompt(2), 5)
    bench.steps(2)
    bench.engine.cancel([second])
    bench.steps(1)
    context.room = sum(map(len, context.held.values())) + 1
    bench.steps(1)
    context.room = 1000
    bench.steps(60)
    assert bench.finished() == {0: "length", 2: "length"}
    for sequence in (first, third):
        assert sequence.tokens[20:] == [100 + p for p in range(sequence.answered)]
        assert context.held[sequence.slot] == sequence.tokens[:-1] or not context.held[sequence.slot]


def test_in_lanes_a_stream_goes_on_beside_prompts_and_a_gap_is_closed() -> None:
    context = Context(4000, 4000, lanes=True)
    bench = Bench(context, slots=6)
    streams = [bench.sequence(i, prompt(i), 60) for i in range(5)]
    bench.steps(3)
    assert [sequence.slot for sequence in streams] == [0, 1, 2, 3, 4]
    bench.engine.cancel([streams[1]])
    bench.steps(2)
    late = bench.sequence(5, prompt(5, 200), 60)
    bench.steps(1)
    assert late.slot == 1
    single = next(batch for batch in reversed(context.batches) if len(batch) > 1)
    assert [count for _start, count in single] == [1] * 5  # the prompt in the gap gives a token too
    bench.steps(10)
    bench.engine.cancel([streams[0]])
    bench.steps(20)
    assert sorted(sequence.slot for sequence in [*streams[2:], late]) == [0, 1, 2, 3]
    bench.steps(100)
    assert bench.finished() == {i: "length" for i in (2, 3, 4, 5)}
    for sequence in [*streams[2:], late]:
        assert sequence.tokens[sequence.prompt_len :] == [100 + p for p in range(60)]


@pytest.mark.parametrize("now", [0.0, 5.0, 100.0])
def test_metrics_read_as_prometheus_text(now: float) -> None:
    counters = Counters()
    counters.mark(0.0)
    counters.generated_tokens = 50
    counters.finished["stop"] = 2
    text = render(counters, now)
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values["lumen_worker_generated_tokens_total"] == "50"
    assert values['lumen_worker_answers_total{finish="stop"}'] == "2"
    assert float(values["lumen_worker_tokens_per_second"]) == {0.0: 0.0, 5.0: 10.0, 100.0: 0.0}[now]


LONG = 1e9


def said(bench: Bench, choice: int) -> list[str]:
    return ["".join(d.content or "" for d in e.deltas) for e in bench.events if e.choice == choice and not e.started]


def test_tokens_that_come_at_once_are_sent_together_and_the_first_ones_by_themselves() -> None:
    bench = Bench(Context(1000, 1000), together=LONG)
    bench.sequence(0, prompt(0), 6)
    bench.steps(10)
    assert said(bench, 0) == ["100 ", "101 ", "102 103 104 105 "]
    last = bench.events[-1]
    assert last.finish == "length" and last.tokens == [102, 103, 104, 105] and len(last.deltas) == 1


def test_what_waits_for_the_next_tokens_is_sent_before_anything_else_is_begun() -> None:
    bench = Bench(Context(1000, 1000), together=LONG)
    bench.sequence(0, prompt(0), 30)
    bench.steps(5)
    assert said(bench, 0) == ["100 ", "101 "]
    bench.sequence(1, prompt(1), 30)
    seen: list[list[str]] = []
    bench.engine._context.decode = _before(bench.engine._context.decode, lambda: seen.append(said(bench, 0)))  # type: ignore
    bench.steps(1)
    assert seen == [["100 ", "101 ", "102 103 104 "]]
    bench.steps(40)
    assert ["".join(said(bench, i)) for i in range(2)] == ["".join(f"{100 + p} " for p in range(30))] * 2


def test_what_waits_is_sent_before_an_error() -> None:
    bench = Bench(Context(1000, 1000), together=LONG)
    sequence = bench.sequence(0, prompt(0), 30)
    bench.steps(4)
    bench.engine._fail_all((500, "broken"), [sequence])
    bench.engine._flush()
    assert said(bench, 0)[:3] == ["100 ", "101 ", "102 103 "] and bench.events[-1].error == (500, "broken")


def test_where_a_step_takes_longer_nothing_waits() -> None:
    bench = Bench(Context(1000, 1000), together=0.0)
    bench.sequence(0, prompt(0), 4)
    bench.steps(8)
    assert said(bench, 0) == ["100 ", "101 ", "102 ", "103 "]


class Mute(Sampler):
    """After some tokens the grammar refuses all that is left."""

    def take(self, context: object, row: int, position: int) -> int:
        if position == 3:
            raise GrammarError("refused")
        return super().take(context, row, position)


def test_an_answer_that_may_say_nothing_any_more_ends_and_no_other_does() -> None:
    bench = Bench(Context(1000, 1000), together=LONG)
    mute: Any = Mute()
    bench.sequence(0, prompt(0), 10).sampler = mute
    bench.sequence(1, prompt(1), 10)
    bench.steps(30)
    errors = {event.choice: event.error for event in bench.events if event.error}
    assert list(errors) == [0] and errors[0] is not None and errors[0][0] == 500
    assert ["".join(said(bench, i)) for i in range(2)] == ["".join(f"{100 + p} " for p in range(n)) for n in (3, 10)]
    assert mute.closed == 1 and not bench.engine._running
    bench.sequence(2, prompt(2), 2)
    bench.steps(10)
    assert bench.finished()[2] == "length"


def test_what_its_asker_has_given_up_is_not_done_and_breaks_nothing() -> None:
    bench = Bench(Context(1000, 1000))
    asked = [bench.engine.sleep(), bench.engine.rouse(), bench.engine.sleep()]
    assert all(each.cancel() for each in asked)
    bench.sequence(0, prompt(0), 2)
    bench.steps(10)
    assert not bench.engine.asleep and bench.finished() == {0: "length"}


class Piece(str):
    """Text that is too long to be copied again and again."""

    def __add__(self, other: str) -> str:
        raise AssertionError("a piece was added to another")


def test_a_long_answer_is_put_together_once() -> None:
    call = Delta(tool=ToolDelta(0, "a", "b", ""))
    pieces = [Delta(content=Piece(text)) for text in "abcd"]
    assert joined([*pieces, call, call, *pieces[:2]]) == [Delta(content="abcd"), call, call, Delta(content="ab")]
    assert joined([call]) == [call] and joined([]) == []


def test_where_there_is_no_memory_to_wake_who_waits_is_told() -> None:
    class Full(Context):
        def reopen(self) -> None:
            raise LoadError("no memory")

    bench = Bench(Full(1000, 1000))
    bench.engine._asleep = True
    bench.sequence(0, prompt(0), 2)
    bench.steps(2)
    assert [event.error for event in bench.events] == [(503, "The engine cannot wake: no memory.")]
    assert bench.engine.asleep and not bench.engine._waiting


def _before(call: Any, first: Callable[[], None]) -> Any:
    def both(*given: Any) -> Any:
        first()
        return call(*given)

    return both

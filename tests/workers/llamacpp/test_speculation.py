"""Answers with guesses are those without, whatever is guessed and whenever an answer ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence as Many
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lumen.workers.llamacpp.drafter import Drafter
from lumen.workers.llamacpp.engine import Engine
from lumen.workers.llamacpp.prefix import MIN_REUSE
from lumen.workers.llamacpp.rounds import Rounds
from lumen.workers.llamacpp.scheduler import Chunk
from lumen.workers.llamacpp.sequence import Sequence
from lumen.workers.llamacpp.speculator import Speculator
from lumen.workers.llamacpp.wager import Always
from tests.workers.llamacpp import test_engine
from tests.workers.llamacpp.client import Worker, same_or_flat, together


class Context(test_engine.Context):
    """Knows what stands before each row of a batch: all that a model's next token hangs on."""

    before: list[list[int]]
    verified = 0

    def decode(self, chunks: list[Chunk]) -> list[int]:
        rows = super().decode(chunks)
        self.before = [self.held[chunk.sequence.slot][:] for chunk in chunks]
        return rows

    def again(self, tokens: list[int], *, exact: bool = False) -> None:
        super().again(tokens, exact=exact)
        self.before = [self.held[slot][:] for slot in self.slots]

    def verify(self, sequences: Many[Sequence], guesses: Many[list[int]]) -> list[int]:
        self.before, rows = [], []
        for sequence, guess in zip(sequences, guesses, strict=True):
            held = self.held[sequence.slot]
            assert held == sequence.tokens[:-1] and sequence.computed == len(held)
            rows.append(len(self.before))
            for token in [sequence.tokens[-1], *guess]:
                held.append(token)
                self.before.append(held[:])
        self.verified += 1
        return rows


class Sampler(test_engine.Sampler):
    """Draws by what is before, the seed and the position: mostly what followed the last two tokens before."""

    def __init__(self, seed: int, surprises: int, blunders: int = 4) -> None:
        self.seed = seed
        self.blunders = blunders  # one in so many guesses of the draft model is one
        self.surprises = surprises  # one in so many tokens is one

    def take(self, context: object, row: int, position: int) -> int:
        assert isinstance(context, Context)
        before = context.before[row]
        surprise = self._dice(self.seed, position, len(before)) % self.surprises == 0
        drawn = self._dice(self.seed, *before[-2:], *([position] if surprise else [])) % 40
        return drawn if drawn > test_engine.EOG or surprise else 10

    def propose(self, context: object, row: int, position: int) -> int:
        """What a draft model thinks: mostly the same."""
        assert isinstance(context, Context)
        off = self._dice("draft", position, self.seed) % self.blunders == 0
        return 12 if off else self.take(context, row, position)

    @property
    def vocab(self) -> Any:
        return SimpleNamespace(size=50, is_eog=lambda token: token == test_engine.EOG)

    @staticmethod
    def _dice(*numbers: object) -> int:
        return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest())


class Eager(Always):
    """Wagers on every guess."""

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def most(self, sequences: int) -> int:
        return self._depth


def answers(
    prompts: list[list[int]],
    seed: int,
    limit: int,
    depth: int,
    surprises: int = 5,
    draft: Context | None = None,
    room: int = 4000,
    stopped: int = -1,
    together: float = 0.0,
) -> tuple[list[Any], Context, Engine]:
    """What each prompt is answered, in tokens and text; `depth` 0: nothing is guessed. `draft`: a draft model's
    context. `room`: cells there are. The request number `stopped` is cancelled on the way.
    """
    context = Context(4000, room, lanes=room >= 4000)
    bench = test_engine.Bench(context, together=together)
    wager: Any = Eager(depth)
    engine = bench.engine
    if depth:
        fakes: Any = (context, draft)
        drafter = Drafter(fakes[1]) if draft is not None else None
        engine._rounds = Rounds(fakes[0], bench.counters, engine._talk, Speculator(wager, drafter), together)
    sequences = []
    for number, prompt in enumerate(prompts):
        sequence = bench.sequence(number, prompt, limit + number)
        drawing: Any = Sampler(seed + number, surprises)
        sequence.sampler = drawing
        sequences.append(sequence)
    if 0 <= stopped < len(sequences):
        bench.steps(3)
        engine.cancel([sequences.pop(stopped)])
    bench.steps(40 + 3 * limit * len(prompts))
    said = [
        (
            sequence.tokens[sequence.prompt_len :],
            bench.finished()[sequence.choice],
            "".join(d.content or "" for e in bench.events if e.choice == sequence.choice for d in e.deltas),
        )
        for sequence in sequences
    ]
    assert room < 4000 or engine._cache._parked or not any(len(sequence.tokens) > MIN_REUSE for sequence in sequences)
    for slot, (tokens, _salt) in engine._cache._parked.items():  # what is kept for others is what is there
        assert context.held[slot] == tokens
    return said, context, engine


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(10, 14), min_size=4, max_size=30), min_size=1, max_size=4),
    st.integers(0, 1 << 30),
    st.integers(1, 40),
    st.sampled_from([0, 1, 3, 7, 15]),
    st.sampled_from([0.0, 1e9]),
)
def test_answers_are_those_without(
    prompts: list[list[int]], seed: int, limit: int, depth: int, together: float
) -> None:
    plain, _, _ = answers(prompts, seed, limit, 0)
    assert answers(prompts, seed, limit, depth, together=together)[0] == plain


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(10, 14), min_size=4, max_size=60), min_size=1, max_size=4),
    st.integers(0, 1 << 30),
    st.integers(1, 40),
    st.sampled_from([1, 3, 7, 15]),
    st.booleans(),
    st.sampled_from([150, 300, 4000]),
    st.integers(-1, 3),
    st.sampled_from([0.0, 1e9]),
)
def test_answers_are_those_without_a_draft_model(
    prompts: list[list[int]],
    seed: int,
    limit: int,
    depth: int,
    lanes: bool,
    room: int,
    stopped: int,
    together: float,
) -> None:
    plain, _, _ = answers(prompts, seed, limit, 0, room=room, stopped=stopped)
    draft = Context(4000, 4000 if lanes else 300, lanes)
    draft.model.vocab.size = 50
    said, context, engine = answers(
        prompts, seed, limit, depth, draft=draft, room=room, stopped=stopped, together=together
    )
    assert said == plain
    assert room < 4000 or limit < 3 or not said or context.verified > 0
    drafter = engine._rounds._speculator.drafter  # type: ignore[union-attr]
    assert drafter is not None and not drafter.broken
    for lane in drafter._lanes:
        assert draft.held[lane.slot] == lane.tokens and lane.computed == len(lane.tokens)


def test_a_draft_model_reads_on_where_the_same_key_goes_on() -> None:
    draft = Context(4000, 4000, lanes=True)
    draft.model.vocab.size = 50
    fakes: Any = (draft, SimpleNamespace(propose=lambda *_: 12, vocab=SimpleNamespace(size=50, is_eog=lambda _: False)))
    drafter, made = Drafter(fakes[0]), []
    for arrival, (tokens, salt, reuse) in enumerate(
        [([*range(30)], "a", True), ([*range(40)], "a", True), ([*range(50)], "b", True), ([*range(60)], "b", False)], 1
    ):
        outbox: Any = None
        sequence = Sequence(0, len(tokens), tokens, fakes[1], outbox, outbox, 99, salt, reuse=reuse)
        sequence.arrival = arrival
        (offer,) = drafter.offers([sequence], [3])
        assert offer is not None
        made.append(offer.behind)
        assert drafter.guess([offer], 3) == [[12, 12, 12]] and drafter.decodes == 3
    assert made == [30, 10, 50, 60]


def test_a_broken_draft_model_is_left_alone() -> None:
    draft = Context(4000, 4000, lanes=True)
    draft.model.vocab.size = 50
    draft.failures = 1
    plain, _, _ = answers([[10, 11, 12, 13]], 3, 60, 0)
    said, _, engine = answers([[10, 11, 12, 13]], 3, 60, 3, draft=draft)
    drafter = engine._rounds._speculator.drafter  # type: ignore[union-attr]
    assert said == plain and drafter is not None and drafter.broken


def test_guesses_save_decodes() -> None:
    loop = [[10, 11, 12, 13] * 5]
    plain, without, _ = answers(loop, 3, 200, 0, surprises=1000)
    said, context, engine = answers(loop, 3, 200, 3, surprises=1000)
    assert said == plain and context.verified > 3 and engine._counters.accepted_draft_tokens > 5
    assert engine._counters.draft_tokens >= engine._counters.accepted_draft_tokens
    assert len(context.batches) + context.verified < len(without.batches)


# -- a real model ------------------------------------------------------------------------------------------------------

TEXT = "def add(a, b):\n    return a + b\n\n" * 6


def test_a_real_worker_answers_the_same_and_says_what_it_guessed() -> None:
    with Worker("--ctx", "1024", "--speculate", "off") as off, Worker("--ctx", "1024", "--speculate", "on") as on:
        tokens = off.post("/tokenize", prompt=TEXT).body["tokens"]
        looped = (tokens * 8)[:400]
        asked: dict[str, Any] = {"max_tokens": 300, "ignore_eos": True, "temperature": 0, "return_token_ids": True}
        accepted = 0
        for prompt in (looped, tokens, off.post("/tokenize", prompt="What is Lumen?").body["tokens"]):
            one, other = off.complete(prompt, **asked), on.complete(prompt, **asked)
            same_or_flat(off, prompt, one.choice["token_ids"], other.choice["token_ids"])
            details = other.body["usage"].get("completion_tokens_details", {})
            accepted += details.get("accepted_prediction_tokens", 0)
            assert "completion_tokens_details" not in one.body["usage"]
        assert on.metric("accepted_draft_tokens_total") == accepted > 0
        assert on.metric("draft_tokens_total") >= accepted
        assert off.metric("draft_tokens_total") == 0


def test_resumed_grammar_bound_and_watched_answers_stay_right() -> None:
    with Worker("--ctx", "1024", "--speculate", "on") as on:
        body: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True, "temperature": 0, "return_token_ids": True}
        prompt = on.post("/tokenize", prompt="What is Lumen?").body["tokens"]
        whole = on.complete(prompt, **body).choice["token_ids"]
        for cut in (1, 60, 150):
            rest = on.complete(prompt, **body, resume_token_ids=whole[:cut], resume_exact=False).choice["token_ids"]
            same_or_flat(on, prompt, whole, rest if len(rest) == len(whole) else whole[:cut] + rest)
        watched = on.complete(prompt, **body, logprobs=2).choice
        assert len(watched["logprobs"]["tokens"]) == 200
        assert on.metric("accepted_draft_tokens_total") > 0
        schema = {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 30, "maxItems": 30}
        bound = {"type": "json_schema", "json_schema": {"name": "colours", "schema": schema}}
        texts = together(
            *[lambda: on.chat("List colours.", response_format=bound, temperature=0, max_tokens=400).choice] * 3
        )
        for choice in texts:
            assert choice["finish_reason"] == "stop"
            assert set(json.loads(choice["message"]["content"])) <= {"red", "blue"}

"""PURE: which tokens of which sequences the next decode holds.

Every decoding sequence gets its one token first, so no prompt, however long, stalls a running stream. What is
left of the batch is filled with chunks of prompts. Of those the oldest is sure of a quarter (nothing
starves); the rest goes to the prompts with the least left to do, which is what keeps the mean time to a first
token low.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MIN_MIXED = 64
"""Smallest chunk of a prompt beside running streams. ggml's flash attention on CPUs takes 64 rows faster than 16: only
from there on does it work in tiles (measured at 3,000 cells: 64 rows 50 ms, 63 rows 480 ms)."""

EXACT_CHUNK = 128
"""Prompt tokens an exact sequence is given at once: a fixed number, however fast this machine is now."""


class Schedulable(Protocol):
    """What the scheduler sees of a sequence."""

    tokens: list[int]
    computed: int  # how many of `tokens` are in the KV cache
    slot: int
    adapter: int  # 0: none; a decode has one
    exact: bool  # what it is given to compute at once hangs on nothing but itself
    single_from: int  # tokens from this position on are fed one a step, as they were when first generated


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start : start + count` of a sequence; `sample`: the last of them asks for logits."""

    sequence: Schedulable
    start: int
    count: int
    sample: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens of one decode. `mixed`: the share prompts may take while other sequences are being streamed."""

    batch: int
    mixed: int

    def __post_init__(self) -> None:
        if not 1 <= self.mixed <= self.batch:
            raise ValueError("mixed must lie between 1 and batch")


def schedule(sequences: Sequence[Schedulable], limits: Limits) -> list[Chunk]:
    """The next decode for `sequences` (oldest first, each with at least one token not yet computed).

    At most `limits.batch` tokens; where more sequences decode than fit, the first ones go.
    """
    chunks: list[Chunk] = []
    prompts: list[Schedulable] = []
    for sequence in sequences:
        start = sequence.computed
        left = len(sequence.tokens) - start
        if left > 1 and start < sequence.single_from:
            prompts.append(sequence)
        elif len(chunks) < limits.batch:
            chunks.append(Chunk(sequence, start, 1, left == 1))
    if prompts:
        room = limits.batch - len(chunks)
        chunks += _prefill(prompts, min(room, limits.mixed) if chunks else room)
    return chunks


def decodes(sequences: Sequence[Schedulable], limits: Limits, lanes: bool = False) -> Iterator[list[Chunk]]:
    """The decodes of one step: one that all of an adapter share, and one for each exact sequence, which shares none.

    Kernels are chosen by the shape of a batch, and other kernels give other last bits.
    """
    groups: dict[int, list[Schedulable]] = {}
    for sequence in sequences:
        if not sequence.exact:
            groups.setdefault(sequence.adapter, []).append(sequence)
    for shared in groups.values():
        chunks = schedule(shared, limits)
        yield from in_lanes(chunks, shared) if lanes else [chunks]
    for sequence in sequences:
        if sequence.exact:
            left, start = _prompt_left(sequence), sequence.computed
            count = min(left, EXACT_CHUNK, limits.batch) if left > 0 else 1
            yield [Chunk(sequence, start, count, start + count == len(sequence.tokens))]


def _prefill(prompts: list[Schedulable], budget: int) -> list[Chunk]:
    """Chunks of `prompts` (oldest first) that sum to at most `budget` tokens."""
    if budget <= 0:
        return []
    lefts = [_prompt_left(prompt) for prompt in prompts]
    shares = [0] * len(prompts)
    shares[0] = min(lefts[0], -(-budget // 4))
    budget -= shares[0]
    for i in sorted(range(len(prompts)), key=lambda i: lefts[i]):
        extra = min(lefts[i] - shares[i], budget)
        shares[i] += extra
        budget -= extra
    chunks = []
    for prompt, share in zip(prompts, shares, strict=True):
        if share:
            start = prompt.computed
            chunks.append(Chunk(prompt, start, share, start + share == len(prompt.tokens)))
    return chunks


def in_lanes(chunks: Sequence[Chunk], ready: Sequence[Schedulable]) -> list[list[Chunk]]:
    """`chunks` (of the sequences `ready`) as batches for a context where each sequence has a lane of its own.

    One for all single tokens, the lanes in order; prompts that lie between them give one token too, so that no gap cuts
    that batch in two. Then one for each prompt: beside others it would be computed in pieces of what all have in
    common.
    """
    singles = [chunk for chunk in chunks if chunk.count == 1]
    longs = {id(chunk.sequence): chunk for chunk in chunks if chunk.count > 1}
    if len(singles) > 1:
        lanes = [chunk.sequence.slot for chunk in singles]
        first, last = min(lanes), max(lanes)
        taken = {id(chunk.sequence) for chunk in singles}
        for sequence in ready:
            if first < sequence.slot < last and id(sequence) not in taken and _prompt_left(sequence) > 1:
                start = sequence.computed
                singles.append(Chunk(sequence, start, 1, False))
                long = longs.get(id(sequence))
                if long is not None:
                    longs[id(sequence)] = _rest(long)
        singles.sort(key=_lane)
    return ([singles] if singles else []) + [[chunk] for chunk in longs.values()]


def _rest(chunk: Chunk) -> Chunk:
    """The chunk that follows the first token of `chunk`, of the same length where the prompt is that long."""
    sequence, start = chunk.sequence, chunk.start + 1
    count = min(chunk.count, _prompt_left(sequence) - 1)
    return Chunk(sequence, start, count, start + count == len(sequence.tokens))


def _lane(chunk: Chunk) -> int:
    return chunk.sequence.slot


def _prompt_left(sequence: Schedulable) -> int:
    return min(len(sequence.tokens), sequence.single_from) - sequence.computed


def mixed_budget(batch: int, seconds_per_token: float, target: float) -> int:
    """How many prompt tokens may ride with running streams so that a step grows by about `target` seconds."""
    if seconds_per_token <= 0:
        return batch
    return max(min(batch, MIN_MIXED), min(batch, int(target / seconds_per_token)))

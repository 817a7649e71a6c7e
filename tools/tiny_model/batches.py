"""Turn dialogues into fixed-length rows of token ids, positions and loss weights."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from .tokenizer import END_OF_TEXT, TURN_END, TURN_START

PROMPT_SHARE, PROMPT_WEIGHT = 0.25, 0.4
"""Of the text that the model only reads, a drawn share is predicted, at a small weight: capacity goes to its
answers, and positions without weight cost no output layer."""


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, each with the weight (0 to 1) of predicting it."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of shape (rows, length)."""

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    positions: Tensor


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Document]:
    """Tokenise rendered dialogues and plain texts; each ends with the end-of-text token."""
    markers = _Markers(tokenizer)
    encoded = tokenizer.encode_batch_fast([text + END_OF_TEXT for text in texts])
    rng = np.random.default_rng(len(encoded))
    return [_document(np.array(item.ids, dtype=np.int64), markers, rng) for item in encoded]


def drills(tokenizer: Tokenizer, count: int, seed: int) -> list[Document]:
    """Random tokens, each sequence followed by one or two copies of itself; only the copies carry loss.

    They keep the copying circuit of initial.py alive while the weights around it settle.
    """
    rng = np.random.default_rng(seed)
    end = np.array([tokenizer.token_to_id(END_OF_TEXT)])
    made: list[Document] = []
    for _ in range(count):
        parts, weights = list[NDArray[np.int64]](), list[NDArray[np.float32]]()
        for _ in range(rng.integers(2, 6)):
            sequence = rng.integers(len(end), tokenizer.get_vocab_size(), size=rng.integers(3, 24))
            copies = rng.integers(1, 3)
            parts.append(np.tile(sequence, copies + 1))
            weights.append(np.ones(len(parts[-1]), dtype=np.float32))
            weights[-1][: len(sequence)] = 0
        made.append(Document(np.concatenate([*parts, end]), np.concatenate([*weights, np.zeros(1, np.float32)])))
    return made


class _Markers:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.start = tokenizer.token_to_id(TURN_START)
        self.end = tokenizer.token_to_id(TURN_END)
        self.answer = tokenizer.encode(f"{TURN_START}assistant\n").ids


def _document(ids: NDArray[np.int64], markers: _Markers, rng: np.random.Generator) -> Document:
    """Full weight for assistant turns with their end token, and for text without any turns."""
    if markers.start not in ids:
        return Document(ids, np.ones(len(ids), dtype=np.float32))
    weights = ((rng.random(len(ids)) < PROMPT_SHARE) * PROMPT_WEIGHT).astype(np.float32)
    lead = len(markers.answer)
    for start in np.flatnonzero(ids == markers.start):
        if ids[start : start + lead].tolist() == markers.answer:
            end = start + int(np.argmax(ids[start:] == markers.end))
            weights[start + lead : end + 1] = 1.0
    return Document(ids, weights)


def rows(documents: Sequence[Document], length: int, rng: random.Random) -> list[Document]:
    """Pack whole documents, in random order, into rows of `length` + 1 tokens; the last one of a row is cut.

    Every row begins at the beginning of a document, as every prompt does when the model serves.
    """
    order = list(documents)
    rng.shuffle(order)
    packed: list[Document] = []
    ids: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float32]] = []
    filled = 0
    for document in order:
        ids.append(document.ids)
        weights.append(document.weights)
        filled += len(document.ids)
        if filled > length:
            packed.append(
                Document(np.concatenate(ids)[: length + 1], np.concatenate(weights)[: length + 1]),
            )
            ids, weights, filled = [], [], 0
    return packed


def batches(
    documents: Sequence[Document], length: int, tokens: int, context: int, rng: random.Random
) -> Iterator[Batch]:
    """Endless batches of about `tokens` tokens, reshuffled and repacked after each pass."""
    per_batch = max(1, tokens // length)
    while True:
        packed = rows(documents, length, rng)
        if len(packed) < per_batch:
            raise ValueError(f"{len(packed)} rows of {length} tokens do not fill one batch of {per_batch}")
        for start in range(0, len(packed) - per_batch + 1, per_batch):
            yield _batch(packed[start : start + per_batch], length, context, rng)


def _batch(packed: Sequence[Document], length: int, context: int, rng: random.Random) -> Batch:
    ids = torch.from_numpy(np.stack([row.ids for row in packed]))
    weights = torch.from_numpy(np.stack([row.weights for row in packed]))
    positions = torch.stack([_positions(length, context, rng) for _ in packed])
    return Batch(ids[:, :-1], ids[:, 1:], weights[:, 1:], positions)


def _positions(length: int, context: int, rng: random.Random) -> Tensor:
    """Positions 0..length-1, in a third of the rows with one skip ahead, so that long distances are seen too.

    Source: "PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training" (2023).
    """
    positions = torch.arange(length)
    if rng.random() < 1 / 3:
        positions[rng.randrange(1, length) :] += rng.randrange(context - length)
    return positions

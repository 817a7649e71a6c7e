"""A `llama_batch` and how sequences are laid out in it, row by row."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from collections.abc import Sequence as Many
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen.workers.llamacpp.binding import lib
from lumen.workers.llamacpp.scheduler import Chunk, Schedulable


class Batch:
    """A `llama_batch` over numpy arrays, so that whole columns are written at once. Rows: `capacity`."""

    def __init__(self, capacity: int) -> None:
        self.tokens = np.zeros(capacity, np.int32)
        self.positions = np.zeros(capacity, np.int32)
        self.sequences = np.zeros(capacity, np.int32)
        self.wanted = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        # Single numbers are set through these: numpy is only quicker from some tens of rows on.
        self._token, self._position = memoryview(self.tokens), memoryview(self.positions)  # type: ignore[arg-type]
        # Row i belongs to exactly one sequence: entry i of this table points at entry i of `sequences`.
        step = self.sequences.itemsize
        self._table = self.sequences.ctypes.data + step * np.arange(capacity + 1, dtype=np.uint64)
        self.struct = lib.llama_batch()
        self.struct.token = address_of(self.tokens, ctypes.c_int32)
        self.struct.pos = address_of(self.positions, ctypes.c_int32)
        self.struct.n_seq_id = address_of(self._ones, ctypes.c_int32)
        self.struct.seq_id = ctypes.cast(self._table.ctypes.data, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        self.struct.logits = address_of(self.wanted, ctypes.c_int8)

    def fill(self, chunks: Iterable[Chunk]) -> list[int]:
        """Lay `chunks` out row by row; returns the row that carries each chunk's logits (-1: none wanted)."""
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        rows: list[int] = []
        for chunk in chunks:
            sequence = chunk.sequence
            start, count = chunk.start, chunk.count
            if count == 1:
                tokens.append(sequence.tokens[start])
                positions.append(start)
                sequences.append(sequence.slot)
            else:
                tokens += sequence.tokens[start : start + count]
                positions += range(start, start + count)
                sequences += [sequence.slot] * count
            rows.append(len(tokens) - 1 if chunk.sample else -1)
        n = len(tokens)
        self.tokens[:n] = tokens
        self.positions[:n] = positions
        self.sequences[:n] = sequences
        self.wanted[:n] = 0
        self.wanted[[row for row in rows if row >= 0]] = 1
        self.struct.n_tokens = n
        return rows

    def advance(self, tokens: Many[int]) -> None:
        """Move each of the first rows to its next token, one position further on."""
        token, position = self._token, self._position
        for row, one in enumerate(tokens):
            token[row] = one
            position[row] += 1

    def retreat(self, rows: int) -> None:
        """Take `advance` back, but for the tokens."""
        self.positions[:rows] -= 1

    def fill_guesses(self, sequences: Many[Schedulable], guesses: Many[list[int]]) -> list[int]:
        """Lay out the last token of each sequence and its guess, all rows with logits; returns the first of each."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        rows: list[int] = []
        for sequence, guess in zip(sequences, guesses, strict=True):
            rows.append(len(tokens))
            tokens.append(sequence.tokens[-1])
            tokens += guess
            count = 1 + len(guess)
            positions += range(sequence.computed, sequence.computed + count)
            slots += [sequence.slot] * count
        n = len(tokens)
        self.tokens[:n] = tokens
        self.positions[:n] = positions
        self.sequences[:n] = slots
        self.wanted[:n] = 1
        self.struct.n_tokens = n
        return rows


def address_of(array: NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))

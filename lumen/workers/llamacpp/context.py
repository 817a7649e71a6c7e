"""A llama.cpp context. One thread owns it; nothing here is thread-safe."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumen.workers.llamacpp.batch import Batch, address_of
from lumen.workers.llamacpp.binding import lib, quick
from lumen.workers.llamacpp.model import LoadError, Model
from lumen.workers.llamacpp.scheduler import Chunk, Schedulable
from lumen.workers.llamacpp.team import Team
from lumen.workers.llamacpp.threads import Tuner

_FLASH = {"auto": -1, "off": 0, "on": 1}
_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}

_logits_at = quick("llama_get_logits_ith", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data

Floats = NDArray[np.float32]
State = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a context is made; sizes in tokens. `outputs`: rows of one batch that may ask for logits.

    `lanes`: each sequence has cells of its own, `n_ctx / n_seq` of them, and attends over nobody else's; else all share
    all `n_ctx`.
    """

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq: int
    threads: int
    outputs: int
    flash_attn: str = "auto"
    kv_type: str = "f16"
    embeddings: bool = False
    lanes: bool = False
    tune: bool = False  # find out how many of the threads are best; the numbers must not hang on it


_ONE_THREAD = 0.004
"""Seconds: a decode shorter than this on one thread is not spread over more, to begin with where that is tuned and they
were no quicker when that was measured. Their meeting after every operation may cost more than it gains, and takes the
cores that the HTTP loop and the client need.
"""


_PAUSE = 0.001
"""Seconds after which threads may have gone to sleep."""

_ONE_THREAD_BYTES = 40 << 20
"""The same for exact sequences, by the weights a decode reads times its tokens: flash attention is summed in as many
parts as there are threads, so how fast this machine was when it was measured must not matter."""


class NoRoom(Exception):
    """No KV cells for this batch; the context stands as before."""


class Aborted(Exception):
    """The abort flag stopped a decode; of the sequences of its batch some cells may be there and some not."""


class DecodeFailed(Exception):
    """llama.cpp refused or broke on a batch; the context's memory is in an unknown state."""


class Context:
    """KV cells and compute buffers over one model."""

    def __init__(self, model: Model, shape: Shape) -> None:
        """Raises `LoadError` where llama.cpp cannot make the context (most often: not enough memory)."""
        self.model = model
        self.shape = shape
        self._flag = ctypes.create_string_buffer(2)
        self._pointer: int | None = None
        self.memory: int | None = None
        self._team: Team | None = None
        self._threads = 0
        self.reopen()
        self.n_cells: int = lib.llama_n_ctx(self.pointer)
        self.batch = Batch(shape.n_batch)
        self._weight: int = lib.llama_model_size(model.pointer)
        self._remote: bool = lib.llama_supports_gpu_offload()
        self._ended = 0.0  # when the last decode did
        self._unit = 0.0  # seconds of a one-token decode on one thread; 0: not measured
        self._tuner: Tuner | None = None
        self._candidates: NDArray[np.void] | None = None
        self._views: dict[int, Floats] = {}  # by address: rows of llama.cpp's output buffer

    def reopen(self) -> None:
        """Have cells and buffers, empty ones, after `close`. Raises `LoadError`."""
        pointer = lib.llama_init_from_model(self.model.pointer, self._params(self.shape))
        if not pointer:
            raise LoadError(f"llama.cpp cannot make a context of {self.shape.n_ctx} tokens for this model")
        self._pointer, self.memory, self._worn = pointer, lib.llama_get_memory(pointer), 0
        self._team = Team(pointer, self.shape.threads)
        self._threads = 0
        self._set_threads(self.shape.threads)

    def _params(self, shape: Shape) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = shape.n_ctx, shape.n_batch, shape.n_ubatch
        params.n_seq_max, params.n_outputs_max = shape.n_seq, shape.outputs
        params.n_threads = params.n_threads_batch = shape.threads
        params.flash_attn_type = _FLASH[shape.flash_attn]
        params.type_k = params.type_v = _TYPES[shape.kv_type]
        params.embeddings = shape.embeddings
        params.pooling_type = 0 if shape.embeddings else -1
        params.kv_unified = not shape.lanes
        params.swa_full = False
        params.no_perf = True
        # The flag is asked for after every graph node. A Python callback there would take the interpreter's
        # lock thousands of times a second; libc's strlen answers the same question ("is the first byte of
        # this buffer zero?") without touching Python.
        params.abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, type(params.abort_callback))
        params.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        return params

    @property
    def pointer(self) -> int:
        if self._pointer is None:
            raise LoadError("the context is closed")
        return self._pointer

    def abort(self) -> None:
        """Stop the running decode, and every later one. Safe to call from any thread."""
        self._flag[0] = b"\x01"

    def decode(self, chunks: Iterable[Chunk]) -> list[int]:
        """Decode `chunks`, all of one adapter; returns the batch row of each chunk's logits.

        Raises `NoRoom`, `Aborted`, `DecodeFailed`.
        """
        chunks = list(chunks)
        rows = self.batch.fill(chunks)
        if chunks:
            self._wear(chunks[0].sequence.adapter)
        self._run(exact=bool(chunks) and chunks[0].sequence.exact)
        return rows

    def again(self, tokens: list[int], *, exact: bool = False) -> None:
        """Decode the last batch of `decode` once more, each row with its next token, one position further on.

        Only where it was one token a sequence, all with logits. Raises as `decode` does.
        """
        self.batch.advance(tokens)
        try:
            self._run(exact)
        except NoRoom:
            self.batch.retreat(len(tokens))
            raise

    def verify(self, sequences: Many[Schedulable], guesses: Many[list[int]]) -> list[int]:
        """Decode the last token of each of `sequences` and a guess of what follows it, all rows with logits.

        Returns the row of each one's last token; those of its guess come behind it. Raises as `decode` does.
        """
        rows = self.batch.fill_guesses(sequences, guesses)
        self._wear(sequences[0].adapter)
        self._run()
        return rows

    def _wear(self, adapter: int) -> None:
        """Compute with this adapter of the model (0: none) from now on."""
        if adapter == self._worn:
            return
        pointers = (lib.llama_adapter_lora_p_ctypes * 1)(self.model.adapters[adapter - 1]) if adapter else None
        scales = (ctypes.c_float * 1)(1.0) if adapter else None
        if lib.llama_set_adapters_lora(self.pointer, pointers, 1 if adapter else 0, scales) != 0:
            raise DecodeFailed("llama.cpp did not take the adapter")
        self._worn = adapter

    def measure(self, chunk: Chunk) -> None:
        """Decode `chunk` (one token) and learn from it when one thread will do. Warms everything up on the way."""
        self.decode([chunk])
        alone = self._quickest(chunk, 1)
        if self.shape.tune:
            short = _ONE_THREAD
            if alone < short and self._quickest(chunk, self.shape.threads) < alone:
                short = 0.0  # even the shortest are quicker on all
            self._tuner = Tuner(self.shape.threads, alone, short)
        self._unit = alone

    def _quickest(self, chunk: Chunk, threads: int) -> float:
        """Seconds of the shortest of a few decodes of `chunk`."""
        self._set_threads(threads)
        best, begun = float("inf"), time.perf_counter()
        for _ in range(3):
            self.cut(chunk.sequence.slot, chunk.start)
            before = time.perf_counter()
            self.decode([chunk])
            best = min(best, time.perf_counter() - before)
            if time.perf_counter() - begun > 0.1:
                break
        return best

    def _set_threads(self, threads: int) -> None:
        if threads != self._threads:
            self._threads = threads
            lib.llama_set_n_threads(self.pointer, threads, threads)
            if self._team is not None:
                self._team.use(threads > 1)

    def _run(self, exact: bool = False) -> None:
        n: int = self.batch.struct.n_tokens
        tuner, begun = None if exact else self._tuner, time.monotonic()
        if tuner is not None:
            self._set_threads(tuner.choose(n, begun))
        elif self._unit:
            small = n * self._weight < _ONE_THREAD_BYTES if exact else n * self._unit < _ONE_THREAD
            self._set_threads(1 if small else self.shape.threads)
        if begun - self._ended > _PAUSE and self._team is not None:
            self._team.call()
        code: int = lib.llama_decode(self.pointer, self.batch.struct)
        if code == 1:
            raise NoRoom
        if code == 2:
            raise Aborted
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code}")
        if self._remote:  # a GPU may still be at work: wait here, without the interpreter's lock
            lib.llama_synchronize(self.pointer)
        self._ended = now = time.monotonic()
        if tuner is not None:
            tuner.learn(n, now - begun, now)

    def logits(self, row: int) -> Floats:
        """The logits of one batch row: a view, shape [vocabulary], good until the next decode."""
        address: int | None = _logits_at(self._pointer, row)
        if address is None:
            raise DecodeFailed(f"row {row} of the batch has no logits")
        view = self._views.get(address)
        if view is None:
            if len(self._views) > 2 * self.shape.outputs:  # llama.cpp has moved its buffer
                self._views.clear()
            row_of_logits: Any = (ctypes.c_float * self.model.vocab.size).from_address(address)
            view = self._views[address] = np.frombuffer(row_of_logits, np.float32)
        return view

    def candidates(self, row: int) -> NDArray[np.void]:
        """A `llama_token_data` a token of the vocabulary with the logits of batch row `row`; overwritten by
        the next call.
        """
        if self._candidates is None:
            self._ids = np.arange(self.model.vocab.size, dtype=np.int32)
            self._candidates = np.zeros(self.model.vocab.size, _CANDIDATE)
        self._candidates["id"] = self._ids
        self._candidates["logit"] = self.logits(row)
        return self._candidates

    def decode_all(self, chunk: Chunk) -> None:
        """Decode one chunk with an output at every row, for `embeddings`. Raises as `decode` does."""
        self.batch.fill([chunk])
        self.batch.wanted[: chunk.count] = 1
        self._run()

    def embeddings(self, count: int) -> Floats:
        """Hidden states of the last `decode_all`: a view, shape [count, n_embd], good until the next decode."""
        return np.ctypeslib.as_array(lib.llama_get_embeddings(self.pointer), (count, self.model.n_embd))

    # KV memory. A context without memory (an encoder) has nothing to keep, so every call does nothing there.

    def cut(self, slot: int, start: int) -> bool:
        """Drop what `slot` holds from position `start` on. False: this model cannot be cut there (nothing
        changed).
        """
        return self.memory is None or bool(lib.llama_memory_seq_rm(self.memory, slot, start, -1))

    def drop(self, slot: int) -> None:
        """Drop everything `slot` holds."""
        if self.memory is not None:
            lib.llama_memory_seq_rm(self.memory, slot, -1, -1)

    def copy(self, source: int, target: int, end: int) -> bool:
        """Give `target`, which is empty, the first `end` positions of `source`; False where that cannot be done."""
        if self.memory is None:
            return False
        if not self.shape.lanes:  # they share the cells
            lib.llama_memory_seq_cp(self.memory, source, target, 0, end)
            return True
        # llama.cpp's own copy moves all cells of a lane, used or not, and then reserves its graphs anew.
        state = self.save(source)
        there = state is not None and self.restore(target, state) and self.cut(target, end)
        return there and self.holds(target, end)  # of sliding windows only what the end looks back at is saved

    def holds(self, slot: int, end: int) -> bool:
        """Whether `slot` still holds all that attention at position `end` looks back at (sliding windows
        forget).
        """
        if self.memory is None or self.model.n_swa == 0:
            return self.memory is not None
        oldest: int = lib.llama_memory_seq_pos_min(self.memory, slot)
        return 0 <= oldest <= max(0, end - self.model.n_swa)

    def size(self, slot: int) -> int:
        """Bytes of what `save` gives, about."""
        return int(lib.llama_state_seq_get_size(self.pointer, slot))

    def save(self, slot: int) -> State | None:
        """A copy of the cells of `slot`, in host memory; None where there is nothing to save."""
        if self.memory is None:
            return None
        size: int = lib.llama_state_seq_get_size(self.pointer, slot)
        state = np.empty(size, np.uint8)
        done: int = lib.llama_state_seq_get_data(self.pointer, address_of(state, ctypes.c_uint8), size, slot)
        return state if done == size > 0 else None

    def restore(self, slot: int, state: State) -> bool:
        """Put a saved copy into `slot`, which is empty; False where there is no room for it."""
        done: int = lib.llama_state_seq_set_data(self.pointer, address_of(state, ctypes.c_uint8), state.nbytes, slot)
        return done == state.nbytes

    def clear(self) -> None:
        """Forget everything."""
        if self.memory is not None:
            lib.llama_memory_clear(self.memory, False)

    def close(self) -> None:
        if self._team is not None:
            self._team.close()
            self._team = None
        if self._pointer is not None:
            lib.llama_free(self._pointer)
            self._pointer = self.memory = None

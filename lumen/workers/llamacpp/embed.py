"""Embeddings: a second context over the same weights, made when the first request comes.

It asks for the hidden state of every token (no pooling in the graph) and pools here, so that an input may be
longer than one batch; models that attend both ways must still see it whole, so their batch is as long as
their context.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lumen.workers.llamacpp.context import Context, DecodeFailed, Floats, NoRoom, Shape
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.model import LoadError, Model
from lumen.workers.llamacpp.scheduler import Chunk

log = logging.getLogger("lumen.worker.embed")

_MAX_FAILURES = 3
"""Decodes that fail one after another before the engine is given up."""

_POOLING = {"1": "mean", "2": "cls", "3": "last"}


@dataclass(slots=True, eq=False)
class EmbedJob:
    """Inputs of one request. `done` is called once, on the engine thread, with vectors (one an input) or an
    error text.
    """

    inputs: list[list[int]]
    done: Callable[[list[Floats] | str], None]
    vectors: list[Floats] = field(default_factory=list)
    cancelled: bool = False


@dataclass(slots=True, eq=False)
class _Input:
    """One input while it is computed; what the scheduler's `Schedulable` asks for."""

    tokens: list[int]
    computed: int = 0
    slot: int = 0
    adapter: int = 0
    exact: bool = False
    single_from: int = 1 << 62


def pooling_of(model: Model, wanted: str) -> str:
    """`wanted`, or where that is "auto" what the model's metadata say, or the mean (as for a plain decoder
    model).
    """
    if wanted != "auto":
        return wanted
    return _POOLING.get(model.arch_meta("pooling_type") or "", "mean")


def normalise(vector: Floats, dimensions: int | None) -> Floats:
    """The first `dimensions` entries of `vector` (shape [n_embd]), scaled to length one."""
    cut = vector[:dimensions].astype(np.float32)
    length = float(np.linalg.norm(cut))
    return cut / length if length > 0 else cut


class Embedder:
    """Owned by the engine thread, which runs one batch a `step`; `submit` may be called from any thread."""

    def __init__(self, model: Model, pooling: str, n_ctx: int, batch: int, threads: int, counters: Counters) -> None:
        self.pooling = pooling
        self.n_ctx = n_ctx
        self._model = model
        causal = model.arch_meta("attention.causal") != "false"
        self._batch = min(batch, n_ctx) if causal else n_ctx
        self._threads = threads
        self._counters = counters
        self._context: Context | None = None
        self._jobs: deque[EmbedJob] = deque()
        self._lock = threading.Lock()
        self._input: _Input | None = None
        self._sum: Floats | None = None
        self._failures = 0

    @property
    def pending(self) -> bool:
        return bool(self._jobs)

    def submit(self, job: EmbedJob) -> None:
        """Queue `job`; wake the engine afterwards."""
        with self._lock:
            self._jobs.append(job)

    def begun(self, job: EmbedJob) -> bool:
        """Whether it is its turn, or was; for a job that was not cancelled. From any thread."""
        with self._lock:
            return not self._jobs or self._jobs[0] is job or job not in self._jobs

    def fail(self) -> None:
        """The engine ends: every job hears so."""
        with self._lock:
            jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            job.done("The worker is shutting down.")

    def step(self) -> None:
        """Compute one batch of the oldest job, if there is one."""
        if not self._jobs:
            return
        job = self._jobs[0]
        try:
            if not job.cancelled:
                self._compute(job)
        except (LoadError, NoRoom, DecodeFailed) as error:
            self._refuse(job, error)
            self._survive(error)
            return
        except Exception as error:
            self._refuse(job, error)
            raise
        self._failures = 0
        if job.cancelled or len(job.vectors) == len(job.inputs):
            self._input = None
            self._drop(job)
            job.done(job.vectors)

    def _refuse(self, job: EmbedJob, error: Exception) -> None:
        log.error("an input could not be embedded: %s", error)
        self._input = None
        self._drop(job)
        job.done(f"The engine could not embed this input ({type(error).__name__}).")

    def _survive(self, error: LoadError | NoRoom | DecodeFailed) -> None:
        """Answers that run beside have no part in it: the next input gets a context of its own. Raises `error` where
        that did not help.
        """
        if isinstance(error, LoadError):  # most often there is no memory for one; what runs has its own
            return
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise error
        self.close()

    def _drop(self, job: EmbedJob) -> None:
        with self._lock:
            self._jobs.remove(job)

    def _compute(self, job: EmbedJob) -> None:
        context = self._context or self._open()
        if self._input is None:
            context.clear()
            self._input, self._sum = _Input(job.inputs[len(job.vectors)]), None
        current = self._input
        count = min(self._batch, len(current.tokens) - current.computed)
        context.decode_all(Chunk(current, current.computed, count, True))
        self._pool(context, current, count)
        current.computed += count
        self._counters.embedded_tokens += count
        if current.computed == len(current.tokens) and self._sum is not None:
            job.vectors.append(self._sum)
            self._input = None

    def _pool(self, context: Context, current: _Input, count: int) -> None:
        if self.pooling == "mean":
            part = context.embeddings(count).sum(axis=0, dtype=np.float32)
            self._sum = part if self._sum is None else self._sum + part
        elif self.pooling == "last":
            self._sum = context.embeddings(count)[-1].copy()
        elif current.computed == 0:
            self._sum = context.embeddings(count)[0].copy()

    def _open(self) -> Context:
        shape = Shape(
            n_ctx=self.n_ctx,
            n_batch=self._batch,
            n_ubatch=self._batch,
            n_seq=1,
            threads=self._threads,
            outputs=self._batch,
            embeddings=True,
        )
        self._context = Context(self._model, shape)
        return self._context

    def close(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

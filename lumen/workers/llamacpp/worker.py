"""The composition of one worker: model, contexts, engine, and what turns requests into sequences."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from lumen.workers.llamacpp import adapters
from lumen.workers.llamacpp.adapters import Names
from lumen.workers.llamacpp.chat.template import ChatTemplate, TemplateError
from lumen.workers.llamacpp.context import Context, Shape
from lumen.workers.llamacpp.drafter import Drafter
from lumen.workers.llamacpp.drafting import BATCH, load_draft, make_drafter, rewinds, share
from lumen.workers.llamacpp.embed import Embedder, pooling_of
from lumen.workers.llamacpp.engine import Engine
from lumen.workers.llamacpp.keeper import Keeper
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.model import LoadError, Model
from lumen.workers.llamacpp.prepare import Preparer
from lumen.workers.llamacpp.scheduler import Chunk
from lumen.workers.llamacpp.sequence import NEVER
from lumen.workers.llamacpp.settings import Settings
from lumen.workers.llamacpp.snapshots import Snapshots, model_digest
from lumen.workers.llamacpp.speculator import Speculator
from lumen.workers.llamacpp.talk import Post
from lumen.workers.llamacpp.wager import ROWS, Always, Wager

Phase = Callable[..., None]

_DEFAULT_CTX = 8192
_DEFAULT_KV = 32768
_SCORES_LIMIT = 256 << 20  # bytes
_CPU_UBATCH = 128
_PARKED_SLOTS = 32
"""KV sequence ids beyond the running ones, for parked prefixes."""


class Worker:
    """Everything behind the HTTP server. Make it with `load`, then `start`; `close` frees the model."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        context: Context | None,
        threads: int,
        n_ctx: int,
        names: Names,
        drafter: Drafter | None = None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.names = names
        self.counters = Counters()
        self.n_ctx = n_ctx
        self.template = _template(model)
        self.preparer = Preparer(model.vocab, self.template, n_ctx)
        self.embedder = Embedder(
            model, pooling_of(model, settings.pooling), n_ctx, settings.batch, threads, self.counters
        )
        self.engine: Engine | None = None
        self._context = context
        self._drafter = drafter

    @property
    def generates(self) -> bool:
        """Whether this worker answers chats and completions (else embeddings only)."""
        return self._context is not None

    def start(self, post: Post, on_death: Callable[[], None]) -> Engine:
        """Start the engine thread."""
        context = self._context
        park = (self.settings.park, self.settings.shelf_mb << 20)
        speculator = _speculator(self.settings, self.model, self._drafter)
        self.engine = Engine(
            context,
            self.settings.slots,
            park,
            self.counters,
            post,
            self.embedder,
            on_death,
            speculator,
            self._keeper(),
            self.settings.together,
        )
        self.engine.start()
        return self.engine

    def _keeper(self) -> Keeper | None:
        settings, context = self.settings, self._context
        if context is None or settings.kv_dir is None or not settings.kv_disk_mb:
            return None
        made = partial(_fingerprint, settings, self.model, context.shape)
        snapshots = Snapshots(settings.kv_dir, settings.name, settings.kv_disk_mb << 20, made)
        return Keeper(snapshots, self.counters)

    def props(self) -> dict[str, Any]:
        """What this worker is and can do."""
        chat = self.generates and self.template is not None
        return {
            "name": self.settings.name,
            "family": self.template.family.name if self.template is not None else None,
            "architecture": self.model.meta("general.architecture"),
            "n_ctx": self.n_ctx,
            "n_ctx_train": self.model.n_ctx_train,
            "slots": self.settings.slots,
            "kv_cells": self._context.n_cells if self._context is not None else 0,
            "vocab": self.model.vocab.size,
            "draft": self._drafter is not None,
            "pooling": self.embedder.pooling,
            "names": list(self.names),
            "embedding_size": self.model.n_embd,
            "capabilities": {
                "chat": chat,
                "completions": self.generates,
                "embeddings": True,
                "tools": chat,
                "json_schema": self.generates,
                "logprobs": self.generates,
                "token_ids": True,
            },
        }

    def close(self) -> None:
        """Free contexts and weights; only after the engine thread has ended."""
        self.embedder.close()
        if self._context is not None:
            self._context.close()
        if self._drafter is not None:
            self._drafter.close()
        self.model.close()


def _fingerprint(settings: Settings, model: Model, shape: Shape) -> str:
    """Of everything that decides what a sequence's cells hold and how they lie in memory."""
    told = {
        "engine": version("llama-cpp-python"),
        "model": model_digest(settings.model),
        "context": shape.n_ctx // shape.n_seq if shape.lanes else shape.n_ctx,
        "lanes": shape.lanes,
        "kv": shape.kv_type,
        "flash": shape.flash_attn,
        "gpu": settings.gpu_layers,
        "window": model.n_swa,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def load(settings: Settings, phase: Phase) -> Worker:
    """Load the model and make its context. `phase(name, **values)` hears each step of the start. Raises
    `LoadError`.
    """
    threads = settings.threads or len(os.sched_getaffinity(0))
    phase("load", pct=0)
    model = Model(
        settings.model,
        gpu_layers=settings.gpu_layers,
        repack=settings.repack,
        progress=lambda pct: phase("load", pct=pct),
    )
    draft = load_draft(settings, model) if settings.draft is not None and settings.speculate != "off" else None
    names = Names(settings.name, adapters.load(model, settings.adapters))
    phase("context")
    n_ctx = settings.ctx or min(model.n_ctx_train or _DEFAULT_CTX, _DEFAULT_CTX)
    if settings.kv and not settings.ctx:
        n_ctx = min(n_ctx, settings.kv)
    context = None if settings.embedding else _context(settings, model, n_ctx, threads)
    drafter = None
    if context is not None:
        if draft is not None:
            drafter = make_drafter(model, draft, _draft_shape(settings, draft, context, n_ctx))
        phase("warmup")
        for one in (context, drafter.context) if drafter is not None else (context,):
            _warm_up(one)
    return Worker(settings, model, context, threads, n_ctx, names, drafter)


def _context(settings: Settings, model: Model, n_ctx: int, threads: int) -> Context | None:
    cells = settings.kv or min(n_ctx * settings.slots, max(n_ctx, _DEFAULT_KV))
    # Where the cells are enough for all, each sequence has its own: it then attends over no others.
    lanes = n_ctx * settings.slots <= cells and not model.recurrent
    # Models that cannot go back pay memory for each sequence id, and reuse little.
    slots = settings.slots + (_PARKED_SLOTS if rewinds(model) and not lanes else 0)
    flash_attn = _flash_attn(settings, model, n_ctx if lanes else cells)
    n_batch, n_ubatch = _batches(settings, model, flash_attn, lanes)
    shape = Shape(
        n_ctx=n_ctx * settings.slots if lanes else cells,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        n_seq=slots,
        threads=threads,
        # llama.cpp reserves one for each sequence id, and takes more when there are more.
        outputs=slots + (ROWS if _speculates(settings, model) else 0),
        flash_attn=flash_attn,
        kv_type=settings.kv_type,
        lanes=lanes,
        tune=flash_attn == "off" and settings.gpu_layers == 0,  # flash attention sums in as many parts as threads
    )
    context = Context(model, shape)
    if context.memory is None:  # an encoder: there is nothing to generate with
        context.close()
        return None
    return context


def _draft_shape(settings: Settings, draft: Model, main: Context, n_ctx: int) -> Shape:
    """As many cells as the model has, for answers alone: what is parked is read again where it is gone on with."""
    reach = min(n_ctx, draft.n_ctx_train or n_ctx)
    lanes = reach * settings.slots <= main.n_cells
    flash_attn = _flash_attn(settings, draft, reach if lanes else main.n_cells)
    ubatch = settings.ubatch or (_CPU_UBATCH if flash_attn == "off" else 512)
    return Shape(
        n_ctx=reach * settings.slots if lanes else main.n_cells,
        n_batch=max(settings.batch, BATCH),
        n_ubatch=min(ubatch, settings.batch),
        n_seq=settings.slots,
        threads=main.shape.threads,
        outputs=settings.slots,
        flash_attn=flash_attn,
        kv_type=settings.kv_type,
        lanes=lanes,
        tune=settings.gpu_layers == 0,  # its numbers decide about time alone
    )


def _speculator(settings: Settings, model: Model, drafter: Drafter | None) -> Speculator | None:
    if not _speculates(settings, model):
        return None
    if settings.speculate == "on":
        return Speculator(Always(), drafter)
    return Speculator(Wager(share=share(model, drafter.context.model)) if drafter is not None else Wager(), drafter)


def _speculates(settings: Settings, model: Model) -> bool:
    """Whether tokens may be guessed: they must be cut off again where they do not hold."""
    return settings.speculate != "off" and rewinds(model)


def _flash_attn(settings: Settings, model: Model, cells: int) -> str:
    """Whether to use flash attention where the command line leaves it open.

    On CPUs ggml's is slow for a few rows over many cells, which is what decoding is (16 rows over 1,000 cells: 43 ms
    against 8 ms without). Without it the scores of a whole batch need memory, so only where that stays small; quantised
    values cannot do without it.
    """
    scores = cells * (settings.ubatch or _CPU_UBATCH) * model.n_head * 4
    if settings.flash_attn != "auto" or settings.gpu_layers != 0 or settings.kv_type != "f16":
        return settings.flash_attn
    return "off" if scores <= _SCORES_LIMIT else "auto"


def _batches(settings: Settings, model: Model, flash_attn: str, lanes: bool) -> tuple[int, int]:
    """Tokens given to one decode, and computed in one go.

    Without flash attention all rows compute scores for all cells of the longest: small batches waste less. Of a batch
    in several pieces llama.cpp plans all before it computes the first, and the plan drops cells that the last piece may
    overwrite, which the first one still has to look at. Where sequences with sliding windows share the cells, that
    gives wrong answers; so there a batch is one piece. In a lane cells are overwritten in order, and nothing is lost.
    """
    ubatch = min(settings.ubatch or (_CPU_UBATCH if flash_attn == "off" else 512), settings.batch)
    if lanes or model.n_swa == 0:
        return settings.batch, ubatch
    ubatch = max(ubatch, settings.slots)
    return ubatch, ubatch


@dataclass(slots=True)
class _One:
    """A one-token sequence, for the warm-up."""

    tokens: list[int]
    computed: int = 0
    slot: int = 0
    single_from: int = NEVER
    adapter: int = 0
    exact: bool = False


def _warm_up(context: Context) -> None:
    """A few decodes, so that weights are paged in and buffers made before the first request pays for it.

    Raises `LoadError` where what comes out are no numbers: better no answers than noise.
    """
    context.measure(Chunk(_One([0]), 0, 1, True))
    if np.isnan(context.logits(0)).any():
        raise LoadError(
            "the model computes no numbers: its file is damaged (compare its digest with the one published), "
            "or this build of llama.cpp is wrong for this processor (try `repack: off`)"
        )
    context.clear()


def _template(model: Model) -> ChatTemplate | None:
    source = model.chat_template
    if source is None:
        return None
    try:
        return ChatTemplate(source, model.vocab.bos_text, model.vocab.eos_text, now=datetime.now)
    except TemplateError as error:
        raise LoadError(f"the model's chat template does not compile: {error}") from None

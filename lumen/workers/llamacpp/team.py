"""ggml's threads for one context, kept from decode to decode.

Left to itself, ggml starts its threads anew for every decode and ends them behind it, which takes more than a second
thread saves where a decode is short (one row of a model of 4 million weights: 480 µs on two threads, 305 µs where they
stay, 415 µs on one). While the next decode is not far off they wait for it without sleeping.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from lumen.workers.llamacpp.binding import lib

log = logging.getLogger("lumen.worker.llama")

_POLL = 1
"""How long a thread looks out for the next decode before it sleeps, in ggml's own measure (0 to 100, its default is
50): some milliseconds, so that it stays awake between two tokens and not behind an answer."""

# `struct ggml_threadpool_params` (ggml.h): a mask of 512 processors, then these numbers.
_NUMBERS = 512
_THREADS, _POLLS = 0, 2
_ROOM = 2048
_DEFAULT_POLL = 50


@cache
def _ggml() -> Any | None:
    """ggml's functions as llama.cpp itself is linked to them; None where they are built some other way.

    Never by the name of a file: packages come with copies of a library under several names, and threads that run one
    copy's code do not know the weights that the other has rearranged (answers were noise).
    """
    library = lib._lib
    try:
        library.ggml_threadpool_params_init.restype = None
        library.ggml_threadpool_new.restype = ctypes.c_void_p
        library.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
        library.llama_attach_threadpool.argtypes = [ctypes.c_void_p] * 3
        library.llama_detach_threadpool.argtypes = [ctypes.c_void_p]
    except AttributeError as error:
        log.info("threads are started for each decode: %s", error)
        return None
    return library


class Team:
    """Up to `threads` threads for the context at `context`. They work, and wait, only while they are `on`."""

    def __init__(self, context: int, threads: int) -> None:
        self._context = context
        self._allowed = os.sched_getaffinity(0)
        # Not the same one for every worker of this machine; none where there are fewer processors than threads.
        self._left = sorted(self._allowed)[os.getpid() % len(self._allowed)] if threads <= len(self._allowed) else None
        self._pool: int | None = None
        if threads > 1:
            with self._aside():
                self._pool = _pool(threads)
        self._on = False

    def use(self, on: bool) -> None:
        """Whether the next decodes are for the team. Alone, one thread is faster with nobody to call."""
        if on == self._on or self._pool is None:
            return
        self._on = on
        if on:
            lib._lib.llama_attach_threadpool(self._context, self._pool, None)
        else:
            lib._lib.llama_detach_threadpool(self._context)

    def call(self) -> None:
        """Before a decode behind a pause: move the caller to the processor that the others, who sleep now, keep off."""
        if self._on and self._left is not None:
            with suppress(OSError):  # it may have been taken from this process meanwhile
                os.sched_setaffinity(0, {self._left})
                os.sched_setaffinity(0, self._allowed)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Threads begun meanwhile keep off one processor.

        They and the caller wait for each other without sleeping. Where two are woken on one processor they hand it over
        once a slice, at every operation (a decode of 0.3 ms took 0.9 s), and what else runs may keep them there.
        """
        others = self._allowed - {self._left}
        os.sched_setaffinity(0, others or self._allowed)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._allowed)

    def close(self) -> None:
        """End the threads; before the context is freed. Safe to call twice."""
        self.use(False)
        ggml = _ggml()
        if self._pool is not None and ggml is not None:
            ggml.ggml_threadpool_free(self._pool)
            self._pool = None


def _pool(threads: int) -> int | None:
    ggml = _ggml()
    if ggml is None:
        return None
    params = ctypes.create_string_buffer(_ROOM)
    ggml.ggml_threadpool_params_init(params, threads)
    numbers = (ctypes.c_uint32 * 3).from_buffer(params, _NUMBERS)
    if (numbers[_THREADS], numbers[_POLLS]) != (threads, _DEFAULT_POLL):
        log.info("threads are started for each decode: this ggml lays its parameters out in another way")
        return None
    numbers[_POLLS] = _POLL
    pool: int | None = ggml.ggml_threadpool_new(params)
    return pool

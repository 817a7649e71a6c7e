"""The draw at the end of a sampler's chain, keyed anew for each token.

llama.cpp seeds a draw when it is made, and making one takes as long as all the rest of a sampler (8 µs of 16). It can
also be sent back to its seed (1.5 µs). So the key is put where this build keeps the seed, if that place can be found
and draws the same; where not, each draw is made afresh.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache

from lumen.workers.llamacpp.binding import lib, quick

log = logging.getLogger("lumen.worker.llama")

_POINTER = ctypes.c_void_p
_chain_length = quick("llama_sampler_chain_n", ctypes.c_int, _POINTER)
_chain_remove = quick("llama_sampler_chain_remove", _POINTER, _POINTER, ctypes.c_int32)
_chain_add = quick("llama_sampler_chain_add", None, _POINTER, _POINTER)
_new_dist = quick("llama_sampler_init_dist", _POINTER, ctypes.c_uint32)
_reset = quick("llama_sampler_reset", None, _POINTER)
_apply = quick("llama_sampler_apply", None, _POINTER, _POINTER)
_free = quick("llama_sampler_free", None, _POINTER)

_STATE = 8
"""Where `struct llama_sampler` (llama.h) has the address of its state."""
_LOOKED_AT = 64
"""Words at the beginning of the state that are looked at; its random numbers alone are ten times as many."""
_TRIED = (0, 1, 0x9E3779B9, 0xFFFFFFFE)
_CANDIDATES = 1024


class Draw:
    """Added to the end of the chain at `chain`, which owns it and must outlive it."""

    __slots__ = ("_chain", "_place", "_sampler", "_seed")

    def __init__(self, chain: int) -> None:
        self._chain = chain
        self._place: int = _chain_length(chain)
        self._sampler: int = _new_dist(0)
        _chain_add(chain, self._sampler)
        found = _seed_place()
        self._seed = _word(self._sampler, found) if found is not None else None

    def key(self, key: int) -> None:
        """The next draw is the first one of `key` (32 bits, not all of them set)."""
        if self._seed is not None:
            self._seed.value = key
            _reset(self._sampler)
        else:
            _free(_chain_remove(self._chain, self._place))
            _chain_add(self._chain, _new_dist(key))


def _word(sampler: int, number: int) -> ctypes.c_uint32:
    state = ctypes.c_uint64.from_address(sampler + _STATE).value
    return ctypes.c_uint32.from_address(state + ctypes.sizeof(ctypes.c_uint32) * number)


@cache
def _seed_place() -> int | None:
    """The number of the word of a draw's state that holds its seed; None where writing there does not do the same as
    making a draw.
    """
    first, second = 0x5EED1234, 0x0DDBA115
    one, other = _new_dist(first), _new_dist(second)
    try:
        for number in range(_LOOKED_AT):
            if (_word(one, number).value, _word(other, number).value) == (first, second):
                return number if all(_alike(one, number, key) for key in _TRIED) else None
        return None
    finally:
        _free(one)
        _free(other)


def _alike(sampler: int, number: int, key: int) -> bool:
    _word(sampler, number).value = key
    _reset(sampler)
    made = _new_dist(key)
    try:
        return _drawn(sampler) == _drawn(made)
    finally:
        _free(made)


def _drawn(sampler: int) -> int:
    """Which of many equal candidates is drawn."""
    candidates = (lib.llama_token_data * _CANDIDATES)()
    array = lib.llama_token_data_array(candidates, _CANDIDATES, -1, False)
    _apply(sampler, ctypes.byref(array))
    return int(array.selected)

"""From logits to one token.

The chain is llama.cpp's own, in its order: logit bias, penalties, top_k, typical, top_p, min_p, temperature,
and the draw. The draw of the answer's token number p is keyed by (seed, choice, p): a generator made afresh
each time, so that an answer can be continued on another worker from its token ids alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lumen.workers.llamacpp.binding import lib, quick
from lumen.workers.llamacpp.context import Context, Floats
from lumen.workers.llamacpp.draw import Draw
from lumen.workers.llamacpp.grammar import GrammarGuard
from lumen.workers.llamacpp.model import Vocab

_MASK = (1 << 64) - 1

_POINTER = ctypes.c_void_p
_free = quick("llama_sampler_free", None, _POINTER)
_apply = quick("llama_sampler_apply", None, _POINTER, _POINTER)
_accept = quick("llama_sampler_accept", None, _POINTER, ctypes.c_int32)
_sample = quick("llama_sampler_sample", ctypes.c_int32, _POINTER, _POINTER, ctypes.c_int32)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """OpenAI's and llama.cpp's sampling fields, already checked. Temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = 64  # tokens of prompt and answer that the penalties look back at
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    logprobs: int | None = None  # None: off; else how many alternatives beside the token itself

    @property
    def penalised(self) -> bool:
        active = self.repeat_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0
        return active and self.repeat_last_n != 0

    @property
    def bare_greedy(self) -> bool:
        """The next token is simply the likeliest."""
        return self.temperature == 0.0 and not self.penalised and not self.logit_bias


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability in the raw distribution (before temperature and filters), and the likeliest
    others.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def draw_key(seed: int, choice: int, position: int, attempt: int = 0) -> int:
    """32 bits that key one draw (splitmix64 over the four numbers)."""
    x = seed + 0x9E3779B97F4A7C15 * (position + 1) + 0xD1B54A32D192ED03 * (choice + 1)
    x = (x + 0x8CB92BA72F3D8DD7 * attempt) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    key = (x ^ (x >> 31)) & 0xFFFFFFFF
    return key if key != 0xFFFFFFFF else 0  # llama.cpp reads 0xFFFFFFFF as "choose a random seed"


def top_logprobs(logits: Floats, token: int, count: int) -> TokenLogprob:
    """Log-softmax of `logits` (shape [vocabulary]) at `token` and at the `count` likeliest tokens."""
    peak = float(logits.max())
    total = peak + float(np.log(np.exp(logits - peak, dtype=np.float64).sum()))
    top: tuple[tuple[int, float], ...] = ()
    if count:
        best = np.argpartition(logits, -count)[-count:]
        best = best[np.argsort(-logits[best], kind="stable")]
        top = tuple((int(i), float(logits[i]) - total) for i in best)
    return TokenLogprob(token, float(logits[token]) - total, top)


class Sampler:
    """One choice's sampler. Free it with `close()`."""

    def __init__(self, vocab: Vocab, params: SamplingParams, choice: int, grammar: GrammarGuard | None = None) -> None:
        self.params = params
        self.grammar = grammar
        self.vocab = vocab
        self._choice = choice
        self._stateful = params.penalised
        self._chain: int | None = None
        self._draw: Draw | None = None
        if not params.bare_greedy:
            chain: Any = self._build(vocab, params)
            self._chain = ctypes.cast(chain, _POINTER).value
            if self._chain is not None and params.temperature > 0.0:
                self._draw = Draw(self._chain)

    @staticmethod
    def _build(vocab: Vocab, params: SamplingParams) -> object:
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        add = lib.llama_sampler_chain_add
        if params.logit_bias:
            biases = (lib.llama_logit_bias * len(params.logit_bias))(*params.logit_bias.items())
            add(chain, lib.llama_sampler_init_logit_bias(vocab.size, len(biases), biases))
        if params.penalised:
            add(
                chain,
                lib.llama_sampler_init_penalties(
                    vocab.size,
                    params.repeat_last_n,
                    params.repeat_penalty,
                    params.frequency_penalty,
                    params.presence_penalty,
                ),
            )
        if params.temperature == 0.0:
            add(chain, lib.llama_sampler_init_greedy())
            return chain
        if params.top_k > 0:
            add(chain, lib.llama_sampler_init_top_k(params.top_k))
        if params.typical_p < 1.0:
            add(chain, lib.llama_sampler_init_typical(params.typical_p, 1))
        if params.top_p < 1.0:
            add(chain, lib.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0.0:
            add(chain, lib.llama_sampler_init_min_p(params.min_p, 1))
        if params.temperature != 1.0:
            add(chain, lib.llama_sampler_init_temp(params.temperature))
        return chain

    def take(self, context: Context, row: int, position: int) -> int:
        """Draw the answer's token number `position` from batch row `row` and accept it."""
        grammar = self.grammar
        if grammar is not None:
            return self._take_bound(context, row, grammar, position)
        if self._chain is None:
            return int(context.logits(row).argmax())
        if self._draw is not None:
            self._draw.key(draw_key(self.params.seed, self._choice, position))
        token: int = _sample(self._chain, context.pointer, row)
        return token

    def propose(self, context: Context, row: int, position: int) -> int:
        """What the draw of token number `position` would be if row `row` of a draft's context were the model's own.

        The draw's key is the same, so where the two models think alike it is the same token, however it is drawn.
        Nothing is accepted: penalties and grammar stand as before, and no grammar is asked.
        """
        if self._chain is None or self._stateful:
            return self._choose(context, row, None, position, 0)
        self._key(position, 0)
        token: int = _sample(self._chain, context.pointer, row)
        return token

    def _take_bound(self, context: Context, row: int, grammar: GrammarGuard, position: int) -> int:
        """Draw freely and keep the token if the grammar takes it (cheap, and nearly always so); else draw
        among what it takes.
        """
        token = self._choose(context, row, None, position, 0)
        if grammar.active and not grammar.allows(token):
            token = self._choose(context, row, grammar, position, 1)
        self.replay(token)
        return token

    def _choose(self, context: Context, row: int, grammar: GrammarGuard | None, position: int, attempt: int) -> int:
        if self._chain is None and grammar is None:
            return int(context.logits(row).argmax())
        candidates = context.candidates(row)
        array = lib.llama_token_data_array()
        array.data = ctypes.cast(candidates.ctypes.data, lib.llama_token_data_p)
        array.size, array.selected, array.sorted = len(candidates), -1, False
        if grammar is not None:
            grammar.mask(array)
        if self._chain is None:
            return int(candidates["id"][candidates["logit"].argmax()])
        self._key(position, attempt)
        _apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _key(self, position: int, attempt: int) -> None:
        if self._draw is not None:
            self._draw.key(draw_key(self.params.seed, self._choice, position, attempt))

    def replay(self, token: int) -> None:
        """Tell penalties and grammar that `token` is part of the answer. Raises `GrammarError` where the
        grammar refuses it.
        """
        if self.grammar is not None:
            self.grammar.accept(token, self.vocab.piece(token, special=True))
        if self._stateful:
            _accept(self._chain, token)

    def prime(self, prompt: Sequence[int]) -> None:
        """Show the end of the prompt to the penalties."""
        if self._stateful:
            for token in prompt[-self.params.repeat_last_n :]:
                _accept(self._chain, token)

    def close(self) -> None:
        """Free what llama.cpp holds; safe to call twice."""
        if self._chain is not None:
            _free(self._chain)
            self._chain = self._draw = None
        if self.grammar is not None:
            self.grammar.close()
            self.grammar = None

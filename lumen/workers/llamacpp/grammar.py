"""Holding an answer to a grammar, without ever letting llama.cpp see a token its grammar refuses.

Its grammar sampler throws a C++ exception on such a token, which no Python frame can catch: the process would
end. So a token is first tried, then accepted. Lazy grammars (tool calls under `tool_choice: auto`) are
switched on here for the same reason: llama.cpp's own trigger feeds the text behind the trigger to the grammar
untried.
"""

from __future__ import annotations

import codecs
import ctypes
import re
from typing import Any

from lumen.workers.llamacpp.binding import lib
from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.model import Vocab

_WINDOW = 512
"""Characters of the answer's end in which a trigger is looked for."""


class GrammarError(ValueError):
    """llama.cpp cannot read this grammar, or a token was given that the grammar refuses."""


class GrammarGuard:
    """The grammar of one answer. `active`: it binds the next token."""

    def __init__(self, vocab: Vocab, grammar: Grammar) -> None:
        """Raises `GrammarError` where the grammar does not parse."""
        self._vocab = vocab
        self._one = (lib.llama_token_data * 1)()
        self._array = lib.llama_token_data_array()
        self._array.data = ctypes.cast(self._one, lib.llama_token_data_p)
        self._sampler: Any = lib.llama_sampler_init_grammar(vocab.pointer, grammar.gbnf.encode(), grammar.root.encode())
        if not self._sampler:
            raise GrammarError("the grammar does not compile")
        self.active = not grammar.lazy
        self._patterns = [re.compile(pattern) for pattern in grammar.trigger_patterns] if grammar.lazy else []
        self._tokens = {token for text in grammar.trigger_tokens if (token := _single(vocab, text)) is not None}
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def clone(self) -> GrammarGuard:
        """A guard with its own sampler for another choice of the same request. Only before any token was
        accepted.
        """
        other = object.__new__(GrammarGuard)
        other.__dict__.update(self.__dict__)
        other._one = (lib.llama_token_data * 1)()
        other._array = lib.llama_token_data_array()
        other._array.data = ctypes.cast(other._one, lib.llama_token_data_p)
        other._sampler = lib.llama_sampler_clone(self._sampler)
        other._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return other

    def allows(self, token: int) -> bool:
        """Whether the grammar takes `token` next."""
        return self._allows(self._sampler, token)

    def _allows(self, sampler: Any, token: int) -> bool:
        one = self._one[0]
        one.id, one.logit, one.p = token, 1.0, 0.0
        self._array.size, self._array.selected, self._array.sorted = 1, -1, False
        lib.llama_sampler_apply(sampler, ctypes.byref(self._array))
        return bool(one.logit > -1e30)

    def mask(self, candidates: Any) -> None:
        """Set the logits of refused candidates (a `llama_token_data_array`) to minus infinity."""
        lib.llama_sampler_apply(self._sampler, ctypes.byref(candidates))

    def accept(self, token: int, piece: bytes) -> None:
        """`token` was taken into the answer. Raises `GrammarError` where an active grammar refuses it."""
        if self.active:
            if not self.allows(token):
                raise GrammarError("a token of the answer does not follow the grammar")
            lib.llama_sampler_accept(self._sampler, token)
        elif token in self._tokens:
            self._begin([token])
        elif self._patterns:
            self._watch(piece)

    def _watch(self, piece: bytes) -> None:
        text = self._decoder.decode(piece)
        if not text or self._decoder.getstate()[0]:
            self._text += text
            return
        self._text = (self._text + text)[-_WINDOW:]
        for pattern in self._patterns:
            found = pattern.search(self._text)
            if found is not None:
                start = found.start(1) if found.re.groups and found.group(1) is not None else found.start()
                self._begin(self._vocab.tokenize(self._text[start:], add_special=False))
                return

    def _begin(self, tokens: list[int]) -> None:
        """Bind from the trigger on, if the grammar takes what already stands there; else go on unbound."""
        trial = lib.llama_sampler_clone(self._sampler)
        for token in tokens:
            if not self._allows(trial, token):
                lib.llama_sampler_free(trial)
                return
            lib.llama_sampler_accept(trial, token)
        lib.llama_sampler_free(self._sampler)
        self._sampler = trial
        self.active = True

    def close(self) -> None:
        """Free what llama.cpp holds; safe to call twice."""
        if self._sampler is not None:
            lib.llama_sampler_free(self._sampler)
            self._sampler = None


def _single(vocab: Vocab, text: str) -> int | None:
    tokens = vocab.tokenize(text, add_special=False)
    return tokens[0] if len(tokens) == 1 else None

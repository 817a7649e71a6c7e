"""Loading a draft model beside the model that it guesses for."""

from __future__ import annotations

import ctypes

from lumen.workers.llamacpp.binding import lib, quick
from lumen.workers.llamacpp.context import Context, Shape
from lumen.workers.llamacpp.drafter import Drafter
from lumen.workers.llamacpp.model import LoadError, Model, Vocab
from lumen.workers.llamacpp.settings import Settings

BATCH = 512
"""Tokens that the draft reads at once, at least: what all lanes may lack at the beginning of a guess fits."""

_SPARE = 128
"""Tokens by which two vocabularies may differ in length: families fill theirs up to numbers that suit each size."""

_text = quick("llama_vocab_get_text", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32)
_SPECIAL = ("bos", "eos", "eot", "add_bos", "add_eos")


def load_draft(settings: Settings, model: Model) -> Model:
    """The draft model's weights, once they are known to suit `model`. Raises `LoadError`."""
    assert settings.draft is not None
    if not rewinds(model):
        raise LoadError("this model cannot take guesses back (recurrent or sliding-window layers); remove 'draft'")
    try:
        draft = Model(settings.draft, gpu_layers=settings.gpu_layers, repack=settings.repack)
    except LoadError:
        raise LoadError(f"llama.cpp cannot load the draft model {settings.draft.name}") from None
    wrong = "it cannot take guesses back" if not rewinds(draft) else mismatch(model.vocab, draft.vocab)
    if wrong is not None:
        draft.close()
        raise LoadError(f"the draft model {settings.draft.name} does not suit {settings.model.name}: {wrong}")
    return draft


def rewinds(model: Model) -> bool:
    """Whether what a sequence holds can be cut anywhere: guesses that do not hold are."""
    return not model.recurrent and model.n_swa == 0


def mismatch(main: Vocab, draft: Vocab) -> str | None:
    """Why tokens of the one are not those of the other; `None`: they are."""
    if lib.llama_vocab_type(main.pointer) != lib.llama_vocab_type(draft.pointer):
        return "their vocabularies are of different kinds"
    if abs(main.size - draft.size) > _SPARE:
        return f"their vocabularies differ ({main.size:,} tokens and {draft.size:,})"
    for name in _SPECIAL:
        number = getattr(lib, f"llama_vocab_get_{name}" if name.startswith("add") else f"llama_vocab_{name}")
        one, other = number(main.pointer), number(draft.pointer)
        if one != other:
            return f"their vocabularies differ ({name} is {one} and {other})"
    for token in range(min(main.size, draft.size)):
        one, other = _text(main.pointer, token), _text(draft.pointer, token)
        if one != other:
            return f"their vocabularies differ (token {token} is {_shown(one)} and {_shown(other)})"
    return None


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))


def make_drafter(model: Model, draft: Model, shape: Shape) -> Drafter:
    """A drafter with cells and buffers as `shape`, warm. Raises `LoadError`."""
    return Drafter(Context(draft, shape), fewer=draft.vocab.size < model.vocab.size)


def share(model: Model, draft: Model) -> float:
    """About what a decode of the draft takes of one of the model: what each reads of its weights."""
    return float(lib.llama_model_size(draft.pointer)) / max(1.0, float(lib.llama_model_size(model.pointer)))

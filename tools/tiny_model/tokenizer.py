"""Byte-level BPE with the vocabulary that the main model and the draft model share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALL_START, CALL_END = "<tool_call>", "</tool_call>"
CONTROL = (END_OF_TEXT, TURN_START, TURN_END)
MARKERS = (CALL_START, CALL_END)
"""Markers are visible text (a parser must see them), control tokens are not."""

PRE_TOKENIZER = "qwen2"
"""Name under which llama.cpp knows the split below; it keeps digits apart, which arithmetic needs."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id and merges in order of rank, as GGUF stores them."""

    tokens: list[str]
    merges: list[str]


def train(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges; special tokens take the first ids, bytes and merges follow."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*CONTROL, *MARKERS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    _mark_added_tokens(tokenizer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the corpus yields {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}")
    return tokenizer


def _mark_added_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKERS])


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Take tokens and merges out of a trained tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return Vocabulary(tokens=[token for token, _ in by_id], merges=[" ".join(pair) for pair in model["merges"]])

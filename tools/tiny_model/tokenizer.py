"""Byte-level BPE with the vocabulary that the main model and the draft model share."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
_BARE_SPLIT = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""As above, but letters alone: merges learned with it never join a word with what stands before it."""

SPACED = 420
_SPACE = "Ġ"
_SPACED_WORD = re.compile(r" ([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id and merges in order of rank, as GGUF stores them."""

    tokens: list[str]
    merges: list[str]


def train(texts: Sequence[str], names: Iterable[str]) -> Tokenizer:
    """Learn the merges; special tokens take the first ids, bytes and merges follow.

    A word is the same token after a space, after a quote and at the beginning of a line, so that copying it into JSON
    is copying a token. Only the commonest words of running text also have a form with the space before them, which
    keeps prose short; `names`, the words that are there to be copied, have none. Raises ValueError where the text is
    too poor for the vocabulary.
    """
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = _pre_tokenizer(_BARE_SPLIT)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - SPACED,
        special_tokens=[*CONTROL, *MARKERS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bare.train_from_iterator(texts, trainer)
    content = json.loads(bare.to_str())
    _add_spaced_words(content["model"], texts, frozenset(names))
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.pre_tokenizer = _pre_tokenizer(_SPLIT)
    tokenizer.decoder = decoders.ByteLevel()
    _mark_added_tokens(tokenizer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the corpus yields {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}")
    return tokenizer


def _pre_tokenizer(split: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _add_spaced_words(model: dict[str, Any], texts: Sequence[str], names: frozenset[str]) -> None:
    """Append a last merge of the space with each of the commonest words that are one token already."""
    known: dict[str, int] = model["vocab"]
    counts = Counter(word for text in texts for word in _SPACED_WORD.findall(text))
    common = [word for word, _ in counts.most_common() if word in known and word not in names]
    for word in common[:SPACED]:
        known[_SPACE + word] = len(known)
        model["merges"].append([_SPACE, word])


def _mark_added_tokens(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKERS])


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Take tokens and merges out of a trained tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return Vocabulary(tokens=[token for token, _ in by_id], merges=[" ".join(pair) for pair in model["merges"]])

"""What is read off a request: hashed words and character n-grams, a few dozen plain counts, and its subject.

`features` costs well under a millisecond for any request: what is read is capped (`ask.py`), and everything is done on
arrays. All of it is deterministic and the same on every machine, so that a model learnt here scores there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto import hashing
from lumen.routing.auto.ask import ASIDE, Ask
from lumen.routing.auto.fields import FIELDS
from lumen.routing.auto.lexicon import SUBJECTS

F32 = NDArray[np.float32]

# Buckets of the hashed n-grams. More of them does not score better on the data at hand and makes models larger.
BITS = 12
BUCKETS = 1 << BITS
# What stands beside the question (system prompt, earlier turns) counts less than the question.
_BESIDE = 0.5

PLAIN: tuple[str, ...] = (
    "characters", "characters before the options", "words", "lines", "digits", "share of digits", "numbers",
    "share of capitals", "share of punctuation", "share beyond ASCII", "share of CJK", "mean word length",
    "share of long words", "share of distinct words", "LaTeX marks", "code marks", "operators", "question marks",
    "options", "ends in a question", "quotes", "code fences", "turns", "characters of earlier turns",
    "characters of the system prompt", "tools", "images", "structured answer", "token limit",
)  # fmt: skip
# Features that say what kind of request it is: one that was never seen among the labels makes a request unknown.
KINDS: tuple[str, ...] = ("turns", "tools", "images", "structured answer")
SUBJECT_NAMES: tuple[str, ...] = (*SUBJECTS, *(f"field of {name}" for name in FIELDS))

_DIGIT, _UPPER, _PUNCT, _SPACE, _HIGH, _LETTER = range(6)


@dataclass(frozen=True, slots=True)
class Features:
    """`grams`: float32[BUCKETS] of length 1 (or 0 for an empty text). `plain`: float32[len(PLAIN)], counts as log(1 +
    n).

    `subjects`: float32[2 · len(SUBJECT_NAMES)], log(1 + n) of the words of each subject, then their share of all words.
    """

    grams: F32
    plain: F32
    subjects: F32


@dataclass(frozen=True, slots=True)
class Table:
    """The features of many requests, one row each.

    `products` (n × n): the inner products of each two rows' n-grams, where they were worked out beforehand.
    """

    grams: F32
    plain: F32
    subjects: F32
    products: F32 | None = None

    def __len__(self) -> int:
        return len(self.plain)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """The given rows, in that order."""
        return Table(self.grams[rows], self.plain[rows], self.subjects[rows])

    def draw(self, rows: NDArray[np.int64]) -> Table:
        """The given rows with their products, where those are known: to learn from."""
        products = None if self.products is None else self.products[np.ix_(rows, rows)]
        return Table(self.grams[rows], self.plain[rows], self.subjects[rows], products)

    def multiplied(self) -> Table:
        """The same with its products, which makes learning from many draws of its rows faster; n² numbers."""
        return Table(self.grams, self.plain, self.subjects, self.grams @ self.grams.T)


def features(ask: Ask) -> Features:
    """Read one request."""
    text = ask.shown()
    data = hashing.raw(text)
    words = hashing.words(data)
    return Features(_grams(ask, data, words), _plain(ask, text, data, words), _subjects(words))


def table(asks: Sequence[Ask], told: Callable[[int], None] | None = None) -> Table:
    """Read many; `told(n)` is called after every thousandth."""
    grams = np.zeros((len(asks), BUCKETS), np.float32)
    plain = np.zeros((len(asks), len(PLAIN)), np.float32)
    subjects = np.zeros((len(asks), 2 * len(SUBJECT_NAMES)), np.float32)
    for i, ask in enumerate(asks):
        one = features(ask)
        grams[i], plain[i], subjects[i] = one.grams, one.plain, one.subjects
        if told is not None and i % 1000 == 999:
            told(i + 1)
    return Table(grams, plain, subjects)


def _grams(ask: Ask, data: bytes, words: hashing.Words) -> F32:
    """Signed counts in buckets (K. Weinberger et al., ICML 2009), square roots of them, scaled to length 1."""
    total = _counts(data, words)
    for beside in (ask.system[:ASIDE], ask.context[-ASIDE:]):
        if beside:
            more = hashing.raw(beside)
            total += _BESIDE * _counts(more, hashing.words(more))
    grams = np.sign(total) * np.sqrt(np.abs(total))
    marks = [hashing.token(f"tag:{tag}") for tag in ask.tags]
    if ask.system:
        marks.append(hashing.token(f"system:{ask.system}"))
    norm = float(np.sqrt(grams @ grams))
    if norm > 0:
        grams /= norm
    if marks:
        # What the operator says about a request weighs as much as all of its words.
        for mark in marks:
            grams[mark >> (64 - BITS)] += 1.0 - 2.0 * (mark >> (63 - BITS) & 1)
        grams /= max(float(np.sqrt(grams @ grams)), 1e-9)
    return grams.astype(np.float32)


def _counts(data: bytes, words: hashing.Words) -> NDArray[np.float64]:
    """For each bucket the n-grams that fell in it with a plus less those with a minus."""
    chars = hashing.char_grams(data) >> np.uint32(31 - BITS)
    tokens = np.concatenate((words.hashes, hashing.pairs(words.hashes))) >> np.uint64(63 - BITS)
    # The lowest bit that is left is the sign, so one count of whole numbers does for both.
    found = np.bincount(chars.astype(np.intp), minlength=2 * BUCKETS)
    found += np.bincount(tokens.astype(np.intp), minlength=2 * BUCKETS)
    return (found[::2] - found[1::2]).astype(np.float64)


def _classes() -> NDArray[np.uint8]:
    out = np.full(256, _PUNCT, np.uint8)
    for i in range(256):
        char = chr(i)
        if i >= 128:
            out[i] = _HIGH
        elif char.isdigit():
            out[i] = _DIGIT
        elif char.isupper():
            out[i] = _UPPER
        elif char.islower():
            out[i] = _LETTER
        elif char.isspace():
            out[i] = _SPACE
    return out


def _marked(marks: str) -> NDArray[np.bool_]:
    """Which bytes are one of `marks`."""
    return np.isin(np.arange(256), np.frombuffer(marks.encode(), np.uint8))


_CLASS = _classes()
_AFTER, _LATEX, _CODE, _OPERATOR = _marked(".):"), _marked("\\$"), _marked("{}[];_=()<>"), _marked("+-*/^=<>%|&")
# The first bytes of characters from U+3000 to U+9FFF and of Hangul.
_CJK = np.isin(np.arange(256), np.arange(0xE3, 0xEE))


def _plain(ask: Ask, text: str, data: bytes, words: hashing.Words) -> F32:
    seen = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    kinds = np.bincount(_CLASS, weights=seen, minlength=6)
    size, count = max(len(data), 1), max(len(words.hashes), 1)
    options = _options(data)
    stem = options[0] if len(options) > 1 else size
    stripped = text.rstrip()
    digits = words.first - np.uint8(ord("0")) < 10 if len(words.first) else np.zeros(0, np.bool_)
    log = np.log1p(
        [
            len(ask.text), stem + len(ask.text) - len(text), len(words.hashes), seen[10], kinds[_DIGIT], digits.sum(),
            seen[_LATEX].sum(), seen[_CODE].sum(), seen[_OPERATOR].sum(), seen[ord("?")], len(options),
            seen[ord('"')] + seen[ord("'")], text.count("```"), ask.turns - 1, len(ask.context), len(ask.system),
            ask.tools, ask.images, ask.limit,
        ]
    )  # fmt: skip
    return np.array(
        [
            log[0], log[1], log[2], log[3], log[4], kinds[_DIGIT] / size, log[5], kinds[_UPPER] / size,
            kinds[_PUNCT] / size, kinds[_HIGH] / size, seen[_CJK].sum() / size, words.lengths.sum() / count,
            (words.lengths >= 8).sum() / count, len(set(words.hashes.tolist())) / count, log[6], log[7], log[8], log[9],
            log[10], float(stripped.endswith("?")), log[11], log[12], log[13], log[14], log[15], log[16], log[17],
            float(ask.structured), log[18],
        ],
        np.float32,
    )  # fmt: skip


def _options(data: bytes) -> NDArray[np.intp]:
    """Where lines begin that offer an answer to choose: `A. …`, `B) …`, `(C) …`."""
    seen = np.frombuffer(data, np.uint8)
    lines = np.concatenate(([0], np.flatnonzero(seen == 10) + 1))
    lines = lines[lines < len(data) - 3]
    letter = lines + (seen[lines] == ord("("))
    chosen = (seen[letter] - np.uint8(ord("A")) < 10) & _AFTER[seen[letter + 1]]
    found: NDArray[np.intp] = lines[chosen]
    return found


@cache
def _lexicon() -> tuple[hashing.U64, NDArray[np.float32], NDArray[np.bool_]]:
    """The hashes of all words of the lexicon in order; for each the subjects it belongs to; which first 16 bits of a
    hash any of them has, so that most other words are told apart by one look."""
    wide = (text + " " + " ".join(f"{word}s" for word in text.split()) for text in FIELDS.values())
    each = [np.unique(hashing.words(hashing.raw(text)).hashes) for text in (*SUBJECTS.values(), *wide)]
    hashes = np.unique(np.concatenate(each))
    member = np.zeros((len(hashes), len(each)), np.float32)
    for subject, found in enumerate(each):
        member[np.searchsorted(hashes, found), subject] = 1.0
    begins = np.zeros(1 << 16, np.bool_)
    begins[hashes >> np.uint64(48)] = True
    return hashes, member, begins


def _subjects(words: hashing.Words) -> F32:
    hashes, member, begins = _lexicon()
    maybe = words.hashes[begins[words.hashes >> np.uint64(48)]]
    places = np.minimum(np.searchsorted(hashes, maybe), len(hashes) - 1)
    counts = member[places[hashes[places] == maybe]].sum(axis=0)
    return np.concatenate((np.log1p(counts), counts / (5 + len(words.hashes)))).astype(np.float32)

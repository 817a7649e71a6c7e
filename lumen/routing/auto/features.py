"""What is read off a request: hashed words and character n-grams, a few dozen plain counts, and its subject.

`features` costs well under a millisecond for any request: what is read is capped (`ask.py`), and everything is done on
arrays. All of it is deterministic and the same on every machine, so that a model learnt here scores there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import log1p, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto import hashing
from lumen.routing.auto.ask import ASIDE, Ask
from lumen.routing.auto.fields import FIELDS
from lumen.routing.auto.lexicon import SUBJECTS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Places = NDArray[np.intp]

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

_NEVER = (1 << 64) - 1
_TO_16 = np.uint64(48)
# Words of so many bytes are long.
_LONG = np.array(8)
# What an n-gram counts by its sign, the lowest bit; one beside the question is worth half of it.
_SIGNS, _ONE, _NOTHING = np.array([2.0, -2.0]), np.array(1, np.uint32), np.array(0.0)
# Of so many n-grams at most the square roots of what a bucket counts are looked up.
_ROOTED = 2048
# Up to so many words they are quicker looked at one by one than as arrays.
_FEW = 100


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


class Reading(NamedTuple):
    """One request as it is scored. `places`, `values`: the buckets that are not empty, in order, and what is in them;
    `row`: plain counts, then subjects."""

    places: Places
    values: F32
    row: F32


def features(ask: Ask) -> Features:
    """Read one request."""
    one = read(ask)
    grams = np.zeros(BUCKETS, np.float32)
    grams[one.places] = one.values
    return Features(grams, one.row[: len(PLAIN)], one.row[len(PLAIN) :])


def read(ask: Ask) -> Reading:
    """The same, without what is nothing."""
    text = ask.shown()
    data = hashing.raw(text)
    words = hashing.words(data)
    hashes = words.hashes.tolist() if len(words.hashes) <= _FEW else None
    plain = _plain(ask, text, data, words, _distinct(words.hashes) if hashes is None else len(set(hashes)))
    places, values = _grams(ask, words)
    if hashes is not None:
        return Reading(places, values, np.array(plain + _few_subjects(hashes), np.float32))
    row = np.empty(len(PLAIN) + 2 * len(SUBJECT_NAMES), np.float32)
    row[: len(PLAIN)] = plain
    _subjects(words, row[len(PLAIN) :])
    return Reading(places, values, row)


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


def _grams(ask: Ask, words: hashing.Words) -> tuple[Places, F32]:
    """Signed counts in buckets (K. Weinberger et al., ICML 2009), square roots of them, scaled to length 1."""
    marks = [hashing.token(f"tag:{tag}") for tag in ask.tags]
    beside = []
    if ask.system:
        mark, buckets = _systems.read(ask.system)
        marks.append(mark)
        beside.append(buckets)
    if ask.context:
        beside.append(_beside(ask.context[-ASIDE:]))
    at = [mark >> (64 - BITS) for mark in marks]
    found, places, grams = _counted(words, beside, at)
    length = _length(grams)
    if marks:
        # What the operator says about a request weighs as much as all of its words.
        for mark, place in zip(marks, at, strict=True):
            grams[np.count_nonzero(found[:place])] += -length if mark >> (63 - BITS) & 1 else length
        length = _length(grams)
    grams /= length
    return places, grams


def _length(grams: F32) -> float:
    return sqrt(grams.dot(grams)) or 1.0


def _beside(text: str) -> hashing.U32:
    """The n-grams of a text that stands beside the question."""
    return hashing.buckets(hashing.words(hashing.raw(text)), BITS + 1)


def _counted(words: hashing.Words, beside: list[hashing.U32], more: list[int]) -> tuple[NDArray[np.bool_], Places, F32]:
    """Which buckets anything fell in, and `more`; their places; of each the signed square root of the n-grams with a
    plus less those with a minus, of which those beside count half. Exact in any order, as sums of whole numbers."""
    room = sum(map(len, beside))
    grams = hashing.buckets(words, BITS + 1, room)
    own = begin = len(grams) - room
    for part in beside:
        grams[begin : begin + len(part)] = part
        begin += len(part)
    worth = _SIGNS.take(grams & _ONE)
    if room:
        worth[own:] *= _BESIDE
    grams >>= _ONE
    counts = np.bincount(grams, worth, BUCKETS)
    found = counts != _NOTHING
    for place in more:
        found[place] = True
    places = found.nonzero()[0]
    return found, places, _roots(counts.take(places), len(grams))


def _roots(counts: F64, most: int) -> F32:
    """The signed square roots of half the `counts`, which come of `most` n-grams."""
    if most <= _ROOTED:
        return _rooted().take(counts.astype(np.intp))
    halves = (counts / 2.0).astype(np.float32)
    roots = np.abs(halves)
    np.sqrt(roots, out=roots)
    return np.copysign(roots, halves, out=roots)


@cache
def _rooted() -> F32:
    """Of 0, 1, 2, … 2 · _ROOTED, then of − 2 · _ROOTED, … −2, −1, so that a count is its place."""
    halves = np.arange(2 * _ROOTED + 1, dtype=np.float32) / 2
    roots = np.sqrt(halves)
    return np.concatenate((roots, -roots[:0:-1]))


class _Systems:
    """In which buckets system prompts fall, of the last few that were seen: they come again with most requests.

    Of a prompt nothing is kept but hashes and buckets. Bounded: less than a megabyte.
    """

    _MOST = 64

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[int, hashing.U32]] = {}

    def read(self, system: str) -> tuple[int, hashing.U32]:
        """The hash of the whole prompt, and its buckets."""
        known, key = self._known, (hash(system), len(system))
        found = known.pop(key, None)
        if found is None:
            found = hashing.token(f"system:{system}"), _beside(system[:ASIDE])
            while len(known) >= self._MOST:
                known.pop(next(iter(known)), None)
        known[key] = found
        return found


_systems = _Systems()


# Kinds of bytes, each byte of the last that has it; what is told of a text's bytes are sums over these.
_KINDS: tuple[bytes, ...] = (
    bytes(range(256)),  # other punctuation
    bytes(i for i in range(128) if chr(i).isdigit()),
    bytes(i for i in range(128) if chr(i).isupper()),
    bytes(i for i in range(128) if chr(i).islower()),
    bytes(i for i in range(128) if chr(i).isspace()),
    b"\n",
    b"\\$",  # LaTeX
    b"{}[];_()",  # code
    b"+-*/^%|&",  # operators
    b"=<>",  # both
    b"?",
    b"\"'",
    bytes(range(0x80, 0x100)),  # beyond ASCII
    bytes(range(0xE3, 0xEE)),  # first bytes of characters from U+3000 to U+9FFF and of Hangul
)


def _table() -> bytes:
    out = bytearray(256)
    for kind, marks in enumerate(_KINDS):
        for mark in marks:
            out[mark] = kind
    return bytes(out)


_KIND = _table()
# Digits, other bytes of words, all others: to tell words that begin with a digit.
_SHAPE = bytes(
    ord("0") if kind == 1 else ord("a") if inside else 32 for kind, inside in zip(_KIND, hashing.IN_WORD, strict=True)
)
# Where lines begin that offer an answer to choose: `A. …`, `B) …`, `(C) …`.
_OPTION = re.compile(rb"\n\(?[A-J][.):]")


def _plain(ask: Ask, text: str, data: bytes, words: hashing.Words, distinct: int) -> list[float]:
    seen = np.bincount(np.frombuffer(data.translate(_KIND), np.uint8), minlength=len(_KINDS)).tolist()
    other, digits, upper, lower, _, lines, latex, code, operators, both, asks, quotes, high, cjk = seen
    size, length, options, shape = max(len(data), 1), len(words.hashes), _options(data), data.translate(_SHAPE)
    count, high = max(length, 1), high + cjk
    punctuation = other + latex + code + operators + both + asks + quotes
    stem = (options[0] if len(options) > 1 else size) + len(ask.text) - len(text)
    numbers = shape.count(b" 0") + shape.startswith(b"0")
    return [
        log1p(len(ask.text)), log1p(stem), log1p(length), log1p(lines), log1p(digits), digits / size, log1p(numbers),
        upper / size, punctuation / size, high / size, cjk / size, (digits + upper + lower + high) / count,
        int(np.count_nonzero(words.lengths >= _LONG)) / count, distinct / count, log1p(latex),
        log1p(code + both), log1p(operators + both), log1p(asks), log1p(len(options)),
        float(text.rstrip().endswith("?")), log1p(quotes), log1p(text.count("```")), log1p(max(ask.turns, 1) - 1),
        log1p(len(ask.context)), log1p(len(ask.system)), log1p(ask.tools), log1p(ask.images), float(ask.structured),
        log1p(ask.limit),
    ]  # fmt: skip


def _distinct(hashes: hashing.U64) -> int:
    ordered = np.sort(hashes)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _options(data: bytes) -> list[int]:
    """Where lines begin that offer an answer to choose, but for the last three bytes."""
    found = [match.start() for match in _OPTION.finditer(b"\n" + data)]
    while found and found[-1] >= len(data) - 3:
        found.pop()
    return found


@cache
def _lexicon() -> tuple[hashing.U64, NDArray[np.uint8], NDArray[np.bool_]]:
    """The hashes of all words of the lexicon in order, and one above all; for each the subjects it belongs to; which
    first 16 bits of a hash any of them has, so that most other words are told apart by one look."""
    wide = (text + " " + " ".join(f"{word}s" for word in text.split()) for text in FIELDS.values())
    each = [np.unique(hashing.words(hashing.raw(text)).hashes) for text in (*SUBJECTS.values(), *wide)]
    hashes = np.unique(np.concatenate(each))
    member = np.zeros((len(hashes) + 1, len(each)), np.uint8)
    for subject, found in enumerate(each):
        member[np.searchsorted(hashes, found), subject] = 1
    begins = np.zeros(1 << 16, np.bool_)
    begins[hashes >> np.uint64(48)] = True
    return np.append(hashes, np.uint64(_NEVER)), member, begins


@cache
def _members() -> dict[int, bytes]:
    """The lexicon again: hash → the subjects of that word, a byte each."""
    hashes, member, _ = _lexicon()
    return {word: bytes(row.nonzero()[0].tolist()) for word, row in zip(hashes[:-1].tolist(), member, strict=False)}


def _few_subjects(hashes: list[int]) -> list[float]:
    """As `_subjects` of words with these hashes: of a few one look each is less than what arrays cost."""
    found, logs, out = b"".join(filter(None, map(_members().get, hashes))), _logs(), [0.0] * (2 * len(SUBJECT_NAMES))
    for subject in set(found):
        count = found.count(subject)
        out[subject] = logs[count]
        out[len(SUBJECT_NAMES) + subject] = count / (5 + len(hashes))
    return out


@cache
def _logs() -> list[float]:
    """Of counts; a word is in a few subjects at most, and once in each."""
    logs: list[float] = np.log1p(np.arange(_FEW + 1, dtype=np.float32)).tolist()
    return logs


def _subjects(words: hashing.Words, out: F32) -> None:
    """Log counts of the words of each subject, then their shares of all words."""
    hashes, member, begins = _lexicon()
    maybe = words.hashes[begins[(words.hashes >> _TO_16).view(np.int64)]]
    places = hashes.searchsorted(maybe)
    counts = np.add.reduce(member[places[hashes[places] == maybe]], axis=0, dtype=np.float32)
    np.log1p(counts, out=out[: len(counts)])
    np.divide(counts, 5 + len(words.hashes), out=out[len(counts) :])

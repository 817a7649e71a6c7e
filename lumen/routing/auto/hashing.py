"""Words and character n-grams as numbers that are the same on every machine, in every process, for ever.

Everything works on whole arrays: the hash of a word is the difference of two prefix sums of a polynomial modulo 2**64
(Karp and Rabin, IBM J. Res. Dev. 31, 1987), made comparable by the inverse of the base's power at its beginning.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

# The most bytes one call takes; texts in scripts of three bytes a character are cut here.
MAX_BYTES = 16384
_BASE = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _powers(base: int) -> U64:
    out = np.empty(MAX_BYTES + 1, np.uint64)
    power = 1
    for i in range(len(out)):
        out[i] = power
        power = power * base & _MASK
    return out


def _of(kind: type[np.unsignedinteger], number: int) -> NDArray[Any]:
    return np.array(number, kind)


# Made once, as arrays of the type they are used with: any other number would be made one for every operation.
_U16, _U13 = _of(np.uint32, 16), _of(np.uint32, 13)
_U30, _U27, _U31 = _of(np.uint64, 30), _of(np.uint64, 27), _of(np.uint64, 31)
_BASE32, _FOUR, _FIVE = _of(np.uint32, 0x01000193), _of(np.uint32, 0x5BD1E995), _of(np.uint32, 0xC2B2AE35)
_MIX32 = _of(np.uint32, 0x85EBCA6B), _of(np.uint32, 0xC2B2AE35)
_MIX = _of(np.uint64, 0xBF58476D1CE4E5B9), _of(np.uint64, 0x94D049BB133111EB)
_ONE_WORD, _NEXT_WORD = _of(np.uint64, 3), _of(np.uint64, 0x100000001B3)
_DOWN_32 = tuple(_of(np.uint32, 32 - bits) for bits in range(17))
_DOWN_64 = tuple(_of(np.uint64, 64 - bits) for bits in range(17))
_UP = _powers(_BASE)
_DOWN = _powers(pow(_BASE, -1, 1 << 64))


def _folded() -> bytes:
    """Each byte as it is hashed: small letters, one kind of space, and every digit alike (a number's size is its
    length)."""
    table = np.arange(256, dtype=np.uint8)
    table[ord("A") : ord("Z") + 1] += 32
    table[ord("0") : ord("9") + 1] = ord("0")
    table[[9, 10, 11, 12, 13]] = 32
    return table.tobytes()


FOLDED = _folded()
# Letters, digits and every byte of a character beyond ASCII make up words.
IN_WORD = bytes(i >= 128 or chr(i).isalnum() for i in range(256))


class Words(NamedTuple):
    """The words of a text in order: a hash and a length in bytes for each; and the text as it is hashed."""

    hashes: U64
    lengths: NDArray[np.int64]
    folded: bytes


def raw(text: str) -> bytes:
    """The bytes of `text`, at most `MAX_BYTES`; lone surrogates become `?`."""
    return text.encode("utf-8", "replace")[:MAX_BYTES]


def words(data: bytes) -> Words:
    """Cut `data` into words and hash each of them."""
    inside, folded = np.frombuffer(b"\0" + data.translate(IN_WORD) + b"\0", np.uint8), data.translate(FOLDED)
    edges = (inside[1:] != inside[:-1]).nonzero()[0]
    begins = edges[::2]
    sums = np.zeros(len(data) + 1, np.uint64)
    rest = sums[1:]
    rest[:] = np.frombuffer(folded, np.uint8)
    rest *= _UP[: len(data)]
    np.add.accumulate(rest, out=rest)
    at = sums.take(edges)
    hashes = at[1::2] - at[::2]
    hashes *= _DOWN.take(begins)
    return Words(mixed(hashes), edges[1::2] - begins, folded)


def buckets(words: Words, bits: int, room: int = 0) -> U32:
    """The highest `bits` (16 at most) of the hash of each n-gram: the words, two words that follow each other; runs of
    three, four and five bytes, runs of spaces counted as one. `room`: for how many more there is to be, at the end."""
    letters, hashes, count = _letters(words.folded), words.hashes, len(words.hashes)
    runs = max(3 * len(letters) - 9, 0) if len(letters) >= 5 else 0
    found = np.empty(runs + max(2 * count - 1, 0) + room, np.uint32)
    if runs:
        hashed = found[:runs]
        _runs(letters, hashed)
        hashed >>= _DOWN_32[bits]
    if count:
        both = np.empty(2 * count - 1, np.uint64)
        both[:count] = hashes
        pairs = both[count:]
        np.multiply(hashes[:-1], _ONE_WORD, out=pairs)
        pairs += hashes[1:] * _NEXT_WORD
        both[count:] = _stirred(pairs)
        both >>= _DOWN_64[bits]
        found[runs : runs + len(both)] = both
    return found


def _letters(folded: bytes) -> U32:
    """The bytes as they are hashed, of each run of spaces the first, none at the beginning."""
    letters = np.frombuffer(folded, np.uint8)
    if b"  " in folded or folded.startswith(b" "):
        keep = letters != 32
        keep[1:] |= keep[:-1]
        letters = letters[keep]
    return letters.astype(np.uint32)


def _runs(letters: U32, out: U32) -> None:
    """Hashes of all runs of three, then of four, then of five, of which only the upper half is spread."""
    count = len(letters)
    three, four, five = out[: count - 2], out[count - 2 : 2 * count - 5], out[2 * count - 5 :]
    third = letters[2:]
    np.multiply(letters[:-2], _BASE32, out=three)
    three += letters[1:-1]
    three *= _BASE32
    three += third
    np.multiply(three[:-1], _BASE32, out=four)
    four += third[1:]
    np.multiply(four[:-1], _BASE32, out=five)
    five += third[2:]
    four ^= _FOUR
    five ^= _FIVE
    # As `mixed`, in half the width; its last step changes the lower half alone.
    more = out >> _U16
    out ^= more
    out *= _MIX32[0]
    np.right_shift(out, _U13, out=more)
    out ^= more
    out *= _MIX32[1]


def mixed(hashes: U64) -> U64:
    """Spread what differs over all bits (the finish of splitmix64, G. Steele et al., OOPSLA 2014)."""
    hashes = _stirred(hashes)
    hashes ^= hashes >> _U31
    return hashes


def _stirred(hashes: U64) -> U64:
    """`mixed` without its last step, which changes the lower half alone."""
    found: U64 = hashes >> _U30
    found ^= hashes
    found *= _MIX[0]
    found ^= found >> _U27
    found *= _MIX[1]
    return found


def token(text: str) -> int:
    """The 64-bit hash of a whole string, however long (BLAKE2b), for tags and system prompts."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def normals(seed: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Standard normal numbers that depend on `seed` alone (Box and Muller), unlike numpy's generators over its
    versions."""
    count = shape[0] * shape[1]
    stream = mixed((np.arange(2 * count, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(_BASE))
    uniform = ((stream >> np.uint64(11)).astype(np.float64) + 0.5) / float(1 << 53)
    radius = np.sqrt(-2.0 * np.log(uniform[:count]))
    return (radius * np.cos(2.0 * np.pi * uniform[count:])).reshape(shape).astype(np.float32)

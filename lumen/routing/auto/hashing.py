"""Words and character n-grams as numbers that are the same on every machine, in every process, for ever.

Everything works on whole arrays: the hash of a word is the difference of two prefix sums of a polynomial modulo 2**64
(Karp and Rabin, IBM J. Res. Dev. 31, 1987), made comparable by the inverse of the base's power at its beginning.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
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


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text in order: a hash, a length in bytes and a first byte for each."""

    hashes: U64
    lengths: NDArray[np.int64]
    first: U8


def raw(text: str) -> bytes:
    """The bytes of `text`, at most `MAX_BYTES`; lone surrogates become `?`."""
    return text.encode("utf-8", "replace")[:MAX_BYTES]


def words(data: bytes) -> Words:
    """Cut `data` into words and hash each of them."""
    inside = np.frombuffer(b"\0" + data.translate(IN_WORD) + b"\0", np.uint8)
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[::2], edges[1::2]
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(np.multiply(np.frombuffer(data.translate(FOLDED), np.uint8), _UP[: len(data)]), out=sums[1:])
    first = np.frombuffer(data, np.uint8)[begins]
    return Words(mixed((sums[ends] - sums[begins]) * _DOWN[begins]), ends - begins, first)


def pairs(hashes: U64) -> U64:
    """One hash for each two words that follow each other."""
    return mixed(hashes[:-1] * np.uint64(3) + hashes[1:] * np.uint64(0x100000001B3))


def char_grams(data: bytes) -> U32:
    """Hashes of all runs of three, four and five bytes, runs of spaces counted as one."""
    folded = np.frombuffer(data.translate(FOLDED), np.uint8)
    keep = folded != 32
    keep[1:] |= keep[:-1]
    letters = folded[keep].astype(np.uint32)
    if len(letters) < 5:
        return np.zeros(0, np.uint32)
    base = np.uint32(0x01000193)
    three = (letters[:-2] * base + letters[1:-1]) * base + letters[2:]
    four = three[:-1] * base + letters[3:]
    five = four[:-1] * base + letters[4:]
    return _mixed32(np.concatenate((three, four ^ np.uint32(0x5BD1E995), five ^ np.uint32(0xC2B2AE35))))


def mixed(hashes: U64) -> U64:
    """Spread what differs over all bits (the finish of splitmix64, G. Steele et al., OOPSLA 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _mixed32(hashes: U32) -> U32:
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


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

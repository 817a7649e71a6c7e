"""The space requests are compared in: n-grams as they are, counts and subjects through random waves, and the prior.

Ridge regression there is kernel ridge regression with the kernel `n-grams · n-grams + a · rbf(counts) + b ·
rbf(subjects) + c · prior · prior`. How hard a request looks (`prior.py`) is one direction, and so wide that the labels
alone say what it is worth. Source of the waves: A. Rahimi and B. Recht, "Random Features for Large-Scale Kernel
Machines", NIPS 2007.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto import prior
from lumen.routing.auto.features import BUCKETS, F32, KINDS, PLAIN, SUBJECT_NAMES, Features, Table
from lumen.routing.auto.hashing import normals

_WAVES = 128
_WIDTH = 0.7
# Past three standard deviations more is not told apart from much.
CLIP = 3.0
FLAT = 1e-6
# (weight in the kernel, seed of the waves) of a block.
_PLAIN_BLOCK, _SUBJECT_BLOCK, _LENGTH_BLOCK = (0.5, 11), (0.4, 12), (0.2, 13)
# The root of the prior's weight in the kernel.
LOOKS = np.float32(1.0)
SIZE = BUCKETS + 4 * _WAVES + 1
LENGTH_SIZE = 2 * _WAVES


@dataclass(frozen=True)
class Scale:
    """Mean and inverse standard deviation of each column; 0 where a column never changed, so that it is not used."""

    mean: F32
    inverse: F32

    @staticmethod
    def of(columns: F32) -> Scale:
        """Fitted to `columns` (n × m)."""
        deviation = columns.std(axis=0)
        inverse = np.where(deviation > FLAT, 1.0 / np.maximum(deviation, FLAT), 0.0)
        return Scale(columns.mean(axis=0).astype(np.float32), inverse.astype(np.float32))

    def apply(self, columns: F32) -> F32:
        """Standard scores within ±3, divided by the root of the number of columns in use."""
        scores: F32 = (columns - self.mean) * self.inverse
        within(scores)
        scores /= self.root
        return scores

    @cached_property
    def root(self) -> np.float32:
        """Of the number of columns in use."""
        return np.float32(np.sqrt(max(int(np.count_nonzero(self.inverse)), 1)))


def within(scores: F32) -> None:
    """Cut standard scores to ±3, in place."""
    np.maximum(scores, -CLIP, out=scores)
    np.minimum(scores, CLIP, out=scores)


class Waves:
    """The random waves of one block, made once for a width."""

    def __init__(self, width: int, block: tuple[float, int]) -> None:
        weight, seed = block
        self.frequencies = normals(seed, (width, _WAVES)) / np.float32(_WIDTH)
        self.size = np.float32(np.sqrt(weight / _WAVES))

    def __call__(self, scores: F32) -> F32:
        """Scores (… × width) as waves (… × 2 · _WAVES)."""
        turns = scores @ self.frequencies
        return np.concatenate((np.cos(turns), np.sin(turns)), axis=-1) * self.size


@dataclass(frozen=True, slots=True)
class Space:
    """What was learnt about the requests themselves, without labels."""

    centre: F32
    plain: Scale
    subjects: Scale
    waves: tuple[Waves, Waves]

    @staticmethod
    def of(rows: Table) -> Space:
        """Fitted to the labelled requests."""
        bare = Space(np.zeros(SIZE, np.float32), Scale.of(rows.plain), Scale.of(rows.subjects), _waves())
        return Space(bare(rows).mean(axis=0), bare.plain, bare.subjects, bare.waves)

    def __call__(self, rows: Table | Features) -> F32:
        """Rows as points (… × SIZE), the mean of the labelled requests at the origin."""
        plain = self.waves[0](self.plain.apply(rows.plain))
        subjects = self.waves[1](self.subjects.apply(rows.subjects))
        looks = (prior.score(rows.plain) * LOOKS)[..., None].astype(np.float32)
        points = np.concatenate((rows.grams, plain, subjects, looks), axis=-1)
        points -= self.centre
        return points

    def kernel(self, rows: Table, points: F32) -> F32:
        """The inner products of each two `points` (n × n), which are those of `rows`, the labelled requests."""
        if rows.products is None:
            return points @ points.T
        waves = points[:, BUCKETS:] + self.centre[BUCKETS:]
        whole = rows.products + waves @ waves.T
        mean = whole.mean(axis=0)
        found: F32 = whole - mean - (mean - mean.mean())[:, None]
        return found

    def unseen(self) -> tuple[tuple[str, int, float], ...]:
        """What kinds of things, such as images, no labelled request had more or less of than another: name, place among
        the plain counts, what all had."""
        return tuple((name, at, float(self.plain.mean[at])) for name, at in _KIND_PLACES if self.plain.inverse[at] == 0)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All there is to keep."""
        return {
            "centre": self.centre,
            "plain_mean": self.plain.mean,
            "plain_inverse": self.plain.inverse,
            "subjects_mean": self.subjects.mean,
            "subjects_inverse": self.subjects.inverse,
        }

    @staticmethod
    def from_arrays(kept: Mapping[str, NDArray[np.float32]]) -> Space:
        """The same space again."""
        return Space(
            kept["centre"],
            Scale(kept["plain_mean"], kept["plain_inverse"]),
            Scale(kept["subjects_mean"], kept["subjects_inverse"]),
            _waves(),
        )


_KIND_PLACES = tuple((name, PLAIN.index(name)) for name in KINDS)


def _waves() -> tuple[Waves, Waves]:
    return Waves(len(PLAIN), _PLAIN_BLOCK), Waves(2 * len(SUBJECT_NAMES), _SUBJECT_BLOCK)


def length_waves(targets: int) -> Waves:
    """The waves of the block of expected output lengths, one a target."""
    return Waves(targets, _LENGTH_BLOCK)

"""One request at a time: what `Scorer.score_table` makes of a table of one row, at half the work.

A table's score is some hundred operations on arrays of one row, each of which costs more than its numbers do, and reads
the weights of every bucket, which costs whoever computes next what was in the processor's caches. So what does not hang
on the request is worked out when a model loads, of the n-grams' weights only those of the request's own are read, and
what is as short as the list of targets is done without arrays. The two differ by how single precision rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto import near, prior
from lumen.routing.auto.far import Far
from lumen.routing.auto.features import BUCKETS, F32, PLAIN, Reading
from lumen.routing.auto.precision import single
from lumen.routing.auto.space import CLIP, FLAT, Scale, Space, Waves, within
from lumen.routing.auto.themes import Themes

LONGEST = 200_000.0


class One(NamedTuple):
    """`ok`, `loss`, `tokens`: of each target, in the model's order; `nearest`: how alike the nearest labelled request
    is; `unseen`: what no labelled request had, such as images."""

    ok: list[float]
    loss: list[float]
    tokens: list[float] | None
    nearest: float
    unseen: tuple[str, ...]


class _Lengths(NamedTuple):
    """What expected lengths are made of: see `learner.py`."""

    mean: list[float]
    smear: list[float]
    middle: list[float]
    inverse: list[float]
    root: float
    waves: Waves
    weigh: F32

    def scores(self, logs: list[float]) -> F32:
        """As `Scale.apply`, in single precision."""
        off = single(*(value - mean for value, mean in zip(single(*logs), self.middle, strict=True)))
        off = single(*(value * inverse for value, inverse in zip(off, self.inverse, strict=True)))
        return np.array([min(max(value, -CLIP), CLIP) / self.root for value in off], np.float32)


class Single:
    """A model made ready for single requests; `lines` (columns × 2): intercept and slope of each."""

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        space: Space,
        themes: Themes,
        neighbours: near.Near,
        far: Far,
        lines: list[list[float]],
        best: int,
        lengths: tuple[Scale, Waves] | None,
    ) -> None:
        self._mean, self._themes, self._of_themes = arrays["mean"].tolist(), themes, arrays["theme_weights"]
        weights = [arrays["weights"], themes.directions]
        self._near, self._far, self._lines, self._best = neighbours, far, lines, best
        self._level, self._spread = far.level.tolist(), far.spread.tolist()
        self._middle = np.concatenate((space.plain.mean, space.subjects.mean))
        self._inverse = np.concatenate((space.plain.inverse, space.subjects.inverse))
        self._root = np.concatenate([np.full(len(s.mean), s.root, np.float32) for s in (space.plain, space.subjects)])
        self._plain, self._subjects = (waves.frequencies for waves in space.waves)
        self._sizes = np.repeat(np.array([waves.size for waves in space.waves], np.float32), 2 * len(self._plain[0]))
        self._unseen = space.unseen()
        self._lengths = None
        if lengths is not None:
            weights.insert(1, arrays["length_weights"])
            self._of_themes = np.concatenate((self._of_themes, arrays["length_theme_weights"]), axis=1)
            scale, waves = lengths
            self._lengths = _Lengths(
                arrays["length_mean"].tolist(), arrays["length_smear"].tolist(),
                scale.mean.tolist(), scale.inverse.tolist(), float(scale.root), waves, arrays["wave_weights"],
            )  # fmt: skip
        # Most buckets are empty: of the rows that belong to n-grams only those are read that are wanted.
        joined = np.ascontiguousarray(np.concatenate(weights, axis=1))
        self._grams, self._waves = joined[:BUCKETS], joined[BUCKETS:]
        self._origin = -(space.centre.astype(np.float64) @ joined).astype(np.float32)
        self._of_themes = np.ascontiguousarray(self._of_themes.T)

    def __call__(self, one: Reading) -> One:
        """Score one request."""
        read, columns = one.values @ self._grams.take(one.places, axis=0), len(self._of_themes)
        read += self._waving(one.row) @ self._waves
        read += self._origin
        read[:columns] += self._of_themes @ self._themes.alike_one(read[columns:])
        plain = one.row[: len(PLAIN)].tolist()
        values = read[:columns].tolist()
        found = [value + mean for value, mean in zip(values, self._mean, strict=False)]
        tokens = None if self._lengths is None else self._long(values[len(found) :], found, self._lengths)
        shift, nearest = self._near.correct_one(near.sketch_one(one.places, one.values))
        if shift is not None:
            found = [value + more for value, more in zip(found, shift.tolist(), strict=True)]
        found = [at + steep * value for (at, steep), value in zip(self._lines, found, strict=True)]
        targets = len(self._level)
        ok = [min(max(value, 0.0), 1.0) for value in found[:targets]]
        loss = self._blended(self._lost(ok, found[targets:]), nearest, prior.looks(plain))
        unseen = tuple(name for name, at, usual in self._unseen if abs(plain[at] - usual) > FLAT)
        return One(ok, loss, tokens, nearest, unseen)

    def _waving(self, row: F32) -> F32:
        """Plain counts and subjects through the waves: the last part of a point in the space, not yet centred."""
        scores = row - self._middle
        scores *= self._inverse
        within(scores)
        scores /= self._root
        half = len(self._plain[0])
        waves, turns = np.empty(4 * half, np.float32), np.empty((2, half), np.float32)
        np.matmul(scores[: len(PLAIN)], self._plain, out=turns[0])
        np.matmul(scores[len(PLAIN) :], self._subjects, out=turns[1])
        both = waves.reshape(2, 2, half)
        np.cos(turns, out=both[:, 0])
        np.sin(turns, out=both[:, 1])
        waves *= self._sizes
        return waves

    def _long(self, read: list[float], found: list[float], known: _Lengths) -> list[float]:
        """The length expected of each target; `found` is told what that says of the answers."""
        logs = [value + mean for value, mean in zip(read, known.mean, strict=True)]
        turns = known.scores(logs) @ known.waves.frequencies
        waves = np.empty(2 * len(turns), np.float32)
        np.cos(turns, out=waves[: len(turns)])
        np.sin(turns, out=waves[len(turns) :])
        waves *= known.waves.size
        for i, more in enumerate((waves @ known.weigh).tolist()):
            found[i] += more
        return [
            min(max(exp(min(max(value, 0.0), 20.0)) * smear - 1.0, 1.0), LONGEST)
            for value, smear in zip(logs, known.smear, strict=True)
        ]

    def _lost(self, ok: list[float], direct: list[float]) -> list[float]:
        """As `expected_loss`."""
        strong, rest = ok[self._best], iter(direct)
        return [0.0 if i == self._best else (next(rest) + strong - good) / 2 for i, good in enumerate(ok)]

    def _blended(self, loss: list[float], nearest: float, looks: float) -> list[float]:
        """As `Far.blend`."""
        far = self._far
        learnt = min(max((nearest - far.low) / (far.high - far.low), 0.0), 1.0)
        off, rest = (looks - far.prior[0]) / far.prior[1], 1.0 - learnt
        return [
            level + learnt * (value - level) + rest * off * spread
            for value, level, spread in zip(loss, self._level, self._spread, strict=True)
        ]

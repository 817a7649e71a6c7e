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
from lumen.routing.auto.space import CLIP, FLAT, LOOKS, Scale, Space, Waves
from lumen.routing.auto.themes import WEIGHT, Themes

LONGEST = 200_000.0


def _waves(turns: F32, out: F32) -> None:
    """Cosines, then sines, of all `turns` (n → 2 · n)."""
    np.cos(turns, out=out[: len(turns)])
    np.sin(turns, out=out[len(turns) :])


def _in_turn(weights: F32, waves: tuple[Waves, Waves]) -> F32:
    """Weights of the waves (4 · half × columns) in the order of `_waves`, times the waves' sizes."""
    half, columns = len(weights) // 4, weights.shape[1]
    sizes = np.array([each.size for each in waves], np.float32)[:, None, None, None]
    blocks = weights.reshape(2, 2, half, columns) * sizes
    return np.ascontiguousarray(blocks.swapaxes(0, 1)).reshape(4 * half, columns)


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
    most: float
    frequencies: F32
    weigh: F32

    @staticmethod
    def of(arrays: Mapping[str, NDArray[Any]], scale: Scale, waves: Waves) -> _Lengths:
        """Of a model; what every request would be multiplied with is multiplied into its arrays."""
        root = float(scale.root)
        inverse = [each / root for each in scale.inverse.tolist()]
        return _Lengths(
            arrays["length_mean"].tolist(), arrays["length_smear"].tolist(), scale.mean.tolist(), inverse,
            CLIP / root, waves.frequencies, arrays["wave_weights"] * waves.size,
        )  # fmt: skip

    def waving(self, logs: list[float]) -> F32:
        """The waves (as `Waves` of `Scale.apply`, but for their size) of what lengths are expected."""
        most, each = self.most, zip(logs, self.middle, self.inverse, strict=True)
        scores = [min(max((value - middle) * inverse, -most), most) for value, middle, inverse in each]
        turns = np.array(scores, np.float32).dot(self.frequencies)
        waves = np.empty(2 * len(turns), np.float32)
        _waves(turns, waves)
        return waves


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
        root = np.concatenate([np.full(len(s.mean), s.root, np.float32) for s in (space.plain, space.subjects)])
        self._inverse = np.concatenate((space.plain.inverse, space.subjects.inverse)) / root
        self._most = np.float32(CLIP) / root
        self._least = -self._most
        self._plain, self._subjects = (waves.frequencies for waves in space.waves)
        self._unseen = space.unseen()
        self._lengths = None
        if lengths is not None:
            weights.insert(1, arrays["length_weights"])
            self._of_themes = np.concatenate((self._of_themes, arrays["length_theme_weights"]), axis=1)
            self._lengths = _Lengths.of(arrays, *lengths)
        # Most buckets are empty: of the rows that belong to n-grams only those are read that are wanted.
        joined = np.ascontiguousarray(np.concatenate(weights, axis=1))
        self._grams = joined[:BUCKETS]
        origin = -(space.centre.astype(np.float64) @ joined).astype(np.float32)
        beside = np.concatenate((_in_turn(joined[BUCKETS:-1], space.waves), origin[None], joined[-1:] * LOOKS))
        # Two columns more, for what `Themes.alike_one` takes beside a place: a 1 with the origin, and room.
        self._beside = np.zeros((len(beside), beside.shape[1] + 2), np.float32)
        self._beside[:, :-2] = beside
        self._beside[-2, -1] = 1.0
        self._of_themes = np.ascontiguousarray(self._of_themes.T * WEIGHT)

    def __call__(self, one: Reading) -> One:
        """Score one request."""
        plain, columns = one.row[: len(PLAIN)].tolist(), len(self._of_themes)
        looks = prior.looks(plain)
        read = self._waving(one.row, looks).dot(self._beside)
        read[:-2] += one.values.dot(self._grams.take(one.places, axis=0))
        place = read[columns:-2]
        read[-2] = place.dot(place)
        scores = read[:columns]
        scores += self._of_themes.dot(self._themes.alike_one(read[columns:]))
        values = scores.tolist()
        found = [value + mean for value, mean in zip(values, self._mean, strict=False)]
        tokens = None if self._lengths is None else self._long(values[len(found) :], found, self._lengths)
        shift, nearest = self._near.correct_one(one.places, one.values)
        if shift is not None:
            found = [value + more for value, more in zip(found, shift.tolist(), strict=True)]
        found = [at + steep * value for (at, steep), value in zip(self._lines, found, strict=True)]
        targets = len(self._level)
        ok = [min(max(value, 0.0), 1.0) for value in found[:targets]]
        loss = self._blended(self._lost(ok, found[targets:]), nearest, looks)
        unseen = tuple(name for name, at, usual in self._unseen if abs(plain[at] - usual) > FLAT)
        return One(ok, loss, tokens, nearest, unseen)

    def _waving(self, row: F32, looks: float) -> F32:
        """Plain counts and subjects through the waves, then 1 for the origin, then `looks`: a part of a point in the
        space, neither centred nor of its size, the cosines first."""
        scores = row - self._middle
        scores *= self._inverse
        np.maximum(scores, self._least, out=scores)
        np.minimum(scores, self._most, out=scores)
        half = self._plain.shape[1]
        turns, waves = np.empty(2 * half, np.float32), np.empty(4 * half + 2, np.float32)
        scores[: len(PLAIN)].dot(self._plain, out=turns[:half])
        scores[len(PLAIN) :].dot(self._subjects, out=turns[half:])
        _waves(turns, waves[:-2])
        waves[-2] = 1.0
        waves[-1] = looks
        return waves

    def _long(self, read: list[float], found: list[float], known: _Lengths) -> list[float]:
        """The length expected of each target; `found` is told what that says of the answers."""
        logs = [value + mean for value, mean in zip(read, known.mean, strict=True)]
        for i, more in enumerate(known.waving(logs).dot(known.weigh).tolist()):
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

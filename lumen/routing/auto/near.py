"""Labelled requests that are nearly the same as this one, and what they say beyond what the regression says.

Traffic repeats itself: templates, retries, the same question in other words. Where a labelled request is very near, its
label says more than any model. A sketch of the n-grams keeps the search for it cheap, and an outline of the sketch
cheaper still: every request reads the outlines of all labelled ones, and what they push out of the processor's caches
costs it more than the products do.
"""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto.features import BITS, BUCKETS

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

# Twice as many tell no more requests apart that should be.
SKETCH = 128
# Of the directions of sketches, those that labelled requests have most of. With twice as many nothing is scored better.
OUTLINE = 32
# Only where the outlines of two requests point the same way as much as this are their sketches compared.
_LOOK = 0.7
# Below this similarity a neighbour says nothing of its own; unrelated texts of one kind come to about 0.5.
_FROM = 0.8
_LEAST = np.array(_FROM, np.float32)
# From this similarity on two requests are the same one, asked again in nearly the same words.
_SAME = 0.95
# By how many bits a bucket's number is longer than its place in a sketch.
_FOLD = np.array(BITS - SKETCH.bit_length() + 1, np.intp)
# What makes up so much of the labels comes again in new traffic, and its labels say what becomes of it there.
_RECURS = 0.01


class Near:
    """`sketches` (n × SKETCH) of the labelled requests, `turn` (SKETCH × OUTLINE) makes outlines of them, see `turn`.

    `residuals` (n × c, 0 where unknown), `known` (n × c, 0 or 1); `doubt`: labels' worth of the regression, infinity
    where neighbours do not help; `familiar`, `usual`: the similarity that all but one in a hundred, and all but a
    fifth, of the labelled requests have to their nearest neighbour, by their outlines.
    """

    def __init__(
        self, sketches: F32, turn: F32, residuals: F32, known: F32, doubt: float, familiar: float, usual: float = 1.0
    ) -> None:
        self.sketches, self.turn, self.residuals, self.known = sketches, turn, residuals, known
        self.doubt, self.familiar, self.usual = doubt, familiar, usual
        self._outlines = np.ascontiguousarray(sketches @ turn)
        self._sizes = np.sqrt((self._outlines**2).sum(axis=1))

    def correct_one(self, places: NDArray[np.intp], values: F32) -> tuple[F64 | None, float]:
        """The same of the one request that has `values` in the buckets at `places`; `None`: nothing is added, because
        none is near."""
        if not len(self.sketches):
            return None, 0.0
        folded = np.bincount(places >> _FOLD, values, SKETCH).astype(np.float32)
        # What the sketch would be divided by, its products are.
        length = max(sqrt(folded.dot(folded)), 1e-9)
        outline = folded.dot(self.turn)
        alike = self._outlines.dot(outline)
        best = int(alike.argmax())
        most = alike.item(best)
        nearest: float = most / length
        if self.doubt == inf or most <= _LOOK * sqrt(outline.dot(outline)) * self._sizes.item(best):
            return None, nearest
        alike = self.sketches.dot(folded / length)
        rows = (alike > _LEAST).nonzero()[0]
        if not len(rows):
            return None, nearest
        return _shift(alike[rows][None], self.residuals[rows], self.known[rows], self.doubt)[0], nearest

    def correct(self, grams: F32) -> tuple[F64, F64]:
        """What to add to predictions (m × c), and the similarity of the nearest labelled request by its outline (m),
        for m requests with these hashed n-grams (m × BUCKETS)."""
        if not len(self.sketches):
            return np.zeros((len(grams), self.residuals.shape[1])), np.zeros(len(grams))
        sketches = sketch(grams)
        outlines = sketches @ self.turn
        # For a single request a matrix times a vector, which is several times faster than the general product.
        alike = (self._outlines @ outlines[0])[None] if len(grams) == 1 else outlines @ self._outlines.T
        best = alike.argmax(axis=1)
        most = alike[np.arange(len(alike)), best].astype(np.float64)
        near = most > _LOOK * np.sqrt((outlines**2).sum(axis=1)) * self._sizes[best]
        shift = np.zeros((len(grams), self.residuals.shape[1]))
        if near.any() and self.doubt != inf:
            shift[near] = _shift(sketches[near] @ self.sketches.T, self.residuals, self.known, self.doubt)
        return shift, most


def turn(sketches: F32) -> F32:
    """The OUTLINE directions (SKETCH × OUTLINE) that most of these (n × SKETCH) lies along.

    What a request has beside them counts for its length and not for its products: one that is unlike all of these has a
    small outline, and is near none.
    """
    _, directions = np.linalg.eigh((sketches.T @ sketches).astype(np.float64))
    return np.ascontiguousarray(directions[:, : -OUTLINE - 1 : -1], np.float32)


def sketch(grams: F32) -> F32:
    """Hashed n-grams (… × BUCKETS) folded to SKETCH numbers of length 1, which keep cosines to about ±0.09."""
    folded = grams.reshape(*grams.shape[:-1], SKETCH, BUCKETS // SKETCH).sum(axis=-1)
    length = np.sqrt((folded * folded).sum(axis=-1, keepdims=True))
    out: F32 = folded / np.maximum(length, 1e-9)
    return out


def compared(sketches: F32) -> tuple[F32, Rows]:
    """How alike each two rows are (n × n), −1 within a group; and the group of each row (n).

    A group are rows that are the same request but for a word, such as retries; they are learnt from and judged
    together, or one would be predicted by another's label, which a new request has not. Where a group makes up a
    hundredth of all rows or more, new traffic has more of it, and its rows stand for themselves.
    """
    alike = sketches @ sketches.T
    groups = _groups(alike)
    _part(alike, groups)
    return alike, groups


def _part(alike: F32, groups: Rows) -> None:
    for rows in np.split(np.argsort(groups, kind="stable"), np.flatnonzero(np.diff(np.sort(groups))) + 1):
        alike[np.ix_(rows, rows)] = -1.0


def _groups(alike: F32) -> Rows:
    """The first row of each group stands for it; what is like that one and in no group yet belongs to it."""
    rows = len(alike)
    groups = np.arange(rows)
    most, free = max(int(_RECURS * rows), 1), np.ones(rows, np.bool_)
    for row in range(rows):
        if not free[row]:
            continue
        same = np.flatnonzero((alike[row] >= _SAME) & free)
        free[same] = False
        if 1 < len(same) <= most:
            groups[same] = row
    return groups


def learn(alike: F32, groups: Rows, sketches: F32, labels: F64, left_out: F64, judged: Rows) -> tuple[Near, F64, F64]:
    """Neighbours with the doubt that predicts the columns `judged` best, what they add to each row left out (n × c),
    and how alike its nearest neighbour is by its outline (n). `alike`, `groups`: see `compared`."""
    known = ~np.isnan(labels)
    residuals = np.where(known, labels - left_out, 0.0).astype(np.float32)
    mask = known.astype(np.float32)
    best, shift, doubt = _missed(residuals, mask, judged), np.zeros(labels.shape), float("inf")
    if alike.max(initial=-1.0) > _FROM:
        for choice in (1.0, 3.0, 10.0):
            tried = _shift(alike, residuals, mask, choice)
            missed = _missed(residuals - tried, mask, judged)
            if missed < best:
                best, shift, doubt = missed, tried, choice
    turned = turn(sketches)
    outlines = sketches @ turned
    alike = outlines @ outlines.T
    _part(alike, groups)
    nearest = alike.max(axis=1) if len(alike) > 1 else np.zeros(len(alike))
    familiar, usual = np.quantile(nearest, (0.01, 0.2)) if len(nearest) else (0.0, 1.0)
    found = Near(sketches, turned, residuals, mask, doubt, float(familiar), float(usual))
    return found, shift, nearest.astype(np.float64)


def _missed(residuals: NDArray[np.floating], known: F32, judged: NDArray[np.int64]) -> float:
    return float((known[:, judged] * residuals[:, judged] ** 2).sum())


def _shift(alike: F32, residuals: F32, known: F32, doubt: float) -> F64:
    """The neighbours' residuals, weighed by nearness and shrunk to nothing where few are near."""
    if np.isinf(doubt):
        return np.zeros((len(alike), residuals.shape[1]))
    weights = np.maximum((alike - _FROM) / (1.0 - _FROM), 0.0)
    weights *= weights
    out: F64 = ((weights @ residuals) / (weights @ known + doubt)).astype(np.float64)
    return out

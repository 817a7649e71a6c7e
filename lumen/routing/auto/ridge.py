"""Ridge regression through the kernel, with every row's prediction by the model that never saw that row.

With A = K + λ/w the residual of row i, left out, is (A⁻¹y)ᵢ / (A⁻¹)ᵢᵢ, and that of a group G left out together
((A⁻¹)_GG)⁻¹ (A⁻¹y)_G: the same labels serve to learn and to judge.
Source: G. Wahba, "Spline Models for Observational Data", 1990; D. Allen, Technometrics 16 (1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

# Below this a plain inverse is as fast.
_BLOCK = 256
# How far off the inverse times the matrix may be from doing nothing to a vector of numbers up to 1.
_EXACT = 1e-3


@dataclass(frozen=True, slots=True)
class Fit:
    """`dual` (n × c): weights of the rows. `mean` (c). `left_out` (n × c): each row as predicted without its own label.

    A row without a label in a column has weight 0 there, and its prediction is the model's.
    """

    dual: F32
    mean: F64
    left_out: F64


class Ridged:
    """A kernel (n × n, centred) to regress on, with its inverse once that was needed.

    `weights` (n, positive, mean 1): how many requests a row stands for. `groups` (n): rows of one number are left out
    together; `None`: each alone.
    """

    def __init__(
        self, kernel: F32, weights: F64, penalty: float, groups: Rows | None = None, inverse: F32 | None = None
    ) -> None:
        self.kernel, self.weights, self.penalty, self.groups = kernel, weights, penalty, groups
        self._inverse = inverse

    def plus(self, more: F32) -> Ridged:
        """The same with the features `more` (n × m) added; where the inverse is known it is not worked out anew."""
        inverse = None if self._inverse is None else _updated(self._inverse, more)
        return Ridged(self.kernel + more @ more.T, self.weights, self.penalty, self.groups, inverse)

    def inverse(self) -> F32:
        """Of the kernel with its penalty, over all rows."""
        if self._inverse is None:
            self._inverse = inverted(_ridged(self.kernel, self.weights, self.penalty))
        return self._inverse


def fit(ridged: Ridged, labels: F64) -> Fit:
    """Regress each column of `labels` (n × c, NaN where unknown) on the rows of the kernel."""
    rows, columns = labels.shape
    dual = np.zeros((rows, columns), np.float32)
    mean = np.zeros(columns)
    left_out = np.zeros((rows, columns))
    known = ~np.isnan(labels)
    for group in _alike(known):
        here = np.flatnonzero(known[:, group[0]])
        if not len(here):
            continue
        share, whole = ridged.weights[here], len(here) == rows
        mean[group] = share @ labels[np.ix_(here, group)] / share.sum()
        wanted = labels[np.ix_(here, group)] - mean[group]
        kernel = ridged.kernel if whole else ridged.kernel[np.ix_(here, here)]
        inverse = ridged.inverse() if whole else inverted(_ridged(kernel, share, ridged.penalty))
        solved = inverse @ wanted.astype(np.float32)
        dual[np.ix_(here, group)] = solved
        together = None if ridged.groups is None else ridged.groups[here]
        left_out[np.ix_(here, group)] = labels[np.ix_(here, group)] - _residuals(inverse, solved, together)
        if not whole:
            rest = np.setdiff1d(np.arange(rows), here)
            left_out[np.ix_(rest, group)] = mean[group] + ridged.kernel[np.ix_(rest, here)] @ solved
    return Fit(dual, mean, left_out)


def penalty(kernel: F32, labels: F64, weights: F64, choices: Sequence[float], margin: float) -> float:
    """The last of `choices`, or the one whose left-out error is smaller than the last one's by more than `margin`.

    `labels` (n × c) as in `fit`. The error is the mean over columns, each measured against its own variance.
    """
    errors = [_error(fit(Ridged(kernel, weights, choice), labels), labels, weights) for choice in choices]
    best = int(np.argmin(errors))
    return choices[best] if errors[best] < errors[-1] * (1.0 - margin) else choices[-1]


def _residuals(inverse: F32, solved: F32, groups: Rows | None) -> F64:
    """What each row's label is off its prediction without its group."""
    found: F64 = (solved / np.diagonal(inverse)[:, None]).astype(np.float64)
    if groups is None:
        return found
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(rows) > 1:
            found[rows] = np.linalg.solve(inverse[np.ix_(rows, rows)].astype(np.float64), solved[rows])
    return found


def _error(fitted: Fit, labels: F64, weights: F64) -> float:
    known = ~np.isnan(labels)
    share = weights[:, None] * known
    total = np.maximum(share.sum(axis=0), 1e-9)
    missed = (share * np.where(known, labels - fitted.left_out, 0.0) ** 2).sum(axis=0) / total
    spread = (share * np.where(known, labels - fitted.mean, 0.0) ** 2).sum(axis=0) / total
    return float((missed / np.maximum(spread, 1e-9)).mean())


def _alike(known: NDArray[np.bool_]) -> list[Rows]:
    """Columns grouped by which rows have a label in them: a group costs one inverse."""
    groups: dict[bytes, list[int]] = {}
    for column in range(known.shape[1]):
        groups.setdefault(known[:, column].tobytes(), []).append(column)
    return [np.array(group) for group in groups.values()]


def _ridged(kernel: F32, weights: F64, penalty: float) -> F32:
    out = kernel.copy()
    out[np.diag_indices(len(out))] += (penalty / weights).astype(np.float32)
    return out


def _updated(inverse: F32, more: F32) -> F32:
    """The inverse of a matrix with `more · moreᵀ` added (M. Woodbury, 1950)."""
    across = inverse @ more
    inner = np.eye(more.shape[1], dtype=np.float32) + more.T @ across
    found: F32 = inverse - across @ np.linalg.solve(inner, across.T)
    return found


def inverted(matrix: F32) -> F32:
    """The inverse of a symmetric positive definite matrix, by halves where that is exact enough.

    All of that is multiplication, so it is fast; but where many rows are alike and the penalty is small the halves lose
    what single precision has, which shows on any vector.
    """
    found = _halved(matrix)
    probe = np.cos(np.arange(len(matrix), dtype=np.float32))
    missed = float(np.abs(matrix @ (found @ probe) - probe).max(initial=0.0))
    return found if missed < _EXACT else np.linalg.inv(matrix)


def _halved(matrix: F32) -> F32:
    size = len(matrix)
    if size <= _BLOCK:
        return np.linalg.inv(matrix)
    half = size // 2
    first = _halved(matrix[:half, :half])
    across = first @ matrix[:half, half:]
    last = _halved(matrix[half:, half:] - matrix[half:, :half] @ across)
    corner = across @ last
    out = np.empty_like(matrix)
    out[:half, :half] = first + corner @ across.T
    out[:half, half:] = -corner
    out[half:, :half] = -corner.T
    out[half:, half:] = last
    return out

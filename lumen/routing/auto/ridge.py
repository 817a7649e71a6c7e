"""Ridge regression through the kernel, with every row's prediction by the model that never saw that row.

With A = K + λ/w the leave-one-out residual of row i is (A⁻¹y)ᵢ / (A⁻¹)ᵢᵢ: the same labels serve to learn and to judge.
Source: G. Wahba, "Spline Models for Observational Data", 1990; D. Allen, Technometrics 16 (1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Below this a plain inverse is as fast.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Fit:
    """`dual` (n × c): weights of the rows. `mean` (c). `left_out` (n × c): each row as predicted without its own label.

    A row without a label in a column has weight 0 there, and its prediction is the model's.
    """

    dual: F32
    mean: F64
    left_out: F64


def fit(kernel: F32, labels: F64, weights: F64, penalty: float) -> Fit:
    """Regress each column of `labels` (n × c, NaN where unknown) on the rows of `kernel` (n × n, centred).

    `weights` (n, positive, mean 1): how many requests a row stands for.
    """
    rows, columns = labels.shape
    dual = np.zeros((rows, columns), np.float32)
    mean = np.zeros(columns)
    left_out = np.zeros((rows, columns))
    known = ~np.isnan(labels)
    for group in _alike(known):
        here = np.flatnonzero(known[:, group[0]])
        if not len(here):
            continue
        share = weights[here]
        mean[group] = share @ labels[np.ix_(here, group)] / share.sum()
        wanted = labels[np.ix_(here, group)] - mean[group]
        whole = len(here) == rows
        inverse = inverted(_ridged(kernel if whole else kernel[np.ix_(here, here)], share, penalty))
        solved = inverse @ wanted.astype(np.float32)
        dual[np.ix_(here, group)] = solved
        left_out[np.ix_(here, group)] = labels[np.ix_(here, group)] - solved / np.diagonal(inverse)[:, None]
        if not whole:
            rest = np.setdiff1d(np.arange(rows), here)
            left_out[np.ix_(rest, group)] = mean[group] + kernel[np.ix_(rest, here)] @ solved
    return Fit(dual, mean, left_out)


def penalty(kernel: F32, labels: F64, weights: F64, choices: Sequence[float], margin: float) -> float:
    """The last of `choices`, or the one whose left-out error is smaller than the last one's by more than `margin`.

    `labels` (n × c) as in `fit`. The error is the mean over columns, each measured against its own variance.
    """
    errors = [_error(fit(kernel, labels, weights, choice), labels, weights) for choice in choices]
    best = int(np.argmin(errors))
    return choices[best] if errors[best] < errors[-1] * (1.0 - margin) else choices[-1]


def _error(fitted: Fit, labels: F64, weights: F64) -> float:
    known = ~np.isnan(labels)
    share = weights[:, None] * known
    total = np.maximum(share.sum(axis=0), 1e-9)
    missed = (share * np.where(known, labels - fitted.left_out, 0.0) ** 2).sum(axis=0) / total
    spread = (share * np.where(known, labels - fitted.mean, 0.0) ** 2).sum(axis=0) / total
    return float((missed / np.maximum(spread, 1e-9)).mean())


def _alike(known: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Columns grouped by which rows have a label in them: a group costs one inverse."""
    groups: dict[bytes, list[int]] = {}
    for column in range(known.shape[1]):
        groups.setdefault(known[:, column].tobytes(), []).append(column)
    return [np.array(group) for group in groups.values()]


def _ridged(kernel: F32, weights: F64, penalty: float) -> F32:
    out = kernel.copy()
    out[np.diag_indices(len(out))] += (penalty / weights).astype(np.float32)
    return out


def inverted(matrix: F32) -> F32:
    """The inverse of a symmetric positive definite matrix by halves: all of it is multiplication, so it is fast."""
    size = len(matrix)
    if size <= _BLOCK:
        return np.linalg.inv(matrix)
    half = size // 2
    first = inverted(matrix[:half, :half])
    across = first @ matrix[:half, half:]
    last = inverted(matrix[half:, half:] - matrix[half:, :half] @ across)
    corner = across @ last
    out = np.empty_like(matrix)
    out[:half, :half] = first + corner @ across.T
    out[:half, half:] = -corner
    out[half:, :half] = -corner.T
    out[half:, half:] = last
    return out

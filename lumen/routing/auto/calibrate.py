"""Scores that mean what they say: a line from predictions to what was observed, and how far off that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """observed ≈ intercept + slope · predicted."""

    intercept: float
    slope: float

    def __call__(self, predicted: F64) -> F64:
        return self.intercept + self.slope * predicted


# How much steeper than the regression's own a line may be: regression shrinks, so that slopes above 1 are usual; flat
# would lose the order.
_FLATTEST, _STEEPEST = 0.05, 4.0
# Labels' worth of belief in slope 1, in units of the observed variance.
_BELIEF = 25.0


def line(predicted: F64, observed: F64, weights: F64) -> Line:
    """Least squares on left-out predictions, drawn towards slope 1 and kept between 0.05 and 4; NaN: no label."""
    known = ~np.isnan(observed)
    if not known.any():
        return Line(0.0, 1.0)
    share = weights[known] / weights[known].sum()
    x, y = predicted[known], observed[known]
    middle, level = share @ x, share @ y
    spread = share @ (x - middle) ** 2
    if spread <= 1e-12:
        return Line(float(level), 0.0)
    belief = spread * _BELIEF / len(x)
    slope = (share @ ((x - middle) * (y - level)) + belief) / (spread + belief)
    slope = float(np.clip(slope, _FLATTEST, _STEEPEST))
    return Line(float(level - slope * middle), slope)


def error(predicted: F64, observed: F64, bins: int = 10) -> float:
    """The expected calibration error: |predicted − observed| of equally full bins, averaged over the rows."""
    order = np.argsort(predicted, kind="stable")
    off = 0.0
    for part in np.array_split(order, bins):
        if len(part):
            off += abs(float(predicted[part].mean() - observed[part].mean())) * len(part)
    return off / max(len(order), 1)

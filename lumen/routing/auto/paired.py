"""An exact test that a mean of paired differences, each −1, 0 or 1, is below a limit.

The statistic is the score test's (T. Tango, Statistics in Medicine 17, 1998), whose chances hardly depend on how many
rows are discordant, which nobody knows. That chance is worked out exactly, at the worst share of discordant rows within
an interval of its own (R. Berger and D. Boos, JASA 89, 1994): given how many are discordant the ones that lose are
binomial, and their number is binomial too.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# What of the allowed chance of error is spent on the interval of the share of discordant rows.
_SPENT = 0.02
# Shares that are tried within the interval.
_TRIED = 5
# Counts farther than so many standard deviations from their mean are taken as certain to count against.
_FAR = 6.0
# Chances so small are counted against the result without a look.
_NOTHING = 1e-12
# Shares in each of two rounds of the search for an interval's end.
_SEARCHED = 24


def chance(net: int, discordant: int, rows: int, limit: float, level: float) -> float:
    """An upper bound of the chance of a result as low as this where the true mean over `rows` is `limit` or more.

    `net`: the sum of the differences. `discordant`: how many are not 0. `level`: what the chance is compared with; it
    sets how much of it is spent on the share of discordant rows.
    """
    discordant = max(discordant, abs(net))
    up = -(-(discordant + net) // 2)
    seen = float(statistic(np.array([up]), np.array([discordant]), rows, limit)[0])
    if seen >= 0.0:
        return 1.0
    spent = _SPENT * level
    low, high = share_within(discordant, rows, spent / 2)
    low, high = max(low, abs(limit)), max(high, abs(limit))
    return min(_at_most(seen, rows, limit, np.linspace(low, high, _TRIED)) + spent, 1.0)


def statistic(up: I64 | F64, discordant: I64 | F64, rows: int, limit: float) -> F64:
    """The mean less `limit`, in standard errors of it where `limit` is the truth; `up` of the `discordant` are 1."""
    down = discordant - up
    net = up - down
    first = (2 * rows - net) * limit - discordant
    fewest = (np.sqrt(np.maximum(first**2 + 8 * rows * down * limit * (1 - limit), 0.0)) - first) / (4 * rows)
    spread = np.sqrt(rows * np.maximum(2 * fewest + limit * (1 - limit), 0.0))
    found: F64 = (net - rows * limit) / np.maximum(spread, 1e-12)
    return found


def share_within(seen: int, rows: int, level: float) -> tuple[float, float]:
    """The Clopper–Pearson bounds of a share of which `seen` of `rows` were observed, each wrong at most by `level`."""
    return 1.0 - _above(rows - seen, rows, level), _above(seen, rows, level)


def _above(seen: int, rows: int, level: float) -> float:
    """Closed in on from above, so what is left of the search errs towards a wider interval."""
    if seen >= rows:
        return 1.0
    spread = math.sqrt(seen * (1 - seen / rows) + 1)
    low, high = seen / rows, min((seen + 5 * spread + 12) / rows, 1.0)
    counts = np.arange(max(seen - int(8 * spread) - 12, 0), seen + 1)
    logs = _factorials(rows)
    ways = logs[rows] - logs[counts] - logs[rows - counts]
    for _ in range(2):
        shares = np.linspace(low, high, _SEARCHED + 1)[1:, None]
        with np.errstate(divide="ignore"):
            tails = np.exp(ways + counts * np.log(shares) + (rows - counts) * np.log1p(-shares)).sum(axis=1)
        enough = np.flatnonzero(tails <= level)
        if not len(enough):
            return 1.0
        low, high = (float(shares[enough[0] - 1, 0]) if enough[0] else low), float(shares[enough[0], 0])
    return high


def _at_most(seen: float, rows: int, limit: float, shares: F64) -> float:
    """The chance of a statistic of at most `seen` where the mean is `limit`, at the worst of the `shares` of rows that
    are discordant."""
    ends = (float(shares.min()), float(shares.max()))
    if ends[0] <= 0.0:
        return 1.0
    first, last = (rows * share + sign * (_FAR * math.sqrt(rows * share * (1 - share)) + 2)
                   for share, sign in zip(ends, (-1, 1), strict=True))  # fmt: skip
    counts = np.arange(max(int(first), 0), min(int(last) + 1, rows) + 1)
    # The most that may lose among so many discordant ones: the statistic grows with them.
    low, high = np.full(len(counts), -1), counts.copy()
    while (low < high).any():
        tried = -((-low - high) // 2)
        fits = statistic(tried, counts, rows, limit) <= seen + 1e-12
        low, high = np.where(fits, tried, low), np.where(fits, high, tried - 1)
    worst = 0.0
    for share in shares.tolist():
        weights = _pmf(counts, np.array([rows]), share)
        near = weights > _NOTHING
        inside = weights[near] @ _below(low[near], counts[near], min((share + limit) / (2 * share), 1.0))
        worst = max(worst, float(inside) + max(1.0 - float(weights[near].sum()), 0.0))
    return worst


def _below(most: I64, of: I64, share: float) -> F64:
    """The chance that at most `most` of `of` happen, each with `share`, for many pairs."""
    reach = int(_FAR * math.sqrt(float(of.max(initial=1)) * share * (1 - share))) + 3
    mean = np.floor(of * share).astype(np.int64)
    steps = np.arange(-reach, reach + 1)
    counts = mean[:, None] + steps
    inside = (counts >= 0) & (counts <= of[:, None])
    chances = np.where(inside, _pmf(np.clip(counts, 0, of[:, None]), of[:, None], share), 0.0)
    below = np.where(counts <= most[:, None], chances, 0.0).sum(axis=1)
    found: F64 = np.where(most < 0, 0.0, np.minimum(below + np.maximum(1.0 - chances.sum(axis=1), 0.0), 1.0))
    return found


def _pmf(counts: I64, of: I64, share: float) -> F64:
    if share >= 1.0:
        return np.where(counts == of, 1.0, 0.0)
    if share <= 0.0:
        return np.where(counts == 0, 1.0, 0.0)
    logs = _factorials(int(of.max(initial=0)))
    found: F64 = np.exp(
        logs[of] - logs[counts] - logs[of - counts] + counts * math.log(share) + (of - counts) * math.log1p(-share)
    )
    return found


@lru_cache(8)
def _factorials(most: int) -> F64:
    """Logarithms of 0!, 1!, … `most`!."""
    found: F64 = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, most + 1)))))
    return found

"""How much may be sent away from the strong target, so that a promise about the loss of quality holds.

A row's loss is −1, 0 or 1: strong right and the other wrong is 1. At a threshold the loss of the policy is the mean,
over all requests, of the losses of those sent away. Thresholds are tested from the most careful on, each at the full
level, and the first that fails ends it (a fixed sequence: A. Angelopoulos et al., "Learn then Test", 2021), so choosing
among them costs nothing. Each test is exact: the distribution of wins less losses comes from its characteristic
function, at the least favourable share of discordant rows within a bound of its own (R. Berger and D. Boos, JASA 89,
1994). Scores must come from models that did not see the row's label.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto.learner import Learnt
from lumen.routing.auto.model import Model, Promise

F64 = NDArray[np.float64]
C128 = NDArray[np.complex128]

# Below this many labels nothing leaves the strong target, whatever the labels say.
FEWEST = 300
_STEPS = 50
# What of the allowed chance of error is spent on bounding the share of discordant rows.
_SPENT = 0.1


def certify(scores: F64, losses: F64, limit: float, confidence: float) -> Promise:
    """The largest threshold whose mean loss is at most `limit` with `confidence`.

    `scores` (n): expected loss of each labelled request, by a model that did not see it; lower ones are sent away
    first. `losses` (n, within ±1): strong's quality less the other's.
    """
    rows = len(scores)
    if rows < FEWEST:
        why = f"{rows} labels are fewer than {FEWEST}: everything stays with the strong target"
        return Promise(None, 0.0, 0.0, 0.0, limit, confidence, rows, why)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    held: tuple[int, float] | None = None
    for step in range(1, _STEPS + 1):
        count = rows * step // _STEPS
        if count < rows and ranked[count - 1] == ranked[min(count, rows - 1)]:
            continue
        away = losses[order[:count]]
        if chance(away, rows, limit, 1.0 - confidence) > 1.0 - confidence:
            break
        held = (count, float(ranked[count - 1]))
    if held is None:
        why = "no share of the requests can be sent away within the limit: everything stays with the strong target"
        return Promise(None, 0.0, 0.0, 0.0, limit, confidence, rows, why)
    count, score = held
    away = losses[order[:count]]
    bound = _bound(away, rows, limit, confidence)
    why = f"{count} of {rows} labelled requests could leave the strong target"
    return Promise(score, count / rows, float(away.sum()) / rows, bound, limit, confidence, rows, why)


def promised(learnt: Learnt, ok: F64, limit: float, confidence: float) -> Model:
    """The learnt model with a threshold for each target but the strong one; all of them together keep the promise.

    `ok` (n × targets): the labels it was learnt from, NaN where unknown. Where there are several others, each may lose
    its part of `limit`, tested at its part of the chance of error (Bonferroni), and what the strong target got wrong
    counts nothing in its favour: that holds for whatever part of its requests another one takes.
    """
    model = learnt.model
    best = model.targets.index(model.strong)
    others = [i for i in range(len(model.targets)) if i != best]
    alone = len(others) == 1
    promises: dict[str, Promise] = {}
    for other in others:
        known = ~np.isnan(ok[:, [best, other]]).any(axis=1)
        losses = ok[known, best] - ok[known, other]
        if not alone:
            losses = np.maximum(losses, 0.0)
        level = (1.0 - confidence) / len(others)
        found = certify(learnt.loss[known, other], losses, limit / len(others), 1.0 - level)
        promises[model.targets[other]] = replace(found, limit=limit, confidence=confidence)
    if alone:
        return model.certified(promises[model.targets[others[0]]])
    return replace(model, promises=promises)


def chance(away: F64, rows: int, limit: float, level: float) -> float:
    """An upper bound of the chance of losses as low as these where the true mean loss over `rows` is above `limit`.

    `level`: what the result is compared with; it sets how much of it bounds the discordant share.
    """
    spent = _SPENT * level
    discordant = round(float(np.abs(away).sum()))
    net = math.ceil(float(away.sum()) - 1e-9)
    most = _share_above(discordant, rows, spent)
    least = max(limit, discordant / rows / 2)
    worst = max(_tail(net, rows, limit, share) for share in np.linspace(min(least, most), most, 5))
    return min(worst + spent, 1.0)


def _bound(away: F64, rows: int, limit: float, confidence: float) -> float:
    """The smallest loss, up to `limit`, that is excluded with `confidence`, to about a thousandth of the limit."""
    low, high = float(away.sum()) / rows, limit
    for _ in range(10):
        middle = (low + high) / 2
        if chance(away, rows, middle, 1.0 - confidence) <= 1.0 - confidence:
            high = middle
        else:
            low = middle
    return high


def _tail(net: int, rows: int, mean: float, share: float) -> float:
    """P(wins − losses ≤ net) where a row is 1 with (share + mean)/2 and −1 with (share − mean)/2, independently."""
    share = max(share, abs(mean))
    up, down = (share + mean) / 2, (share - mean) / 2
    size = 1 << (2 * rows + 1).bit_length()
    turns = _turns(size)
    weights = np.fft.fft(_power(1.0 - share + up * turns + down * turns.conj(), rows)).real / size
    # Entry k is the chance of a net of k; negative nets stand at the end.
    weights = np.maximum(weights, 0.0)
    if net < 0:
        return float(weights[size // 2 : size + net + 1].sum())
    return float(weights[size // 2 :].sum() + weights[: net + 1].sum())


@lru_cache(2)
def _turns(size: int) -> C128:
    """The roots of unity, once around."""
    found: C128 = np.exp(2j * np.pi * np.arange(size) / size)
    return found


def _power(base: C128, exponent: int) -> C128:
    """By squaring, which is many times faster than the general power of complex numbers."""
    out = np.ones_like(base)
    while exponent:
        if exponent & 1:
            out *= base
        base, exponent = base * base, exponent >> 1
    return out


def _share_above(seen: int, rows: int, level: float) -> float:
    """The upper Clopper–Pearson bound of a share of which `seen` of `rows` were observed."""
    if seen >= rows:
        return 1.0
    counts = np.arange(seen + 1)
    logs = np.array([math.lgamma(rows + 1) - math.lgamma(k + 1) - math.lgamma(rows - k + 1) for k in counts])
    low, high = seen / rows, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        terms = logs + counts * math.log(max(middle, 1e-300)) + (rows - counts) * math.log(max(1 - middle, 1e-300))
        if float(np.exp(terms).sum()) > level:
            low = middle
        else:
            high = middle
    return high

"""How much may be sent away from the strong target, so that a promise about the loss of quality holds.

A row's loss is −1, 0 or 1: strong right and the other wrong is 1. At a threshold the loss of the policy is the mean,
over all requests, of the losses of those sent away. Thresholds are tested from the most careful on, each at the full
level, and the first that fails ends it (a fixed sequence: A. Angelopoulos et al., "Learn then Test", 2021), so choosing
among them costs nothing. The test at each is exact, see `paired.py`. Scores must come from models that did not see the
row's label, nor that of a request nearly the same: such rows are a group, and count for less the more alike their
losses are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto.learner import Learnt
from lumen.routing.auto.model import Model, Promise
from lumen.routing.auto.paired import chance

F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

# Below this many labels nothing leaves the strong target, whatever the labels say.
FEWEST = 300
_STEPS = 200
# Requests that are nearly the same have nearly the same score, and with its own label left out each is a little off: a
# threshold among them would let all pass. They crowd where so many of all scores lie within so many standard deviations
# above it, which is more than twice what scores that spread as a bell have anywhere.
_APART, _CROWD = 0.01, 0.01


def certify(scores: F64, losses: F64, limit: float, confidence: float, groups: Rows | None = None) -> Promise:
    """The largest threshold whose mean loss is at most `limit` with `confidence`.

    `scores` (n): expected loss of each labelled request, by a model that did not see it; lower ones are sent away
    first. `losses` (n, within ±1): strong's quality less the other's. `groups` (n): rows of one number are nearly the
    same request; `None`: no two are.
    """
    rows = len(scores)
    if rows < FEWEST:
        why = f"{rows} labels are fewer than {FEWEST}: everything stays with the strong target"
        return Promise(None, 0.0, 0.0, 0.0, limit, confidence, rows, why)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    passed: list[int] = []
    for step in range(1, _STEPS + 1):
        count = rows * step // _STEPS
        if count < rows and ranked[count - 1] == ranked[count]:
            continue
        if _chance(losses, order[:count], groups, limit, 1.0 - confidence) > 1.0 - confidence:
            break
        passed.append(count)
    count = _apart(ranked, passed)
    if not count:
        why = "no share of the requests can be sent away within the limit: everything stays with the strong target"
        return Promise(None, 0.0, 0.0, 0.0, limit, confidence, rows, why)
    score = float(ranked[count - 1])
    bound = _bound(losses, order[:count], groups, limit, confidence)
    why = f"{count} of {rows} labelled requests could leave the strong target"
    return Promise(score, count / rows, float(losses[order[:count]].sum()) / rows, bound, limit, confidence, rows, why)


def _apart(ranked: F64, passed: list[int]) -> int:
    """How many may be sent away, of the numbers that passed: the most whose highest score has no crowd right above it.
    All of them were certified on the way."""
    clearly, most = _APART * float(ranked.std()), _CROWD * len(ranked)
    for count in reversed(passed):
        above = int(np.searchsorted(ranked, ranked[count - 1] + clearly, "right")) - count
        if above <= most:
            return count
    return 0


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
        found = certify(learnt.loss[known, other], losses, limit / len(others), 1.0 - level, learnt.groups[known])
        promises[model.targets[other]] = replace(found, limit=limit, confidence=confidence)
    if alone:
        return model.certified(promises[model.targets[others[0]]])
    return replace(model, promises=promises)


def repeated(losses: F64, groups: Rows) -> float:
    """How many labels one label of these is worth no more than: 1 where none repeat another, or groups differ inside as
    much as they do from each other.

    The design effect of a sample of groups (L. Kish, "Survey Sampling", 1965) with the correlation within groups from
    the analysis of variance.
    """
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rows, kinds = len(losses), len(sizes)
    if kinds in (1, rows):
        return 1.0
    means = np.bincount(place, weights=losses) / sizes
    between = float(sizes @ (means - losses.mean()) ** 2) / (kinds - 1)
    within = float(((losses - means[place]) ** 2).sum()) / (rows - kinds)
    squares = float(sizes @ sizes) / rows
    usual = (rows - squares) / (kinds - 1)
    total = between + (usual - 1.0) * within
    alike = min(max((between - within) / total, 0.0), 1.0) if total > 0 else 0.0
    return 1.0 + (squares - 1.0) * alike


def _chance(losses: F64, sent: Rows, groups: Rows | None, limit: float, level: float) -> float:
    """The chance of losses as low as those of the rows `sent` where the true mean over all rows is above `limit`."""
    away, rows = losses[sent], len(losses)
    worth = 1.0
    if groups is not None:
        # What stays with the strong target loses nothing: that is part of what a group has in common.
        lost = np.zeros(rows)
        lost[sent] = away
        worth = repeated(lost, groups)
    net = math.ceil(float(away.sum()) / worth - 1e-9)
    discordant = round(float(np.abs(away).sum()) / worth)
    return chance(net, discordant, int(rows / worth), limit, level)


def _bound(losses: F64, sent: Rows, groups: Rows | None, limit: float, confidence: float) -> float:
    """The smallest loss, up to `limit`, that is excluded with `confidence`, to about a thousandth of the limit."""
    low, high = float(losses[sent].sum()) / len(losses), limit
    for _ in range(10):
        middle = (low + high) / 2
        if middle > 0 and _chance(losses, sent, groups, middle, 1.0 - confidence) <= 1.0 - confidence:
            high = middle
        else:
            low = middle
    return high

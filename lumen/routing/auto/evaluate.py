"""What the learner is worth on a matrix of results: the same learner and threshold code as a route's, on held-out rows.

APGR, CPT and PGR as in I. Ong et al., "RouteLLM" (2024): the performance gap recovered at a share of calls to the
strong target is (quality − weak's) / (strong's − weak's); APGR is the area under it, 0.5 for chance; CPT(x) the
smallest share that recovers x. Scores say how much a request needs the strong target: high ones go there first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto import prior
from lumen.routing.auto.calibrate import error
from lumen.routing.auto.certify import certify
from lumen.routing.auto.features import Table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.scorer import Scorer

F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

# Standard errors that a loss must be above the limit by, to be surely above it (one-sided, 95 %).
_CERTAIN = 1.645


@dataclass(frozen=True, slots=True)
class Draw:
    """One split: what was learnt on, what it is judged on. `name` says which group was left out, if any."""

    train: Rows
    test: Rows
    name: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One draw's figures. `areas`: method → its area times the gap. `gap`: strong's quality less weak's on the test
    rows.

    `off_uncertified` and `off_certified`: shares sent to the weak target; `loss_…`: what that lost on the test rows.
    `loss_everywhere`: on all rows, the labelled ones by the scores of models that did not see them. `loss_at_least`:
    the lower end of what the test rows say of the loss certified, which 95 in 100 are above where it is the truth.
    `spent`: mean cost of a test row where all go to the strong target, and under both thresholds; NaN where unknown.
    """

    areas: dict[str, float]
    gap: float
    weak: float
    strong: float
    cpt50: float
    cpt80: float
    off_uncertified: float
    loss_uncertified: float
    off_certified: float
    loss_certified: float
    loss_everywhere: float
    loss_at_least: float
    calibration: float
    apgr_low: float
    apgr_high: float
    spent: tuple[float, ...] = (np.nan, np.nan, np.nan)


def area(scores: F64, gains: F64) -> float:
    """APGR times the mean gain. Ties count as drawn at random."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    ranks = (ends - (count - 1) / 2 - 0.5)[place]
    return float((ranks * gains).mean() / len(scores))


def recovered(scores: F64, gains: F64) -> F64:
    """The gap recovered with the 0, 1, …, n highest scores at the strong target (n + 1)."""
    order = np.argsort(-scores, kind="stable")
    total = gains.sum()
    curve = np.concatenate(([0.0], np.cumsum(gains[order])))
    return curve / total if abs(total) > 1e-12 else np.zeros(len(curve))


def calls(scores: F64, gains: F64, wanted: float) -> float:
    """CPT: the smallest share of calls to the strong target that recovers `wanted` of the gap; 1 where none does."""
    enough = np.flatnonzero(recovered(scores, gains) >= wanted)
    return float(enough[0] / len(scores)) if len(enough) else 1.0


def splits(
    rows: int, train: int, split: str, groups: NDArray[np.object_] | None, draws: int, rng: np.random.Generator
) -> Iterator[Draw]:
    """`random`: any rows. `group`: half of the groups are learnt, the other half judged. `leave-out`: each group in
    turn.

    Raises:
        ValueError: the split needs groups and there are fewer than two.
    """
    if split != "random" and (groups is None or len(set(groups.tolist())) < 2):
        raise ValueError(f"the split '{split}' needs a column with at least two groups")
    names = sorted(set(groups.tolist())) if groups is not None else []
    for draw in range(draws):
        order = rng.permutation(rows)
        if split == "random":
            yield Draw(order[:train], order[train:])
            continue
        assert groups is not None
        if split == "group":
            chosen = rng.permutation(len(names))[: (len(names) + 1) // 2]
            learnt = np.isin(groups[order].astype(str), [str(names[i]) for i in chosen])
            yield Draw(order[learnt][:train], order[~learnt])
        else:
            name = names[draw % len(names)]
            out = groups[order] == name
            yield Draw(order[~out][:train], order[out], str(name))


def run(
    table: Table,
    ok: F64,
    tokens: F64,
    draw: Draw,
    *,
    groups: NDArray[np.object_] | None,
    limit: float,
    confidence: float,
    rng: np.random.Generator,
    costs: F64 | None = None,
) -> Outcome:
    """Learn on one split and judge it. `ok`, `tokens`, `costs`: n × 2, the weak target's column first."""
    learnt = fit_table(
        table.draw(draw.train),
        Labels(ok, tokens, np.ones(len(ok))).take(draw.train),
        ("weak", "strong"),
        "strong",
    )
    known, test = ok[draw.train, 1] - ok[draw.train, 0], table.take(draw.test)
    promise = certify(learnt.loss[:, 0], known, limit, confidence, learnt.groups)
    found = Scorer(learnt.model).score_table(test)
    scores, gains = found.loss[:, 0], ok[draw.test, 1] - ok[draw.test, 0]
    threshold, naive = -np.inf if promise.score is None else promise.score, _naive(learnt.loss[:, 0], known, limit)
    away, wished = scores <= threshold, scores <= naive
    lost = np.where(away, gains, 0.0)
    of_labels = float(known[learnt.loss[:, 0] <= threshold].sum())
    areas = {"learner": area(scores, gains)}
    areas |= _baselines(test, ok, draw, groups, gains)
    low, high = _interval(scores, gains, rng)
    return Outcome(
        areas=areas,
        gap=float(gains.mean()),
        weak=float(ok[draw.test, 0].mean()),
        strong=float(ok[draw.test, 1].mean()),
        cpt50=calls(scores, gains, 0.5),
        cpt80=calls(scores, gains, 0.8),
        off_uncertified=float(wished.mean()),
        loss_uncertified=float(gains[wished].sum()) / len(gains),
        off_certified=float(away.mean()),
        loss_certified=float(lost.mean()),
        loss_everywhere=(float(lost.sum()) + of_labels) / (len(gains) + len(known)),
        loss_at_least=float(lost.mean() - _CERTAIN * lost.std() / np.sqrt(len(lost))),
        calibration=(error(found.ok[:, 0], ok[draw.test, 0]) + error(found.ok[:, 1], ok[draw.test, 1])) / 2,
        apgr_low=low,
        apgr_high=high,
        spent=_spent(costs, draw.test, away, wished),
    )


def _spent(costs: F64 | None, test: Rows, away: NDArray[np.bool_], wished: NDArray[np.bool_]) -> tuple[float, ...]:
    """See `Outcome.spent`; of the rows whose costs are known at both."""
    known = np.zeros(len(test), bool) if costs is None else ~np.isnan(costs[test]).any(axis=1)
    if costs is None or not known.any():
        return np.nan, np.nan, np.nan
    weak, strong = costs[test][known].T
    sent = (np.zeros(len(test), bool), away, wished)
    return tuple(float(np.where(gone[known], weak, strong).mean()) for gone in sent)


def _baselines(test: Table, ok: F64, draw: Draw, groups: NDArray[np.object_] | None, gains: F64) -> dict[str, float]:
    train_gains = ok[draw.train, 1] - ok[draw.train, 0]
    found = {
        "random": float(gains.mean()) / 2,
        "length": area(test.plain[:, 0].astype(np.float64), gains),
        "prior": area(prior.score(test.plain), gains),
        "oracle": area(gains, gains),
    }
    rates = (float(ok[draw.train, 0].mean()), float(ok[draw.train, 1].mean()))
    found["prior with rates"] = area(prior.score(test.plain, rates), gains)
    if groups is not None:
        mean = float(train_gains.mean())
        own = groups[draw.train]
        rates_of = {
            name: (float(train_gains[own == name].sum()) + 20 * mean) / (int((own == name).sum()) + 20)
            for name in set(groups.tolist())
        }
        found["group mean"] = area(np.array([rates_of[name] for name in groups[draw.test]]), gains)
    return found


def _naive(scores: F64, losses: F64, limit: float) -> float:
    """The largest threshold whose measured loss is within the limit: what one would take without a bound."""
    order = np.argsort(scores, kind="stable")
    within = np.flatnonzero(np.cumsum(losses[order]) / len(scores) <= limit)
    return float(scores[order][within[-1]]) if len(within) else -np.inf


def _interval(scores: F64, gains: F64, rng: np.random.Generator, times: int = 200) -> tuple[float, float]:
    """The 95 % bootstrap interval of APGR over the test rows."""
    found = []
    for _ in range(times):
        rows = rng.integers(0, len(scores), len(scores))
        gap = float(gains[rows].mean())
        if abs(gap) > 1e-9:
            found.append(area(scores[rows], gains[rows]) / gap)
    if not found:
        return 0.0, 1.0
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def summary(outcomes: list[Outcome], limit: float) -> dict[str, object]:
    """All draws in one document; APGR is the ratio of sums, so that draws with a small gap do not rule it."""
    gap = sum(one.gap for one in outcomes)

    def ratio(name: str) -> float:
        return sum(one.areas[name] for one in outcomes) / gap if abs(gap) > 1e-9 else 0.5

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in outcomes]))

    def broken(name: str) -> float:
        return float(np.mean([getattr(one, name) > limit for one in outcomes]))

    single = [one.areas["learner"] / one.gap for one in outcomes if abs(one.gap) > 1e-9] or [0.5]
    return {
        "draws": len(outcomes),
        "quality": {"best_single_cheap": mean("weak"), "strong": mean("strong")},
        "apgr": ratio("learner"),
        "apgr_interval_rows": [mean("apgr_low"), mean("apgr_high")],
        "apgr_interval_draws": [float(np.quantile(single, 0.025)), float(np.quantile(single, 0.975))],
        "cpt50": mean("cpt50"),
        "cpt80": mean("cpt80"),
        "baselines": {name: ratio(name) for name in outcomes[0].areas if name != "learner"},
        "off_strong": {
            "limit": limit,
            "certified": mean("off_certified"),
            "certified_loss": mean("loss_certified"),
            "certified_broken": broken("loss_certified"),
            "certified_broken_everywhere": broken("loss_everywhere"),
            "certified_broken_surely": broken("loss_at_least"),
            "uncertified": mean("off_uncertified"),
            "uncertified_loss": mean("loss_uncertified"),
            "uncertified_broken": broken("loss_uncertified"),
        },
        "calibration_error": mean("calibration"),
        **_money(outcomes),
    }


def _money(outcomes: list[Outcome]) -> dict[str, object]:
    """What a request costs in the mean, and the share that is saved; nothing where costs are not known."""
    known = [one.spent for one in outcomes if not np.isnan(one.spent[0])]
    if not known:
        return {}
    strong, certified, uncertified = (float(value) for value in np.mean(known, axis=0))
    saved = 1.0 - certified / strong if strong > 0 else 0.0
    return {
        "cost": {"always_strong": strong, "certified": certified, "uncertified": uncertified, "certified_saved": saved}
    }

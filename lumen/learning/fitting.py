"""From labels to a scorer with a certified threshold, replayed against history. Pure.

Learnt from are requests of which both the strong target's answer and another's were judged. The promise needs labels
that stand for the traffic: where some requests were drawn more often than others, as many of them are left out of the
certification as makes all equally likely to be in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from lumen.learning.asks import read, tabled
from lumen.ledger.labels import Label
from lumen.routing.auto.certify import FEWEST, promised
from lumen.routing.auto.features import Features, Table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.model import Model, ModelError
from lumen.routing.auto.scorer import Scorer
from lumen.routing.rollout.assign import place

F64 = NDArray[np.float64]
# Standard deviation of log(1 + tokens) below which answers are all of one length.
_LEAST_SPREAD = 0.02
# Of several words on one request the first of these counts.
_RANK = ("anchor", "feedback", "checker", "judge")
# The share of the labels, the newest, that a replay judges on.
_NEWEST = 0.2
# A replay refuses what breaks its promise with this much certainty (one-sided, in standard deviations).
_CERTAIN = 1.645


@dataclass(frozen=True, slots=True)
class History:
    """Labelled requests, oldest first. `ok`, `tokens`: n × targets, NaN where unknown. `chances`: of being drawn."""

    requests: tuple[str, ...]
    table: Table
    ok: F64
    tokens: F64
    chances: F64

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, slots=True)
class Fitted:
    """`data`: the scorer; `None`: none was made. `missing`: labels that are missing to 300. `refused`: why it must not
    go live. `withdrawn`: why the one in force must not stay so, where there is none to take its place.
    `report`: figures.
    """

    data: bytes | None
    labels: int
    missing: int = 0
    refused: str = ""
    withdrawn: str = ""
    report: dict[str, Any] = field(default_factory=dict)


def history(labels: Sequence[Label], targets: Sequence[str], strong: str) -> History | None:
    """What can be learnt from among `labels`; `None` where nothing can.

    That are those of two answers; what a person says of one of them corrects it.
    """
    best: dict[str, Label] = {}
    said: dict[str, dict[str, float]] = {}
    for label in labels:
        if label.source == "feedback":
            said[label.request] = label.ok
        if strong not in label.ok or not any(name in label.ok for name in targets if name != strong):
            continue
        known = best.get(label.request)
        if known is None or _RANK.index(label.source) < _RANK.index(known.source):
            best[label.request] = label
    rows: list[tuple[Label, Features]] = []
    for label in sorted((heard(one, said.get(one.request)) for one in best.values()), key=lambda label: label.at):
        if (features := read(label)) is not None:
            rows.append((label, features))
    if not rows:
        return None
    chosen = [label for label, _ in rows]
    return History(
        tuple(label.request for label in chosen),
        tabled([features for _, features in rows]),
        np.array([[label.ok.get(name, np.nan) for name in targets] for label in chosen]),
        np.array([[label.tokens.get(name, np.nan) for name in targets] for label in chosen]),
        np.array([label.propensity for label in chosen]),
    )


def heard(label: Label, said: Mapping[str, float] | None) -> Label:
    """The label with what a person `said` of one of its answers, which counts more than what a checker or judge did.

    A judge says only which answer is better: where that was a tie, what is said of one answer holds for the other.
    """
    known = {name: good for name, good in (said or {}).items() if name in label.ok}
    if not known or label.source not in ("judge", "checker"):
        return label
    tie = label.source == "judge" and len(set(label.ok.values())) == 1
    ok = dict.fromkeys(label.ok, next(iter(known.values()))) if tie else label.ok
    return structs.replace(label, ok=ok | known)


def fit(
    known: History | None,
    targets: Sequence[str],
    strong: str,
    limit: float,
    confidence: float,
    live: bytes | None = None,
) -> Fitted:
    """Learn, certify and replay. Deterministic. `live`: the scorer in force, which is replayed beside the new one."""
    count = len(known) if known is not None else 0
    if known is None or count < FEWEST:
        return Fitted(None, count, FEWEST - count)
    judged = _judged(known.ok)
    names = [name for name, there in zip(targets, judged, strict=True) if there]
    columns = np.flatnonzero(judged)
    ok, tokens = known.ok[:, columns], _varied(known.tokens[:, columns])
    everything = np.arange(count)
    model = _learn(known, ok, tokens, everything, names, strong, limit, confidence)
    cut = count - max(int(count * _NEWEST), 1)
    earlier = _learn(known, ok, tokens, everything[:cut], names, strong, limit, confidence)
    newest = everything[cut:]
    new = _replay(earlier, known.table.take(newest), ok[newest], names, known.chances[newest])
    report: dict[str, Any] = {
        "targets": names,
        "strong": strong,
        "limit": limit,
        "confidence": confidence,
        "certified": {name: _promise(model, name) for name in names if name != strong},
        "replayed_on": len(newest),
        "replay": new,
    }
    old: dict[str, float] | dict[str, str] = {}
    if live is not None:
        old = _replay_live(live, known.table.take(newest), ok[newest], names, known.chances[newest])
        report["replay_of_live"] = old
    refused, withdrawn = _broken(new, limit, "it loses"), ""
    if refused:
        # Requests are not what they were: what was learnt before holds no more than what was learnt now.
        withdrawn = _broken(old, limit, "what is in force loses")
    return Fitted(model.to_bytes(), count, 0, refused, withdrawn, report)


def _broken(replayed: Mapping[str, Any], limit: float, told: str) -> str:
    """What a replay says against a scorer: that it surely loses more than is allowed; empty, where it does not."""
    if replayed.get("loss_at_least", 0.0) <= limit:
        return ""
    return f"replayed on the newest labels {told} {replayed['loss']:.1%}, more than the {limit:.1%} it promises"


def _judged(ok: F64) -> NDArray[np.bool_]:
    """Targets with judged answers enough to learn from; the others are left as they are."""
    found: NDArray[np.bool_] = np.count_nonzero(~np.isnan(ok), axis=0) >= max(20, len(ok) // 20)
    return found


def _varied(tokens: F64) -> F64:
    """The lengths, or none of them where a target's answers are all of one length: that teaches nothing, and scaled to
    an even spread it would be noise."""
    logs = np.log1p(tokens)
    for column in logs.T:
        there = column[~np.isnan(column)]
        if len(there) and float(there.std()) < _LEAST_SPREAD:
            return np.full_like(tokens, np.nan)
    return tokens


def _learn(
    known: History, ok: F64, tokens: F64, rows: NDArray[np.int64], names: Sequence[str], strong: str, limit: float,
    confidence: float,
) -> Model:  # fmt: skip
    chances = known.chances[rows]
    labels = Labels(ok[rows], tokens[rows], 1.0 / chances)
    learnt = fit_table(known.table.take(rows), labels, names, strong)
    least = float(chances.min())
    even = np.array(
        [place("certified", known.requests[row].encode()) / 100 < least / known.chances[row] for row in rows]
    )
    thinned = learnt.take(np.flatnonzero(even))
    return promised(thinned, ok[rows][even], limit, confidence)


def _replay(model: Model, table: Table, ok: F64, names: Sequence[str], chances: F64) -> dict[str, float]:
    """What would have become of these requests: how many leave the strong target, and what that loses."""
    scored = Scorer(model).score_table(table)
    best = list(model.targets).index(model.strong)
    gone, lost = np.zeros(len(ok), bool), np.zeros(len(ok))
    # Of those that may answer the one with the least expected loss stands for all: prices are not known here.
    for at in np.argsort(-scored.loss.mean(axis=0)):
        name = model.targets[at]
        promise = model.promise_of(name)
        if at == best or promise is None or promise.score is None:
            continue
        column = list(names).index(name)
        away = scored.familiar & (scored.loss[:, at] <= promise.score) & ~np.isnan(ok[:, column])
        strong = ok[:, list(names).index(model.strong)]
        gone[away] = True
        lost[away] = (strong - ok[:, column])[away]
    weights = 1.0 / chances
    share = weights / weights.sum()
    loss = float((lost * share).sum())
    error = math.sqrt(float((share**2 * (lost - loss) ** 2).sum()))
    return {"off_strong": float((gone * share).sum()), "loss": loss, "loss_at_least": loss - _CERTAIN * error}


def _replay_live(
    live: bytes, table: Table, ok: F64, names: Sequence[str], chances: F64
) -> dict[str, float] | dict[str, str]:
    try:
        model = Model.from_bytes(live)
    except ModelError as error:
        return {"why": str(error)}
    if any(name not in names for name in model.targets):
        return {"why": "it knows targets that have no labels now"}
    return _replay(model, table, ok, names, chances)


def _promise(model: Model, name: str) -> dict[str, Any] | None:
    promise = model.promise_of(name)
    if promise is None:
        return None
    return {
        "share": promise.share, "loss": promise.loss, "bound": promise.bound, "labels": promise.labels,
        "why": promise.why,
    }  # fmt: skip

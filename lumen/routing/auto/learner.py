"""Learns from labelled requests what each target would make of a new one.

One ridge regression (`ridge.py`) over hashed n-grams, counts, subjects (`space.py`) and themes (`themes.py`) for each
of: the chance that a target's answer is good enough; what is lost by asking a target instead of the strong one, learnt
as a difference because most of what makes labels uncertain is the same for both; the length of each target's answers.
Where lengths are known, the predicted ones are features in turn: how long a target thinks says how hard it finds a
request. Near neighbours (`near.py`) correct what is left, and far from all labels the prior takes over (`far.py`).
Every training row is also scored by a model that never saw its label: on those scores a threshold is certified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto import near, prior, ridge
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.calibrate import Line, line
from lumen.routing.auto.far import Far
from lumen.routing.auto.features import F32, Table, table
from lumen.routing.auto.model import Model
from lumen.routing.auto.space import Scale, Space, length_waves
from lumen.routing.auto.themes import Themes

F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

# A strong penalty is best on all data at hand; a weaker one must show a gain, on at most so many rows.
_PENALTIES = (3.0, 10.0, 30.0)
_MARGIN, _TRIED_ON = 0.01, 800
_FEWEST_LENGTHS = 30
FEWEST = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled request. `ok`: target → 1.0 where its answer was good enough, 0.0 where not (or between).

    `tokens`: target → length of its answer. `weight`: 1 / the chance that this request was drawn to be labelled.
    """

    ask: Ask
    ok: Mapping[str, float]
    tokens: Mapping[str, float]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Labels:
    """The same as arrays: `ok` and `tokens` (n × targets, NaN where unknown), `weights` (n, positive)."""

    ok: F64
    tokens: F64
    weights: F64

    def take(self, rows: Rows) -> Labels:
        """The given rows, in that order."""
        return Labels(self.ok[rows], self.tokens[rows], self.weights[rows])


@dataclass(frozen=True, slots=True)
class Learnt:
    """A model, and the training rows as predicted without their own labels: `ok` and `loss` (n × targets).

    `loss`: the quality lost by asking that target instead of the strong one; 0 for the strong one itself. `groups`
    (n): rows that are nearly the same request have one number, and were left out together.
    """

    model: Model
    ok: F64
    loss: F64
    groups: Rows

    def take(self, rows: Rows) -> Learnt:
        """The same model with the given rows."""
        return Learnt(self.model, self.ok[rows], self.loss[rows], self.groups[rows])


def fit(rows: Sequence[Row], targets: Sequence[str], strong: str) -> Learnt:
    """Learn from `rows`. See `fit_table`."""
    labels = Labels(
        np.array([[row.ok.get(target, np.nan) for target in targets] for row in rows], np.float64),
        np.array([[row.tokens.get(target, np.nan) for target in targets] for row in rows], np.float64),
        np.array([row.weight for row in rows], np.float64),
    )
    return fit_table(table([row.ask for row in rows]), labels, targets, strong)


def fit_table(rows: Table, labels: Labels, targets: Sequence[str], strong: str) -> Learnt:
    """Learn from rows whose features are known. Deterministic.

    Raises:
        ValueError: there are fewer than 20 rows, or `strong` is not among the targets.
    """
    if len(rows) < FEWEST:
        raise ValueError(f"{len(rows)} labels are too few to learn from: at least {FEWEST} are needed")
    if strong not in targets:
        raise ValueError(f"the strong target {strong!r} is not among the targets")
    best = list(targets).index(strong)
    weights = labels.weights / labels.weights.mean()
    others = [i for i in range(len(targets)) if i != best]
    wanted = np.concatenate((labels.ok, labels.ok[:, [best]] - labels.ok[:, others]), axis=1)
    judged = np.arange(len(targets), wanted.shape[1])
    space = Space.of(rows)
    points = space(rows)
    kernel = space.kernel(rows, points)
    themes = Themes.of(points, kernel)
    kernel += themes.kernel()
    sketches = near.sketch(rows.grams)
    alike, groups = near.compared(sketches)
    ridged = ridge.Ridged(kernel, weights, _penalty(kernel, wanted[:, judged], weights), groups)
    lengths = _lengths(ridged, labels.tokens)
    if lengths is not None:
        ridged = ridged.plus(lengths.waves(lengths.scale.apply(lengths.left_out)))
    fitted = ridge.fit(ridged, wanted)
    neighbours, shift, nearest = near.learn(alike, groups, sketches, wanted, fitted.left_out, judged)
    seen = fitted.left_out + shift
    straight = [line(seen[:, i], wanted[:, i], weights) for i in range(wanted.shape[1])]
    columns = np.stack([straight[i](seen[:, i]) for i in range(wanted.shape[1])], axis=1)
    ok = np.clip(columns[:, : len(targets)], 0.0, 1.0)
    loss, looks = expected_loss(ok, columns[:, judged], best), prior.score(rows.plain)
    far = Far.of(neighbours.familiar, neighbours.usual, looks, loss)
    model = _model(targets, strong, space, themes, lengths, neighbours, straight, points, fitted, far)
    return Learnt(model, ok, far.blend(loss, nearest, looks), groups)


def expected_loss(ok: F64, direct: F64, best: int) -> F64:
    """The loss of every target (n × targets): the mean of the one learnt as a difference and that between the chances.

    `direct` (n × targets − 1) has no column for the strong target, whose place among the targets is `best`.
    """
    loss = np.zeros_like(ok)
    others = [i for i in range(ok.shape[1]) if i != best]
    loss[:, others] = (direct + ok[:, [best]] - ok[:, others]) / 2
    return loss


@dataclass(frozen=True, slots=True)
class _Lengths:
    fitted: ridge.Fit
    left_out: F32
    scale: Scale
    smear: F64

    def waves(self, scores: F32) -> F32:
        return length_waves(scores.shape[1])(scores)


def _lengths(ridged: ridge.Ridged, tokens: F64) -> _Lengths | None:
    """How long each target's answers are, as log(1 + tokens); `None` where too few lengths are known."""
    logs = np.log1p(tokens)
    if (np.count_nonzero(~np.isnan(logs), axis=0) < _FEWEST_LENGTHS).any():
        return None
    fitted = ridge.fit(ridged, logs)
    left_out = fitted.left_out.astype(np.float32)
    # exp of a mean is not the mean of exp: N. Duan, JASA 78 (1983).
    smear = np.nanmean(np.exp(np.clip(logs - fitted.left_out, -5.0, 5.0)), axis=0)
    return _Lengths(fitted, left_out, Scale.of(left_out), smear)


def _penalty(kernel: F32, losses: F64, weights: F64) -> float:
    rows = len(kernel)
    step = max(1, -(-rows // _TRIED_ON))
    some = np.arange(0, rows, step)
    return ridge.penalty(kernel[np.ix_(some, some)], losses[some], weights[some], _PENALTIES, _MARGIN)


def _model(
    targets: Sequence[str],
    strong: str,
    space: Space,
    themes: Themes,
    lengths: _Lengths | None,
    neighbours: near.Near,
    straight: Sequence[Line],
    points: F32,
    fitted: ridge.Fit,
    far: Far,
) -> Model:
    arrays: dict[str, NDArray[np.floating]] = {
        **space.arrays(),
        "themes": themes.directions,
        "theme_places": themes.places,
        "theme_weights": fitted.dual,
        "weights": points.T @ fitted.dual,
        "mean": fitted.mean,
        "sketches": neighbours.sketches,
        "turn": neighbours.turn,
        "residuals": neighbours.residuals,
        "known": neighbours.known,
        **far.arrays(),
    }
    if lengths is not None:
        waves = lengths.waves(lengths.scale.apply(lengths.left_out))
        arrays |= {
            "length_weights": points.T @ lengths.fitted.dual,
            "length_theme_weights": lengths.fitted.dual,
            "length_mean": lengths.fitted.mean,
            "length_scale_mean": lengths.scale.mean,
            "length_scale_inverse": lengths.scale.inverse,
            "length_smear": lengths.smear,
            "wave_weights": waves.T @ fitted.dual,
        }
    return Model(
        targets=tuple(targets),
        strong=strong,
        labels=len(points),
        scalars={"doubt": neighbours.doubt, "familiar": neighbours.familiar, **far.scalars()},
        arrays=arrays,
        lines={str(i): (each.intercept, each.slope) for i, each in enumerate(straight)},
    )

"""Scores a request with what was learnt: for each target the chance of a good answer, what it would lose, its
length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from lumen.routing.auto import near, prior
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.far import Far
from lumen.routing.auto.features import Table, read
from lumen.routing.auto.learner import expected_loss
from lumen.routing.auto.model import Model
from lumen.routing.auto.single import LONGEST, Single
from lumen.routing.auto.space import Scale, Space, length_waves
from lumen.routing.auto.themes import Themes

F64 = NDArray[np.float64]


class Estimate(Struct, frozen=True, gc=False):
    """What is expected of one target. `ok`: chance of a good answer. `loss`: quality lost against the strong target.

    `tokens`: expected length of its answer, `None` where no lengths were learnt.
    """

    target: str
    ok: float
    loss: float
    tokens: float | None


class Score(Struct, frozen=True, gc=False):
    """`targets`: an estimate each, in the model's order. `unseen`: what no labelled request had, such as images.

    `nearest`: how alike the nearest labelled request is, 0 to 1. `familiar`: whether requests like this were labelled;
    where they were not, nothing is known and the strong target should answer.
    """

    targets: tuple[Estimate, ...]
    nearest: float
    familiar: bool
    unseen: tuple[str, ...]

    def of(self, target: str) -> Estimate:
        """The estimate of one target.

        Raises:
            KeyError: the model does not know it.
        """
        for estimate in self.targets:
            if estimate.target == target:
                return estimate
        raise KeyError(target)


@dataclass(frozen=True, slots=True)
class Scored:
    """Many requests: `ok`, `loss`, `tokens` (n × targets), `nearest` and `familiar` (n)."""

    ok: F64
    loss: F64
    tokens: F64
    nearest: F64
    familiar: NDArray[np.bool_]


class Scorer:
    """A model made ready. `score` takes well under a millisecond. Of what it saw nothing is
    kept but how system prompts count, see `features.py`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        kept = model.arrays
        self._space = Space.from_arrays(kept)
        self._themes, self._of_themes = Themes(kept["themes"], kept["theme_places"]), kept["theme_weights"]
        self._weights, self._mean = kept["weights"], kept["mean"]
        about = (model.scalars["doubt"], model.scalars["familiar"])
        self._near = near.Near(kept["sketches"], kept["turn"], kept["residuals"], kept["known"], *about)
        self._far = Far.kept(model.scalars, kept)
        self._lines = np.array([model.lines[str(i)] for i in range(len(model.lines))])
        self._lengths = "length_weights" in kept
        if self._lengths:
            self._length_scale = Scale(kept["length_scale_mean"], kept["length_scale_inverse"])
            self._length_waves = length_waves(len(model.targets))
        self._best = model.targets.index(model.strong)
        lengths = (self._length_scale, self._length_waves) if self._lengths else None
        self._single = Single(
            kept, self._space, self._themes, self._near, self._far, self._lines.tolist(), self._best, lengths
        )

    @staticmethod
    def load(data: bytes) -> Scorer:
        """From a model's file.

        Raises:
            ModelError: it is no model, or damaged.
        """
        return Scorer(Model.from_bytes(data))

    def score(self, ask: Ask) -> Score:
        """Score one request."""
        found = self._single(read(ask))
        most = ask.limit or LONGEST
        tokens: Iterable[float | None] = repeat(None)
        if found.tokens is not None:
            tokens = [min(each, most) for each in found.tokens]
        estimates = tuple(map(Estimate, self.model.targets, found.ok, found.loss, tokens))
        return Score(estimates, found.nearest, found.nearest >= self._near.familiar and not found.unseen, found.unseen)

    def score_table(self, rows: Table) -> Scored:
        """Score many requests at once. What they have that no labelled request had is not looked at."""
        points = self._space(rows)
        alike = self._themes.alike(points)
        found = (points @ self._weights + alike @ self._of_themes).astype(np.float64) + self._mean
        tokens = np.full((len(rows), len(self.model.targets)), np.nan)
        if self._lengths:
            kept = self.model.arrays
            logs = points @ kept["length_weights"] + alike @ kept["length_theme_weights"] + kept["length_mean"]
            tokens = np.clip(np.exp(np.clip(logs, 0.0, 20.0)) * kept["length_smear"] - 1.0, 1.0, LONGEST)
            found += self._length_waves(self._length_scale.apply(logs.astype(np.float32))) @ kept["wave_weights"]
        shift, nearest = self._near.correct(rows.grams)
        found = self._lines[:, 0] + self._lines[:, 1] * (found + shift)
        targets = len(self.model.targets)
        ok = np.clip(found[:, :targets], 0.0, 1.0)
        loss = expected_loss(ok, found[:, targets:], self._best)
        loss = self._far.blend(loss, nearest, prior.score(rows.plain))
        return Scored(ok, loss, tokens, nearest, nearest >= self._near.familiar)

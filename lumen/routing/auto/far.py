"""What a request unlike the labelled ones may lose: the further it is from them, the more its looks decide.

Far from all labels a regression says little more than chance. There the prior (`prior.py`), brought to the scale of
the learnt losses, is better on every data set at hand. Nearness is the similarity of the nearest labelled request: up
to the one that all but a hundredth of the labelled requests have among themselves only the prior counts, from the one
that all but a fifth have only what was learnt; where the labelled ones are all alike, 0.5 and 0.6 are near enough.
Nothing is promised of such requests, and a route keeps them with the strong target; this is the order among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# How far the prior spreads losses, as a share of how far what was learnt does.
_TRUST = 1.0
# What is so similar is near, however much more alike the labelled requests are: those of a template differ in a word.
_NEAR, _NOT_FAR = 0.6, 0.5


@dataclass(frozen=True, slots=True)
class Far:
    """`low`, `high`: between which similarities it passes from one to the other.

    `prior`: mean and deviation of the prior over the labelled requests. `level` (targets): the mean of the learnt
    losses, `spread`: how far one deviation of the prior is from it; the strong target's are 0.
    """

    low: float
    high: float
    prior: tuple[float, float]
    level: F64
    spread: F64

    @staticmethod
    def of(familiar: float, usual: float, prior: F64, loss: F64) -> Far:
        """Fitted to the labelled requests. `prior` (n), `loss` (n × targets), each row's without its own label."""
        at = (float(prior.mean()), max(float(prior.std()), 1e-6))
        low = min(familiar, _NOT_FAR)
        high = max(min(usual, _NEAR), low + 1e-6)
        return Far(low, high, at, loss.mean(axis=0), _TRUST * loss.std(axis=0))

    def blend(self, loss: F64, nearest: F64, prior: F64) -> F64:
        """Learnt losses (n × targets) with the prior's (n) share in them. `nearest` (n)."""
        learnt = np.clip((nearest - self.low) / (self.high - self.low), 0.0, 1.0)[:, None]
        looks = (prior - self.prior[0])[:, None] / self.prior[1]
        found: F64 = self.level + learnt * (loss - self.level) + (1.0 - learnt) * looks * self.spread
        return found

    def scalars(self) -> dict[str, float]:
        """The single numbers to keep."""
        return {"far": self.low, "near": self.high, "prior_mean": self.prior[0], "prior_spread": self.prior[1]}

    def arrays(self) -> dict[str, F64]:
        """The arrays to keep."""
        return {"loss_level": self.level, "loss_spread": self.spread}

    @staticmethod
    def kept(scalars: Mapping[str, float], arrays: Mapping[str, NDArray[np.floating]]) -> Far:
        """The same again."""
        level, spread = (arrays[name].astype(np.float64) for name in ("loss_level", "loss_spread"))
        return Far(scalars["far"], scalars["near"], (scalars["prior_mean"], scalars["prior_spread"]), level, spread)

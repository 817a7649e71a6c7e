"""Evidence that may be looked at after every observation, without paying for the looks. Pure.

A test by betting: a gambler who may only bet against the hypothesis starts with 1 and multiplies it, observation by
observation. If the hypothesis is true the wealth is a non-negative supermartingale, so the chance that it ever reaches
1/a is at most a (Ville, 1939), however often and for however long one looks. Source of the bets: I. Waudby-Smith and
A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), §4–5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# No bet may lose all: what is left of the gambler's wealth after the worst observation.
_MOST = 0.95
# Weight of the careful bettor, the rest going to the bold one, which is there for what is plainly broken.
_CAREFUL = 0.8
_LOG_CAREFUL, _LOG_BOLD = math.log(_CAREFUL), math.log1p(-_CAREFUL)
# Observations' worth of belief in the variance that a bettor starts with.
_PRIOR = 4.0


@dataclass(slots=True)
class Evidence:
    """Wealth against the hypothesis that a bounded quantity has a mean of at most 0.

    `edge`: the mean that the careful bettor expects where the hypothesis is wrong; a good guess makes the test short,
    a bad one costs time and never truth. `count`, `squares`: observations, and the sum of their squares.
    `careful`, `bold`: logarithms of the two bettors' wealth.
    """

    edge: float
    count: int = 0
    squares: float = 0.0
    careful: float = 0.0
    bold: float = 0.0

    def add(self, value: float) -> None:
        """Take in one observation in [-1, 1], independent of the bets before it."""
        # Known before the observation: that is what makes the wealth a supermartingale.
        edge = self.edge
        spread = (self.squares + _PRIOR * 0.25) / (self.count + _PRIOR)
        bet = edge / (spread + edge * edge)
        self.careful += math.log1p((bet if bet < _MOST else _MOST) * value)
        self.bold += math.log1p(_MOST * value)
        self.count += 1
        self.squares += value * value

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the wealth of both bettors together."""
        careful, bold = self.careful + _LOG_CAREFUL, self.bold + _LOG_BOLD
        if careful < bold:
            careful, bold = bold, careful
        return careful + math.log1p(math.exp(bold - careful))

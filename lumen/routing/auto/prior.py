"""Before there are labels: how hard a request looks, and whether that speaks for the strong target.

Long questions with many numbers and marks are harder for every target. Whether harder means that the strong target is
worth its price depends on how able the targets are: of two able ones the weak one fails first on what is hard, of two
weak ones both do. So difficulty is read off the text, and abilities are two rates of good answers that few labels
give; until then, an open question dense with formulae, which offers no answers to choose from, counts as beyond both.
The prior orders requests, for sampling and for showing; it never sends one away from the strong target.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lumen.routing.auto.features import F32, PLAIN

F64 = NDArray[np.float64]

WHY = "no labels yet: the strong target answers, and a request's looks only decide whether it is sampled"
_LENGTH, _STEM, _MARKS, _NUMBERS, _FORMULAE, _OPTIONS = (
    PLAIN.index(name)
    for name in (
        "characters", "characters before the options", "share of punctuation", "numbers", "LaTeX marks", "options",
    )
)  # fmt: skip
# Typical of ordinary requests: log(1 + characters), the share of punctuation with its spread, log(1 + numbers).
_USUAL_LENGTH, _USUAL_MARKS, _SPREAD_MARKS, _USUAL_NUMBERS = 5.5, 0.06, 0.04, 1.5
# What a deviation of marks and a unit of numbers weigh against a unit of length.
_MARKS_WEIGH, _NUMBERS_WEIGH = 0.075, 0.15
# LaTeX marks from which formulae count, and from which they rule; so many options make a question one of choice.
_FEW_MARKS, _MANY_MARKS, _CHOICE = math.log1p(3), math.log1p(15), math.log(2.5)
_HARDEST = 4.0


# Logits of ability that one unit of difficulty costs.
_STEEP = 0.5


def difficulty(plain: F32) -> F64:
    """How hard each request looks (… × len(PLAIN) → …), about 0 for an ordinary one and within ±4."""
    length = (plain[..., _LENGTH] + plain[..., _STEM]) / 2 - _USUAL_LENGTH
    marks = _MARKS_WEIGH * (plain[..., _MARKS] - _USUAL_MARKS) / _SPREAD_MARKS
    numbers = _NUMBERS_WEIGH * (plain[..., _NUMBERS] - _USUAL_NUMBERS)
    found: F64 = np.clip(length + marks + numbers, -_HARDEST, _HARDEST).astype(np.float64)
    return found


def score(plain: F32, abilities: tuple[float, float] | None = None) -> F64:
    """How much more the strong target is worth for each request; only the order means something.

    `abilities`: the shares of good answers of the weak and of the strong target on this traffic, where they are known.
    """
    hard = difficulty(plain)
    if abilities is None:
        formulae = np.clip((plain[..., _FORMULAE] - _FEW_MARKS) / (_MANY_MARKS - _FEW_MARKS), 0.0, 1.0)
        unsure: F64 = hard * (1.0 - 2.0 * formulae * (plain[..., _OPTIONS] < _CHOICE))
        return unsure
    weak, strong = (_logit(share) for share in abilities)
    gain: F64 = _chance(strong - _STEEP * hard) - _chance(weak - _STEEP * hard)
    return gain


def looks(plain: list[float]) -> float:
    """`score` of one request (len(PLAIN)) without abilities and without arrays."""
    length = (plain[_LENGTH] + plain[_STEM]) / 2 - _USUAL_LENGTH
    marks = _MARKS_WEIGH * (plain[_MARKS] - _USUAL_MARKS) / _SPREAD_MARKS
    numbers = _NUMBERS_WEIGH * (plain[_NUMBERS] - _USUAL_NUMBERS)
    hard = min(max(length + marks + numbers, -_HARDEST), _HARDEST)
    above = (plain[_FORMULAE] - _FEW_MARKS) / (_MANY_MARKS - _FEW_MARKS)
    if above <= 0.0 or plain[_OPTIONS] >= _CHOICE:
        return hard
    return hard * (1.0 - 2.0 * min(above, 1.0))


def _logit(share: float) -> float:
    share = min(max(share, 0.02), 0.98)
    return math.log(share / (1.0 - share))


def _chance(logits: F64) -> F64:
    return 1.0 / (1.0 + np.exp(-logits))

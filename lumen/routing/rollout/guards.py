"""What a rollout watches: each guard turns one answer of the candidate and one of the incumbent into evidence. Pure.

For every guard two questions are open at once. Promotion needs a refutation of "the candidate is worse by the margin";
rollback needs one of "the candidate is no worse than half the margin". Between the two, neither happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Costs are measured against this multiple of the incumbent's mean, so that one long answer does not decide.
_COST_SPAN = 4.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer. `quality`: 0 to 1, or `None` where nobody judged it. `ttft`: seconds to what its client got first,
    which of a `whole` answer is all of it; `None` where that is not known.

    `cost`: in any unit, the same for both sides. `failed`: the target did not answer.
    """

    failed: bool = False
    quality: float | None = None
    ttft: float | None = None
    cost: float | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Margins:
    """How much worse is still good enough: shares of answers for `quality` and `errors`, ratios for the others."""

    quality: float = 0.05
    errors: float = 0.02
    ttft: float = 0.25
    cost: float = 0.25


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pair says: `better` has a mean of at most 0 if the candidate is worse by the margin, `worse` if it is not
    worse than half of it. Both in [-1, 1].
    """

    better: float
    worse: float


@dataclass(frozen=True, slots=True)
class Guard:
    """`read`: candidate, incumbent, margins, scale → what the pair says, or `None` where it says nothing. The scale is
    the incumbent's mean cost, `None` before that is known.

    `edge`: margins → the mean of `better` and `worse` to expect of an equal and of a bad candidate.
    """

    read: Callable[[Observation, Observation, Margins, float | None], Reading | None]
    edge: Callable[[Margins], float]


def _quality(candidate: Observation, incumbent: Observation, margins: Margins, scale: float | None) -> Reading | None:
    if candidate.quality is None or incumbent.quality is None:
        return None
    return _difference(candidate.quality - incumbent.quality, margins.quality)


def _errors(candidate: Observation, incumbent: Observation, margins: Margins, scale: float | None) -> Reading | None:
    return _difference(float(incumbent.failed) - float(candidate.failed), margins.errors)


def _difference(gain: float, margin: float) -> Reading:
    # Divided by what they can come to at most, which leaves the sign of their means alone.
    return Reading((gain + margin) / (1 + margin), (-gain - margin / 2) / (1 + margin / 2))


def _ttft(candidate: Observation, incumbent: Observation, margins: Margins, scale: float | None) -> Reading | None:
    """Times have long tails: what counts is which of the two was faster, with a head start for the candidate."""
    if candidate.ttft is None or incumbent.ttft is None or candidate.whole != incumbent.whole:
        return None
    better = 0.5 if candidate.ttft <= incumbent.ttft * (1 + margins.ttft) else -0.5
    worse = 0.5 if candidate.ttft > incumbent.ttft * (1 + margins.ttft / 2) else -0.5
    return Reading(better, worse)


def _cost(candidate: Observation, incumbent: Observation, margins: Margins, scale: float | None) -> Reading | None:
    if candidate.cost is None or incumbent.cost is None or scale is None:
        return None
    if scale <= 0:
        # Nothing has a cost so far, as with models of this machine: all that counts is whether it stays so.
        return _difference(float(incumbent.cost > 0) - float(candidate.cost > 0), margins.cost)
    better = (incumbent.cost * (1 + margins.cost) - candidate.cost) / (_COST_SPAN * scale)
    worse = (candidate.cost - incumbent.cost * (1 + margins.cost / 2)) / (_COST_SPAN * scale)
    return Reading(_bounded(better), _bounded(worse))


def _bounded(value: float) -> float:
    return min(max(value, -1.0), 1.0)


GUARDS: Mapping[str, Guard] = {
    "quality": Guard(_quality, lambda margins: margins.quality / 2),
    "errors": Guard(_errors, lambda margins: margins.errors / 2),
    "ttft": Guard(_ttft, lambda margins: 0.15),
    "cost": Guard(_cost, lambda margins: margins.cost / _COST_SPAN / 2),
}

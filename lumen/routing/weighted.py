"""Targets share the traffic by weight; those not drawn are the fallbacks, heavier ones more often first.

Source: weighted random sampling without replacement, P. S. Efraimidis and P. G. Spirakis, Information
Processing Letters 97 (2006): sort by u ** (1 / weight).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lumen.routing.base import Candidate, Step, View

STATELESS = True


def order(candidates: Sequence[Candidate], view: View) -> list[Step]:
    """A random order in which a target comes first with probability weight / sum; weight 0 stands last."""
    if len(candidates) == 1:
        return [Step(candidates[0].key, "only target")]
    draw = view.draw
    ranked = sorted(candidates, key=lambda c: _rank(c.weight, draw), reverse=True)
    total = sum(c.weight for c in candidates)
    return [
        Step(c.key, f"weight {c.weight:g} of {total:g}" if i == 0 else f"fallback {i}") for i, c in enumerate(ranked)
    ]


def _rank(weight: float, draw: Callable[[], float]) -> float:
    return draw() ** (1.0 / weight) if weight > 0 else -1.0

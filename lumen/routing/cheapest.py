"""The target that this request is expected to cost least at; those without a known price stand last.

Expected are the request's input and the target's usual answer, less what a cached beginning saves; see `plan/view.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lumen.core.money import shown
from lumen.routing.base import Candidate, Step, View, arranged


def order(candidates: Sequence[Candidate], view: View) -> list[Step]:
    """By expected cost; equal ones as they are written."""
    costs = {c.key: view.cost(c) for c in candidates}

    def rank(candidate: Candidate) -> tuple[bool, int]:
        cost = costs[candidate.key]
        return (cost is None, cost or 0)

    def told(candidate: Candidate) -> str:
        cost = costs[candidate.key]
        return "no known price" if cost is None else f"about {shown(cost)}"

    ranked = sorted(candidates, key=rank)
    return arranged(ranked, view, lambda c: f"cheapest, {told(c)}", lambda c: f"fallback, {told(c)}")

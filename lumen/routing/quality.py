"""The target whose answer is most likely good, whatever it costs; without a scorer the strong one."""

from __future__ import annotations

from collections.abc import Sequence

from lumen.routing.base import Candidate, Step, View, arranged, marked


def order(candidates: Sequence[Candidate], view: View) -> list[Step]:
    """By the chance of a good answer; those it is not known of behind the strong target, as they are written."""
    score = view.scored
    chances = {} if score is None else {one.target: one.ok for one in score.targets}

    def rank(candidate: Candidate) -> tuple[bool, float, bool]:
        chance = chances.get(candidate.name)
        return (chance is None, -(chance or 0.0), candidate.key != view.goal.strong)

    def told(candidate: Candidate) -> str:
        chance = chances.get(candidate.name)
        return view.unscored if chance is None else f"{chance:.0%} likely good"

    ranked = sorted(candidates, key=rank)
    steps = arranged(ranked, view, lambda c: f"best, {told(c)}", lambda c: f"fallback, {told(c)}")
    return marked(steps, {c.key: (chances[c.name], None) for c in candidates if c.name in chances})

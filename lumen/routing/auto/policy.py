"""`auto`: the cheapest target that is as good as the strong one, as far as that is certified; see docs/routing.md.

A target may answer in place of the strong one where all of this holds: the route's scorer knows it; at least 300
labelled requests stand behind that; requests like this one were among them; the expected loss of quality is within
its certified threshold, which holds for the route's `max_loss` and `confidence`, and within what the route's `quality`
leaves for a single request; and it is cheaper. The cheapest of those is asked first, and where none is left the strong
one. Then come the others that may, the strong one, and the rest by the loss expected of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from lumen.core.money import shown
from lumen.routing.base import Candidate, Step, View, arranged, marked
from lumen.routing.plan.stay import stays

if TYPE_CHECKING:
    from lumen.routing.auto.model import Model
    from lumen.routing.auto.scorer import Score

# As in `certify.py`, which needs numpy; a test keeps them equal.
FEWEST = 300


class Verdict(Struct, frozen=True, gc=False):
    """One target's part in a decision. `why`: what keeps it from answering in place of the strong one; `None`: nothing.

    `good`: the chance of a good answer, `loss`: the quality expected to be lost, both `None` without a scorer.
    `allowed`: the most that may be lost. `cost`: expected, in pico-dollars.
    """

    candidate: Candidate
    good: float | None
    loss: float | None
    allowed: float | None
    cost: int | None
    why: str | None


class Decision(Struct, frozen=True, gc=False):
    """`first`: who is asked first, and `why`. `verdicts`: of every candidate, in their order."""

    first: Candidate
    why: str
    verdicts: tuple[Verdict, ...]


def order(candidates: Sequence[Candidate], view: View) -> list[Step]:
    """The plan of one request."""
    decision = decide(candidates, view)
    first, strong = decision.first, view.goal.strong

    def rank(verdict: Verdict) -> tuple[bool, bool, bool, float]:
        candidate, may = verdict.candidate, verdict.why is None
        by = verdict.cost if may else verdict.loss
        return (candidate is not first, not may, candidate.key != strong, math.inf if by is None else by)

    ranked = [verdict.candidate for verdict in sorted(decision.verdicts, key=rank)]
    steps = arranged(
        ranked,
        view,
        lambda c: decision.why if c is first else "fallback",
        lambda c: "fallback, strong" if c.key == strong else "fallback",
    )
    return marked(steps, {v.candidate.key: mark for v in decision.verdicts if (mark := _mark(v)) is not None})


def decide(candidates: Sequence[Candidate], view: View) -> Decision:
    """Who is asked first, and why; what `lumen route explain` shows.

    Where the strong target is not among the candidates, because it cannot serve this request, the first of them stands
    in for it.
    """
    strong = next((c for c in candidates if c.key == view.goal.strong), candidates[0])
    score = view.scored if len(candidates) > 1 else None
    why = _unusable(view, score, strong)
    model = None if why else _model(view)
    most = view.cost(strong)
    verdicts = tuple(_verdict(c, view, score, model, strong, most, why) for c in candidates)
    may = [v for v in verdicts if v.why is None and view.out(v.candidate) is None]
    if not may:
        reason = why or "no cheaper target is expected to be as good"
        return Decision(strong, f"strong: {reason}", verdicts)
    best = min(may, key=lambda v: (v.cost is None, v.cost or 0, v.loss or 0.0))
    past = view.past
    if past is not None:
        costs = {v.candidate.name: v.cost for v in (*may, *(v for v in verdicts if v.candidate is strong))}
        staying = stays(past, best.candidate.name, costs)
        if staying is not None:
            there = next(c for c in candidates if c.name == past.target)
            return Decision(there, f"stays: {staying}", verdicts)
    return Decision(best.candidate, _told(best), verdicts)


def _mark(verdict: Verdict) -> tuple[float, float] | None:
    """How likely its answer is as good as the strong one's, and what is wanted; `None`: that is not measured."""
    if verdict.loss is None or verdict.allowed is None:
        return None
    # It may be expected to do better than the strong one.
    return min(1.0 - verdict.loss, 1.0), 1.0 - verdict.allowed


def _told(verdict: Verdict) -> str:
    cost = "" if verdict.cost is None else f", about {shown(verdict.cost)}"
    return f"cheapest good enough: expected loss {100 * (verdict.loss or 0.0):.1f} points{cost}"


def _model(view: View) -> Model | None:
    scorer, _ = view.scorer
    return scorer.model if scorer is not None else None


def _unusable(view: View, score: Score | None, strong: Candidate) -> str | None:
    """Why nothing may leave the strong target, whichever the others are; `None`: something may."""
    if len(view.goal.names) == 1:
        return "the only target"
    model = _model(view)
    if model is None or score is None:
        return view.unscored
    if model.labels < FEWEST:
        return f"{model.labels} of {FEWEST} labels"
    if model.strong != strong.name:
        return f"what was learnt is measured against {model.strong}"
    if score.unseen:
        return f"no labelled request had {', '.join(score.unseen)}"
    if not score.familiar:
        return "no labelled request is like this one"
    return None


def _verdict(
    candidate: Candidate,
    view: View,
    score: Score | None,
    model: Model | None,
    strong: Candidate,
    most: int | None,
    unusable: str | None,
) -> Verdict:
    estimate = next((one for one in score.targets if one.target == candidate.name), None) if score else None
    good, loss = (None, None) if estimate is None else (estimate.ok, estimate.loss)
    if candidate is strong:
        return Verdict(candidate, good, loss, None, most, "it is the strong target")
    cost = view.cost(candidate)
    if unusable is not None or model is None:
        return Verdict(candidate, good, loss, None, cost, unusable)
    if loss is None:
        return Verdict(candidate, None, None, None, cost, "no labels")
    promise = model.promise_of(candidate.name)
    if promise is None or promise.score is None:
        return Verdict(candidate, good, loss, None, cost, "nothing is certified for it")
    goal = view.goal
    if promise.limit > goal.max_loss + 1e-12 or promise.confidence < goal.confidence - 1e-12:
        told = f"it is certified for {promise.limit:.1%} at {promise.confidence:.0%}, the route wants more; learn again"
        return Verdict(candidate, good, loss, None, cost, told)
    allowed = promise.score if goal.quality is None else min(promise.score, 1.0 - goal.quality)
    return Verdict(candidate, good, loss, allowed, cost, _kept_back(loss, allowed, cost, most))


def _kept_back(loss: float, allowed: float, cost: int | None, strong: int | None) -> str | None:
    if loss > allowed:
        return f"expected loss {100 * loss:.1f} points, {100 * allowed:.1f} are allowed"
    if cost is None:
        return "its price is not known"
    if strong is not None and cost >= strong:
        return "it is no cheaper than the strong target"
    return None

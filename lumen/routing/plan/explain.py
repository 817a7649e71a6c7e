"""A decision as an operator reads it: each target, what is expected of it, what left it out, and who is asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lumen.core.money import micro
from lumen.routing.auto.policy import Decision, Verdict, decide
from lumen.routing.base import Step
from lumen.routing.plan.view import Candidate, View

# What keeps a target from being asked at all.
DEAR = "a token of it costs more than is allowed"
UNPRICED = "its price is not known, and money is limited here"


def explained(
    candidates: Sequence[Candidate], view: View, steps: Sequence[Step], policy: str, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """JSON-ready. Amounts are micro-dollars, times milliseconds, chances and shares lie in [0, 1].

    Args:
        candidates: every target of the route. `steps`: the plan that was made of them.
        left_out: name → why a target is no part of it, beside what the view itself says.
    """
    planned = [c for c in candidates if any(step.key == c.key for step in steps)]
    decision = decide(planned, view)
    first = steps[0]
    targets = [_target(c, view, steps, policy, decision, left_out.get(c.name)) for c in candidates]
    return {
        "route": view.goal.route,
        "policy": policy,
        "strong": view.goal.names[view.goal.strong],
        "choice": view.goal.names[first.key],
        "reason": first.reason,
        "request": _request(view),
        "learnt": _learnt(view),
        "wanted": {"quality": view.goal.quality, "max_loss": view.goal.max_loss, "confidence": view.goal.confidence},
        "targets": sorted(targets, key=lambda one: (one["place"] is None, one["place"] or 0)),
    }


def _request(view: View) -> dict[str, Any]:
    facts = view.facts
    return {
        "tokens": facts.tokens,
        "characters": len(facts.text),
        "turns": facts.turns,
        "tools": facts.tools,
        "images": facts.images,
        "json": facts.structured,
        "limit": facts.limit or None,
        "tags": facts.tags,
    }


def _learnt(view: View) -> dict[str, Any]:
    scorer, known = view.scorer
    score = view.scored
    if scorer is None or score is None:
        return {"version": None, "why": view.unscored if scorer is not None else known}
    model = scorer.model
    promises = {name: promise for name in model.targets if (promise := model.promise_of(name)) is not None}
    return {
        "version": known or model.version,
        "labels": model.labels,
        "nearest": score.nearest,
        "familiar": score.familiar,
        "certified": {
            name: {"share": one.share, "loss": one.loss, "bound": one.bound, "limit": one.limit,
                   "confidence": one.confidence, "why": one.why}
            for name, one in promises.items()
        },
    }  # fmt: skip


def _target(
    candidate: Candidate, view: View, steps: Sequence[Step], policy: str, decision: Decision, left_out: str | None
) -> dict[str, Any]:
    verdict = next((v for v in decision.verdicts if v.candidate is candidate), None)
    place = next((i for i, step in enumerate(steps) if step.key == candidate.key), None)
    score = view.scored
    known = next((one for one in score.targets if one.target == candidate.name), None) if score is not None else None
    cost, first = view.cost(candidate), view.first_token(candidate)
    return {
        "target": candidate.name,
        "place": place,
        "reason": None if place is None else steps[place].reason,
        "good": None if known is None else known.ok,
        "loss": None if known is None else known.loss,
        "allowed_loss": verdict.allowed if verdict is not None else None,
        "tokens": round(view.answer(candidate)),
        "cost": None if cost is None else micro(cost),
        "cached": micro(view.kept(candidate)),
        "first_token_ms": None if first is None else round(first * 1000),
        "left_out": _why_not(candidate, view, policy, verdict) or left_out,
    }


def _why_not(candidate: Candidate, view: View, policy: str, verdict: Verdict | None) -> str | None:
    """What keeps a target from being asked first; `None`: nothing but others that are preferred."""
    lacks = view.lacks(candidate) if len(view.goal.names) > 1 else None
    if lacks is not None:
        return lacks
    out = view.out(candidate)
    if out is not None:
        return f"out: {out}"
    strong = candidate.key == view.goal.strong
    return verdict.why if policy == "auto" and verdict is not None and not strong else None

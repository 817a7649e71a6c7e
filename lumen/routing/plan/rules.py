"""The rules of a route: conditions of the operator's that come before its policy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from lumen.config.schema import Rule
from lumen.core.expression import condition
from lumen.routing.base import Step, View
from lumen.routing.plan.view import Ruling


def rulings(rules: Iterable[Rule], names: Sequence[str]) -> tuple[Ruling, ...]:
    """Rules made ready, in their order; `names`: of the route's targets.

    Raises:
        ExpressionError: a condition is none; a loaded configuration holds no such rule.
    """
    return tuple(Ruling(rule.when, condition(rule.when), names.index(rule.target)) for rule in rules)


def ruled(steps: list[Step], view: View) -> list[Step]:
    """The target of the first rule that holds comes first, where it can serve the request."""
    for rule in view.goal.rules:
        if rule.holds(view.read):
            first = next((step for step in steps if step.key == rule.key), None)
            if first is not None:
                told = structs.replace(first, reason=f"rule: {rule.written}")
                return [told, *(step for step in steps if step is not first)]
    return steps

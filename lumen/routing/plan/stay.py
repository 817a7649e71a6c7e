"""Whether a conversation stays where it is. Pure.

A target that answered it before may hold its beginning in a cache, and a conversation that moves to and fro pays for it
each time. So it stays where it is, if that target may answer this request at all, until it has been there for three
requests, and then until another one is at least a tenth cheaper, the cached beginning counted.
"""

from __future__ import annotations

from lumen.routing.plan.view import Past

HOLD = 3
MARGIN = 0.1


def stays(past: Past, choice: str, costs: dict[str, int | None]) -> str | None:
    """Why the conversation stays with `past.target` rather than going to `choice`; `None`: it goes.

    Args:
        costs: of the targets that may answer this request, in pico-dollars, what their caches save taken off; `None`
            where a price is not known.
    """
    if past.target == choice or past.target not in costs:
        return None
    if past.since < HOLD:
        return f"moved {past.since} request{'s' if past.since > 1 else ''} ago"
    here, there = costs[past.target], costs.get(choice)
    if here is None or there is None:
        return None
    if here * (1.0 - MARGIN) <= there:
        return "a switch saves less than its cached beginning is worth"
    return None

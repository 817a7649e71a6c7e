"""Which targets of a route have an endpoint that not every target has."""

from __future__ import annotations

from dataclasses import replace

from lumen.core.errors import RequestError
from lumen.gateway.table import Entry, Target
from lumen.providers._passing import Passing

# What is told to be missing, by the capability.
_WORDS = {
    "tokenize": "tells its tokens; only local models do",
    "rerank": "ranks documents",
    "moderations": "moderates",
    "image_generation": "makes images",
    "image_edits": "changes images",
    "transcription": "writes audio down",
    "speech": "speaks",
}


def narrowed(entry: Entry, ability: str) -> Entry | None:
    """The route with those of its targets alone that have an endpoint; `None` where none has.

    What only concerns text that a model makes is off: hedging, the least rate of tokens, seeds, context windows.
    """
    able = {i for i, target in enumerate(entry.targets) if getattr(target.can, ability)}
    if not able:
        return None
    candidates = tuple(one for one in entry.candidates if one.key in able)
    return replace(
        entry,
        targets=tuple(_passing(target, able=i in able) for i, target in enumerate(entry.targets)),
        candidates=candidates,
        within=tuple(one for one in entry.within if one.key in able) or candidates,
        limits=replace(entry.limits, min_rate=0.0),
        own=replace(entry.own, min_rate=None),
        remembers=False,
        least_context=None,
        unable=False,
        seeded=False,
        hedge=False,
        ttft=None,
    )


def lacking(entry: Entry, ability: str) -> RequestError:
    """What a client is told where no target has it."""
    return RequestError(
        f"No target of '{entry.name}' {_WORDS[ability]} ('{ability}').", param="model", code="unsupported_by_route"
    )


def _passing(target: Target, *, able: bool) -> Target:
    return replace(target, dialect=Passing(target.dialect, able=able))

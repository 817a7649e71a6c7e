"""Every conversation keeps its target; weights are shares of the conversations. Nothing is remembered for it.

A target that comes or goes moves only the conversations that it gains or had.
Source: weighted rendezvous hashing, C. Schindelhauer and G. Schomaker, "Weighted distributed hash tables", SPAA 2005.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from lumen.routing.base import Candidate, Step, View, arranged

STATELESS = True


def order(candidates: Sequence[Candidate], view: View) -> list[Step]:
    """By the hash of conversation and target; weight 0 stands last."""
    conversation = view.conversation
    ranked = sorted(candidates, key=lambda c: _rank(conversation, c), reverse=True)
    return arranged(ranked, view, lambda c: "where this conversation belongs", lambda c: "fallback of the conversation")


def _rank(conversation: bytes, candidate: Candidate) -> float:
    if candidate.weight <= 0:
        return -math.inf
    digest = blake2b(candidate.name.encode(), digest_size=8, key=conversation[:64]).digest()
    return candidate.weight / -math.log((int.from_bytes(digest, "big") + 0.5) / 2.0**64)

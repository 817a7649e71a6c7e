"""The target that is expected to have its whole answer out first, by what it usually takes.

Expected is the usual time to the first token, the time a local model takes to wake, and the usual time per token for
the expected answer. A target of which nothing is known yet is tried first in one request of twenty, else last.
"""

from __future__ import annotations

from collections.abc import Sequence

from lumen.routing.base import Candidate, Step, View, arranged

TRIED = 0.05


def order(candidates: Sequence[Candidate], view: View) -> list[Step]:
    """By expected seconds; unknown ones as they are written."""
    seconds = {c.key: view.seconds(c) for c in candidates}
    known = [c for c in candidates if seconds[c.key] is not None]
    unknown = [c for c in candidates if seconds[c.key] is None]
    known.sort(key=lambda c: seconds[c.key] or 0.0)
    tried = bool(unknown and known) and view.draw() < TRIED
    ranked = [*unknown, *known] if tried else [*known, *unknown]

    def told(candidate: Candidate) -> str:
        expected = seconds[candidate.key]
        return "not measured yet" if expected is None else f"about {expected:.2f} s"

    return arranged(ranked, view, lambda c: f"fastest, {told(c)}", lambda c: f"fallback, {told(c)}")

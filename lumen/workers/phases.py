"""The start-up phases of an engine, read from what it says. PURE, fed bytes.

A worker of Lumen's own writes one JSON object a line on its standard output. Of another engine its log is read, and
what a line of it means is the engine's own to say (`Launch.said`).
"""

from __future__ import annotations

import json
from collections.abc import Callable

from lumen.engines.base import Phase

__all__ = ["Phase", "PhaseReader"]

_LONGEST_LINE = 16 * 1024


def in_json(line: str) -> Phase | None:
    """The phase that a line in JSON tells; `None` where it is something else."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("phase"), str):
        return None
    pct = said.get("pct")
    if not isinstance(pct, (int, float)) or isinstance(pct, bool) or not 0 <= pct <= 100:
        pct = None
    facts = {name: value for name, value in said.items() if name not in ("phase", "pct")}
    return Phase(said["phase"], pct, facts)


class PhaseReader:
    """Lines out of chunks. What is no phase (stray output of a library) is passed over, however long.

    `said`: what one line means. A carriage return ends a line too: that is how progress bars are drawn.
    """

    def __init__(self, said: Callable[[str], Phase | None] = in_json) -> None:
        self._said = said
        self._held = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[Phase]:
        """The phases completed by `data`; the same ones however the bytes are cut."""
        phases = []
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self._hold(line)
            found = None if self._too_long else self._said(self._held.decode("utf-8", "replace"))
            if found is not None:
                phases.append(found)
            self._held.clear()
            self._too_long = False
        self._hold(rest)
        return phases

    def _hold(self, part: bytes) -> None:
        if self._too_long or len(self._held) + len(part) > _LONGEST_LINE:
            self._held.clear()
            self._too_long = True
        else:
            self._held += part

"""The start-up phases a worker reports: one JSON object a line on its standard output. PURE, fed bytes."""

from __future__ import annotations

import json

from lumen.engines.base import Phase

__all__ = ["Phase", "PhaseReader"]

_LONGEST_LINE = 16 * 1024


class PhaseReader:
    """Lines out of chunks. What is no phase (stray output of a library) is passed over, however long."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> list[Phase]:
        """The phases completed by `data`; the same ones however the bytes are cut."""
        phases = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            found = None if self._too_long else _parse(bytes(self._held))
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


def _parse(line: bytes) -> Phase | None:
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

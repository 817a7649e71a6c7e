"""How far each judge is trusted: asked now and then about pairs that a person has judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec import Struct, ValidationError, convert, to_builtins

from lumen.gateway.shadow import Dark, Job
from lumen.gateway.table import Entry
from lumen.learning import judging
from lumen.learning.ceiling import Ceiling
from lumen.learning.judge import ANCHORS_AT_ONCE, Judge
from lumen.learning.judging import agreement
from lumen.learning.kept import Kept
from lumen.learning.pairs import Purse
from lumen.ledger.labels import Labels, LabelsError

# Seconds between two looks at a judge, and before one that could not be looked at is tried again.
EVERY = 86_400.0
AGAIN = 300.0


class Seen(Struct):
    """A judge's last look. `anchors`: how many there were; `asked`, `agreed`: of those it could be asked about."""

    at: float
    anchors: int
    asked: int
    agreed: int


class Trust:
    """Of every judge on every route. `clock`: seconds of the wall clock. `kept`: where it outlives the process."""

    def __init__(self, dark: Dark, labels: Labels, clock: Callable[[], float], kept: Kept) -> None:
        self._dark = dark
        self._labels = labels
        self._clock = clock
        self._kept = kept
        self._seen: dict[str, Seen] = {}
        self._due: dict[str, float] = {}

    def load(self, kept: Any) -> None:
        """Take over what was dumped; what is none of that is forgotten, and the judges are looked at again."""
        with suppress(ValidationError):
            self._seen = convert(kept, dict[str, Seen])

    def dump(self) -> dict[str, Any]:
        """Everything that must outlive the process."""
        return {name: to_builtins(seen) for name, seen in self._seen.items()}

    def trusted(self, route: str, versions: str) -> bool:
        """Whether a judge's labels may be used: until anchors say otherwise, they may."""
        seen = self._seen.get(f"{route} {versions}")
        return seen is None or agreement(seen.agreed, seen.asked).trusted is not False

    def distrusted(self, route: str) -> list[str]:
        """The judges of a route whose labels may not be used, as labels name them."""
        before = f"{route} "
        names = [name.removeprefix(before) for name in self._seen if name.startswith(before)]
        return [versions for versions in names if not self.trusted(route, versions)]

    def standing(self, route: str, judge: str | None) -> dict[str, Any] | None:
        """For operators: how a judge agrees with the anchors, and whether its labels are used."""
        if judge is None:
            return None
        versions = f"{judge} {judging.VERSION}"
        seen = self._seen.get(f"{route} {versions}")
        if seen is None or not seen.asked:
            return {"anchors": seen.anchors if seen else 0, "trusted": None, "why": "nobody watches over the judge"}
        found = agreement(seen.agreed, seen.asked)
        why = {
            True: "",
            False: f"its labels are set aside: agreement is not surely above {judging.FLOOR:.0%}",
            None: f"fewer than {judging.FEWEST_ANCHORS} anchors: nobody watches over the judge",
        }[found.trusted]
        return {
            "anchors": seen.anchors, "asked": seen.asked, "agreement": found.share, "low": found.low,
            "high": found.high, "trusted": found.trusted, "at": seen.at, "why": why,
        }  # fmt: skip

    async def look(self, entry: Entry, judge: Judge, ceiling: Ceiling) -> None:
        """Have a judge asked about the route's anchors, where that is due."""
        if judge.source != "judge" or judge.judge is None:
            return
        name = f"{entry.account} {judge.judge} {judging.VERSION}"
        seen, now = self._seen.get(name), self._clock()
        if now < self._due.get(name, 0.0):
            return
        self._due[name] = now + AGAIN
        try:
            anchors = await asyncio.to_thread(self._labels.anchors, entry.account)
        except LabelsError:
            return
        if not anchors or (seen is not None and seen.anchors == len(anchors) and now - seen.at < EVERY):
            # Anchors may be added at any time: looking for them costs next to nothing.
            self._due[name] = 0.0
            return

        async def ask() -> None:
            size = max(len(one.prompt.encode(errors="replace")) for one in anchors)
            each = judge.most(entry, size)
            purse = Purse(ceiling, self._kept)
            try:
                if await purse.open(None if each is None else each * min(len(anchors), ANCHORS_AT_ONCE)) is not None:
                    return
                found = await judge.agreement(entry, anchors, purse.pay)
            finally:
                purse.close()
            if found.count:
                self._seen[name] = Seen(self._clock(), len(anchors), found.count, found.agreed)
                self._due.pop(name, None)
                self._kept.soon()

        self._dark.offer(Job(ask, self._dark.local(entry, judge.judge)))

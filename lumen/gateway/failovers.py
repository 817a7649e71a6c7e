"""The failovers of late: what went on elsewhere, as an operator sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any

MAX_FAILOVERS = 200


@dataclass(frozen=True, slots=True)
class Failover:
    """One answer that another target, or another replica, went on with.

    `rung`: of the failover ladder, `fresh` where nothing had been delivered; `position`: tokens or characters
    delivered by then; `seam_ms`: from the failure to the first event of the replacement; `time`: epoch seconds;
    `client`: what the client saw of it.
    """

    request_id: str
    time: float
    source: str
    to: str
    why: str
    rung: str
    position: int
    seam_ms: float | None
    client: str


_SHOWN = tuple(one.name for one in fields(Failover))


class Failovers:
    """The last ones; bounded."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[Failover] = deque(maxlen=MAX_FAILOVERS)

    def add(self, one: Failover) -> None:
        self._kept.append(one)

    def recent(self, most: int = MAX_FAILOVERS) -> list[dict[str, Any]]:
        """The last ones, newest first, JSON-ready."""
        # Not `asdict`, which copies what it finds: the live view asks four times a second.
        return [{name: getattr(one, name) for name in _SHOWN} for one in islice(reversed(self._kept), most)]

    def dump(self) -> list[dict[str, Any]]:
        """What a restart must know, JSON-ready; oldest first."""
        return [asdict(one) for one in self._kept]

    def add_all(self, ones: Iterable[Failover]) -> None:
        self._kept.extend(ones)


def read(kept: Iterable[Mapping[str, Any]]) -> list[Failover]:
    """What `dump` gave.

    Raises:
        TypeError: it did not.
    """
    return [Failover(**one) for one in kept]

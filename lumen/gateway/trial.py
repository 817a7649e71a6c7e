"""What is tried on a route beside serving it. A route on which nothing is tried costs its requests one lookup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from lumen.gateway.attempt import Journey
from lumen.gateway.settled import Settled
from lumen.gateway.table import Entry, Target
from lumen.keys import Key
from lumen.wire.call import Call

Plan = list[tuple[Target, str]]


class Asked(Struct, frozen=True):
    """A request as it came. `size`: bytes of its body. `headers`: the client's."""

    id: str
    entry: Entry
    key: Key | None
    call: Call
    size: int
    headers: Mapping[str, str]


class Try(Protocol):
    """One request's part in what is tried."""

    def steer(self, plan: Plan, fresh: int) -> tuple[Plan, int]:
        """The plan it is to be served by, and how many of its targets may be asked for an answer from its beginning."""
        ...

    def over(self, settled: Settled, journey: Journey, whole: bytes) -> None:
        """It is over, and its client has all it gets. Must not wait. `whole`: the answer's body, where it was one."""
        ...


class Trial(Protocol):
    """What is tried on a route."""

    def begin(self, asked: Asked) -> Try | None:
        """The part this request has in it; `None`: none."""
        ...


class Feedback(Protocol):
    """What clients say of the answers they got."""

    async def take(self, request_id: str, key: Key | None, score: float, comment: str) -> bool:
        """Keep what was said of a request's answer, 0 to 1. False: this key has made no such request.

        Raises:
            UnavailableError: it cannot be kept now.
        """
        ...

"""PURE: who asks, as the gateway tells it in one header of each request.

    X-Lumen-Caller: id=3f2a…; salt=3f2a…; priority=high; keep=1

`id`: with whom it takes turns. `salt`: only requests of the same one share computed prefixes. `priority`: its class.
`keep`: whether what it says may be kept on a disk. A request without the header is nobody's, and nothing of it is kept.

    X-Lumen-Patience: 30

So many seconds it may wait for a slot, and it is refused at once where that would likely take longer. A request without
the header waits for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

from lumen.workers.llamacpp.errors import bad
from lumen.workers.llamacpp.fair import CLASSES, NORMAL
from lumen.workers.llamacpp.sequence import Sequence

HEADER = "X-Lumen-Caller"
PATIENCE = "X-Lumen-Patience"

_KEPT = "k"
_NOT_KEPT = "-"


@dataclass(frozen=True, slots=True)
class Caller:
    """See above."""

    id: str = ""
    salt: str = ""
    rank: int = NORMAL
    keep: bool = False
    patience: float | None = None

    def mark(self, sequences: Many[Sequence], now: float) -> None:
        """Make `sequences` this caller's, come at `now` (seconds, monotonic).

        What may be kept and what may not share no prefix, so the salt tells of everything computed whether it may.
        """
        for sequence in sequences:
            sequence.caller, sequence.rank, sequence.since = self.id, self.rank, now
            sequence.salt = f"{_KEPT if self.keep else _NOT_KEPT}{self.salt}/{sequence.salt}"


def may_keep(salt: str) -> bool:
    """Whether what was computed under the salt of a marked sequence may be kept on a disk."""
    return salt.startswith(_KEPT)


NOBODY = Caller()


def read(header: str | None, patience: str | None = None) -> Caller:
    """What `HEADER` and `PATIENCE` say. Raises `ApiError` 400 where they are not what the gateway sends."""
    waits = None
    if patience is not None:
        try:
            waits = float(patience)
        except ValueError:
            raise bad(f"{PATIENCE} must be a number of seconds.") from None
    if header is None:
        return NOBODY if waits is None else Caller(patience=waits)
    told = dict(part.strip().partition("=")[::2] for part in header.split(";"))
    priority = told.get("priority", CLASSES[NORMAL])
    if priority not in CLASSES:
        raise bad(f"The priority of {HEADER} must be one of {', '.join(CLASSES)}.")
    return Caller(told.get("id", ""), told.get("salt", ""), CLASSES.index(priority), told.get("keep") == "1", waits)

"""Where a replica may run and what it takes there: what the pool asks of the machine's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lumen.workers.memory import Ledger
from lumen.workers.spec import Spec


@dataclass(frozen=True, slots=True)
class Seat:
    """One place for a replica. `gpus`: the cards it uses. `holds`: bytes by device, `asleep`: those it keeps then."""

    gpus: tuple[int, ...] = ()
    holds: Mapping[str, int] = field(default_factory=dict)
    asleep: Mapping[str, int] = field(default_factory=dict)


class Memory(Protocol):
    """The devices of this machine. `ledger`: who has what of them; the pool is its writer."""

    ledger: Ledger

    def seats(self, spec: Spec, most: int) -> tuple[Seat, ...]:
        """The places for one of at most `most` replicas, the better one first; one at least. Estimated, or as it was
        found when it last ran."""
        ...

    async def held(self, spec: Spec, owner: str, pid: int, *, asleep: bool) -> Mapping[str, int]:
        """What the processes of a replica hold now, by device, where that can be told; remembered for `seats`."""
        ...

    async def read(self, pids: Mapping[str, int]) -> None:
        """Take a reading of every device into the ledger. `pids`: owner → its process."""
        ...


class Boundless:
    """A machine whose memory nobody counts."""

    def __init__(self) -> None:
        self.ledger = Ledger(())

    def seats(self, spec: Spec, most: int) -> tuple[Seat, ...]:
        return (Seat(gpus=spec.model.gpus),)

    async def held(self, spec: Spec, owner: str, pid: int, *, asleep: bool) -> Mapping[str, int]:
        return {}

    async def read(self, pids: Mapping[str, int]) -> None:
        return None

"""Where bytes can lie: cards and the machine's memory, by names that stay the same while Lumen runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cuda", "rocm", "metal", "ram"]

# The id of the machine's own memory; a card's is its kind and number, such as "cuda:0".
RAM = "ram"

# What is never given away: drivers, fragmentation and what grows while it is not looked at. Per thousand of the device.
_MARGIN = {"cuda": 20, "rocm": 20, "metal": 20, "ram": 50}


@dataclass(frozen=True, slots=True)
class Device:
    """One memory. `total` in bytes; `index` is a card's number as its vendor's own tool counts, 0 for `ram`."""

    id: str
    kind: Kind
    index: int
    name: str
    total: int

    @property
    def margin(self) -> int:
        """Bytes that the ledger keeps free here."""
        return self.total * _MARGIN[self.kind] // 1000


def card_id(kind: Kind, index: int) -> str:
    """The id of a card."""
    return f"{kind}:{index}"

"""What the byte ledger tells: stages, holdings, shortages, the standing of a device. Plain values; bytes everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from lumen.hardware.devices import Device


class Stage(Enum):
    RESERVED = "reserved"  # charged; its process is not there yet
    STARTING = "starting"  # its process loads; on its cards it is the only one that does
    HELD = "held"  # loaded and measured
    RETURNING = "returning"  # let go; not yet seen back in full


@dataclass(frozen=True, slots=True)
class Holding:
    """What one owner has: charged and still to come back, by device id."""

    owner: str
    stage: Stage
    pinned: bool
    charged: Mapping[str, int]
    returning: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a reservation was refused.

    `missing`: bytes that would have to come free, by device id; devices where it fits are absent.
    `returning`: bytes on those devices that are on their way back: where they cover what is missing (`soon`), waiting
    is enough and nothing needs to be evicted.
    `candidates`: loaded owners, not pinned, whose going would help, with the bytes that it would free on those devices;
    whether one is busy the pool knows.
    """

    missing: Mapping[str, int]
    returning: Mapping[str, int]
    candidates: tuple[Holding, ...]

    @property
    def soon(self) -> bool:
        """Whether what is on its way back is enough."""
        return all(self.returning.get(device, 0) >= wanted for device, wanted in self.missing.items())

    @property
    def hopeless(self) -> bool:
        """Whether it would not fit even if every candidate went."""
        return any(
            self.returning.get(device, 0) + sum(one.charged.get(device, 0) for one in self.candidates) < wanted
            for device, wanted in self.missing.items()
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """One device as the ledger sees it; the sum of all but `device` and `pressure` is the device's total.

    `set_aside`: of earmarks, what is not in use now. `free`: what an owner without an earmark could get, below zero
    under `pressure`. `seen`: whether a reading was ever taken.
    """

    device: Device
    margin: int
    foreign: int
    charged: int
    returning: int
    set_aside: int
    free: int
    seen: bool

    @property
    def pressure(self) -> int:
        """Bytes by which the device is over-committed through no fault of the ledger."""
        return max(0, -self.free)

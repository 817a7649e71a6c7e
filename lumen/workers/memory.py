"""The byte ledger: who may use how much of which memory. PURE: no I/O, no clock; one writer.

The life of an owner (a replica, by any name that its pool gives it):

    reserve ─→ RESERVED ─start─→ STARTING ─measured─→ HELD ─release─→ RETURNING ─seen─→ (gone)

What is reserved is charged at once and in full, so two loads never count on the same bytes. What is released stays
charged until a reading of the device shows it back, so bytes that a dying process still has are never given away.
Readings also tell what foreign processes hold; that is respected like any other charge.

For each device, always:  charged + returning + foreign + set aside + free + margin = total,  where `free` goes below
zero only by what others do: a foreign process that grows, a replica that takes more than it was given. `pressure` is
how far. Bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lumen.hardware.devices import Device
from lumen.workers.holdings import Holding, Shortage, Stage, Standing

__all__ = ["Holding", "Ledger", "Shortage", "Stage", "Standing"]

# Below this a freed allocation counts as seen back: drivers round and other users breathe.
_SLACK = 16 * 1024 * 1024


@dataclass(slots=True)
class _Owner:
    stage: Stage = Stage.RESERVED
    pinned: bool = False
    draws: tuple[str, ...] = ()
    charged: dict[str, int] = field(default_factory=dict)
    returning: dict[str, int] = field(default_factory=dict)
    since: int = 0  # the epoch of its last change; readings begun before it say nothing about it


class Ledger:
    """All devices of a machine. Every method is immediate; none raises for want of memory."""

    def __init__(self, devices: Iterable[Device], margins: Mapping[str, int] | None = None) -> None:
        """`margins`: bytes never given away, by device id; a device's own rule where it is absent."""
        self._devices = {device.id: device for device in devices}
        self._margins = {one.id: (margins or {}).get(one.id, one.margin) for one in self._devices.values()}
        self._owners: dict[str, _Owner] = {}
        self._earmarks: dict[str, dict[str, int]] = {}
        self._foreign: dict[str, int] = dict.fromkeys(self._devices, 0)
        self._seen: set[str] = set()
        self._epoch = 0

    @property
    def devices(self) -> Mapping[str, Device]:
        """By id."""
        return self._devices

    @property
    def epoch(self) -> int:
        """Counts changes. Take it before a reading begins and give it to `seen`, so that a reading which is older
        than a release is not taken for proof that the memory is back."""
        return self._epoch

    def earmark(self, claims: Mapping[str, Mapping[str, int]]) -> None:
        """Set capacity aside: claim (such as "model:llama", "route:fast", "key:alice") → device id → bytes.

        Replaces all earlier claims. Bytes of a claim are lent to nobody, used or not; only a reservation that draws on
        the claim gets them. A claim that does not fit now is met first as memory comes free.

        Raises:
            LookupError: a device that does not exist.
        """
        for wanted in claims.values():
            self._known(wanted)
        self._earmarks = {name: dict(wanted) for name, wanted in claims.items()}

    def earmarked(self, claim: str) -> bool:
        """Whether capacity is set aside under that name."""
        return claim in self._earmarks

    def reserve(
        self, owner: str, wants: Mapping[str, int], *, pinned: bool = False, draws: Sequence[str] = ()
    ) -> Shortage | None:
        """Charge `owner` with `wants` (device id → bytes), all of it or nothing. `None`: it is done.

        For an owner that has something already this changes it to `wants`: more must fit, what is less stays charged
        as returning until it is seen back (a model put to sleep, woken again).
        `draws`: the claims whose set-aside capacity it may use, the first first. `pinned`: never a candidate.

        Raises:
            LookupError: a device that does not exist.
            ValueError: a negative number of bytes.
        """
        self._known(wants)
        if any(size < 0 for size in wants.values()):
            raise ValueError("bytes cannot be negative")
        missing = {}
        for device, size in wants.items():
            short = size - self.free(device, draws=draws, owner=owner)
            if short > 0 and size > self._charge(owner, device):
                missing[device] = short
        if missing:
            return self._shortage(owner, missing, draws)
        entry = self._owners.setdefault(owner, _Owner())
        if entry.stage is Stage.RETURNING:
            entry.stage = Stage.RESERVED
        entry.pinned, entry.draws = pinned, tuple(draws)
        self._recharge(entry, wants)
        return None

    def may_start(self, devices: Collection[str]) -> bool:
        """Whether nothing else is starting on the cards among `devices`. The machine's memory is no card: loads into
        it may run side by side."""
        return self._may_start(devices)

    def start(self, owner: str) -> bool:
        """Take the turn to load (or to wake) on the owner's cards; `False`: another one has it, try after its end.

        The turn ends with `measured` or `release`.

        Raises:
            LookupError: nothing is reserved for this owner.
        """
        entry = self._owners[owner]
        if entry.stage is Stage.RETURNING:
            raise LookupError(f"nothing is reserved for {owner}")
        # Asked again by one that loads: it may have been given a card on which another one does.
        if not self._may_start(entry.charged, entry):
            return False
        entry.stage = Stage.STARTING
        return True

    def measured(self, owner: str, found: Mapping[str, int]) -> None:
        """What the loaded owner really holds takes the place of what was reserved, more or less; ends its turn.

        Devices that `found` does not name keep their charge (they could not be measured).

        Raises:
            LookupError: the owner is unknown, or a device is.
        """
        self._known(found)
        entry = self._owners[owner]
        if entry.stage is Stage.RETURNING:
            return
        entry.stage = Stage.HELD
        for device, size in found.items():
            entry.charged[device] = max(0, size)
            entry.returning.pop(device, None)
        self._touch(entry)

    def pin(self, owner: str, pinned: bool) -> None:
        """Whether the owner may be named as a candidate. Unknown owners are left alone."""
        if owner in self._owners:
            self._owners[owner].pinned = pinned

    def release(self, owner: str) -> None:
        """The owner's processes are gone or going: all it had is returning. Unknown owners are left alone.

        What was only reserved, with no process ever started for it, is free at once.
        """
        entry = self._owners.get(owner)
        if entry is None:
            return
        if entry.stage is Stage.RESERVED:
            entry.charged.clear()
        entry.stage = Stage.RETURNING
        self._recharge(entry, {})
        self._sweep()

    def forget(self, owner: str) -> None:
        """Stop waiting for what `owner` released: its processes are gone for certain, and whatever the next reading
        still shows as taken is somebody else's."""
        entry = self._owners.get(owner)
        if entry is not None and entry.stage is Stage.RETURNING:
            del self._owners[owner]
            self._epoch += 1

    def seen(
        self, device: str, free: int, by_owner: Mapping[str, int] | None = None, *, epoch: int | None = None
    ) -> None:
        """A reading of `device`: bytes free there, and what each owner's processes hold of the rest.

        `by_owner`: `None` where the driver does not tell (containers); then what is in use beyond charges and earlier
        foreign use counts as still returning first. For `ram` it is memory that is not given back on demand: without
        the pages of mapped files, which count as free.
        `epoch`: the ledger's `epoch` when the reading began; the default takes it as fresh.
        """
        used = max(0, self._devices[device].total - free)
        epoch = self._epoch if epoch is None else epoch
        self._foreign[device] = (
            self._unexplained(device, used, epoch) if by_owner is None else self._told(device, used, by_owner, epoch)
        )
        self._seen.add(device)
        self._sweep()

    def free(self, device: str, *, draws: Sequence[str] = (), owner: str | None = None) -> int:
        """Bytes that a reservation drawing on `draws` could get on `device`; below zero under pressure.

        `owner`: whose own charge counts as available, since it would be replaced.
        """
        taken = sum(
            entry.returning.get(device, 0) + (0 if name == owner else entry.charged.get(device, 0))
            for name, entry in self._owners.items()
        )
        aside = sum(left for name, left in self._aside(device, without=owner).items() if name not in draws)
        return self._devices[device].total - self._margins[device] - self._foreign[device] - taken - aside

    def holding(self, owner: str) -> Holding | None:
        """What one owner has, or `None`."""
        entry = self._owners.get(owner)
        return None if entry is None else _holding(owner, entry)

    def holdings(self) -> tuple[Holding, ...]:
        """Every owner, in the order of their first reservation."""
        return tuple(_holding(owner, entry) for owner, entry in self._owners.items())

    def standing(self) -> tuple[Standing, ...]:
        """Every device."""
        return tuple(self._standing(device) for device in self._devices.values())

    # -- inside ----------------------------------------------------------------------------------------------------

    def _may_start(self, devices: Collection[str], besides: _Owner | None = None) -> bool:
        cards = {device for device in devices if self._devices[device].kind != "ram"}
        return not any(
            entry.stage is Stage.STARTING and entry is not besides and not cards.isdisjoint(entry.charged)
            for entry in self._owners.values()
        )

    def _standing(self, device: Device) -> Standing:
        return Standing(
            device=device,
            margin=self._margins[device.id],
            foreign=self._foreign[device.id],
            charged=sum(entry.charged.get(device.id, 0) for entry in self._owners.values()),
            returning=self._returning(device.id),
            set_aside=sum(self._aside(device.id).values()),
            free=self.free(device.id),
            seen=device.id in self._seen,
        )

    def _known(self, devices: Iterable[str]) -> None:
        for device in devices:
            if device not in self._devices:
                raise LookupError(f"there is no device {device!r}; there are {', '.join(self._devices)}")

    def _charge(self, owner: str, device: str) -> int:
        entry = self._owners.get(owner)
        return 0 if entry is None else entry.charged.get(device, 0)

    def _returning(self, device: str) -> int:
        return sum(entry.returning.get(device, 0) for entry in self._owners.values())

    def _touch(self, entry: _Owner) -> None:
        self._epoch += 1
        entry.since = self._epoch

    def _recharge(self, entry: _Owner, wants: Mapping[str, int]) -> None:
        """Change what is charged; what becomes less is returning, unless no process ever had it."""
        for device, size in list(entry.charged.items()):
            less = size - wants.get(device, 0)
            if less > 0 and entry.stage is not Stage.RESERVED:
                entry.returning[device] = entry.returning.get(device, 0) + less
        entry.charged = {device: size for device, size in wants.items() if size}
        self._touch(entry)

    def _aside(self, device: str, without: str | None = None) -> dict[str, int]:
        """Each claim's bytes on `device` that nobody draws on now; `without`: an owner that is not counted."""
        left = {name: wanted.get(device, 0) for name, wanted in self._earmarks.items() if wanted.get(device, 0)}
        if not left:
            return left
        for owner, entry in self._owners.items():
            size = 0 if owner == without else entry.charged.get(device, 0)
            for claim in entry.draws:
                used = min(size, left.get(claim, 0))
                if used:
                    left[claim] -= used
                    size -= used
        return left

    def _shortage(self, owner: str, missing: Mapping[str, int], draws: Sequence[str]) -> Shortage:
        candidates = []
        for name, entry in self._owners.items():
            if name == owner or entry.pinned or entry.stage is not Stage.HELD:
                continue
            # What lies in capacity set aside for others would not come free for this one.
            gains = {
                device: self.free(device, draws=draws, owner=name) - self.free(device, draws=draws)
                for device in missing
                if entry.charged.get(device, 0)
            }
            if any(gains.values()):
                candidates.append(Holding(name, entry.stage, False, gains, dict(entry.returning)))
        return Shortage(missing, {device: self._returning(device) for device in missing}, tuple(candidates))

    def _told(self, device: str, used: int, by_owner: Mapping[str, int], epoch: int) -> int:
        """Foreign use where it is known what each owner has."""
        ours = 0
        for owner, entry in self._owners.items():
            present, charged = max(0, by_owner.get(owner, 0)), entry.charged.get(device, 0)
            returning = entry.returning.get(device, 0)
            if entry.since <= epoch and returning:
                left = max(0, present - charged)
                returning = entry.returning[device] = 0 if left < _SLACK else min(returning, left)
            # What an owner has beyond its charge is in use all the same, and nobody else's to be given.
            ours += min(present, charged + returning)
        return max(0, used - ours)

    def _unexplained(self, device: str, used: int, epoch: int) -> int:
        """Foreign use where only the sum is known: what charges do not explain."""
        left = used
        for entry in self._owners.values():
            if entry.stage is Stage.HELD and entry.since <= epoch:
                left = max(0, left - entry.charged.get(device, 0))
        loading = sum(e.charged.get(device, 0) for e in self._owners.values() if e.stage is Stage.STARTING)
        left = max(min(left, self._foreign[device]), left - loading)
        for entry in self._owners.values():
            returning = entry.returning.get(device, 0)
            if returning and entry.since <= epoch:
                held = min(returning, max(0, left - self._foreign[device]))
                entry.returning[device] = held if held >= _SLACK else 0
            left = max(0, left - entry.returning.get(device, 0))
        return left

    def _sweep(self) -> None:
        for owner, entry in list(self._owners.items()):
            entry.returning = {device: size for device, size in entry.returning.items() if size}
            if entry.stage is Stage.RETURNING and not entry.returning:
                del self._owners[owner]


def _holding(owner: str, entry: _Owner) -> Holding:
    return Holding(owner, entry.stage, entry.pinned, dict(entry.charged), dict(entry.returning))

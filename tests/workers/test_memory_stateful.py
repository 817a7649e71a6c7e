"""The ledger beside a machine: processes that load, die slowly and take too much, strangers that come and go."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumen.hardware.devices import Device
from lumen.workers.memory import Ledger, Stage

MIB = 1024 * 1024
DEVICES = (
    Device("cuda:0", "cuda", 0, "A card", 24 * 1024 * MIB),
    Device("cuda:1", "cuda", 1, "A card", 8 * 1024 * MIB),
    Device("ram", "ram", 0, "Memory", 32 * 1024 * MIB),
)
IDS = [device.id for device in DEVICES]
CLAIMS = ["model:a", "route:fast"]
owners = st.sampled_from(["a:0", "b:0", "c:0"])
devices = st.sampled_from(IDS)
sizes = st.sampled_from([0, 1, 10, 1024, 2500, 4096, 7000, 12_000, 20_000]).map(lambda mib: mib * MIB)
wishes = st.dictionaries(devices, sizes, min_size=1)


class Machine(RuleBasedStateMachine):
    """`real`: what each owner's processes hold, `foreign`: what strangers hold. What was never read is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(DEVICES)
        self.real: dict[str, dict[str, int]] = {}
        self.foreign = dict.fromkeys(IDS, 0)
        self.told = True
        self.late: tuple[str, int, dict[str, dict[str, int]]] | None = None
        self.honest = True  # nobody has taken more than it was given, no stranger more than there was

    @initialize(told=st.booleans())
    def begin(self, told: bool) -> None:
        self.told = told

    def read(self, device: str, epoch: int | None = None) -> None:
        if epoch is None and self.late is not None and self.late[0] == device:
            self.late = None  # readings come in the order in which they were begun
        by_owner = {owner: held.get(device, 0) for owner, held in self.real.items()}
        used = self.foreign[device] + sum(by_owner.values())
        total = self.ledger.devices[device].total
        self.ledger.seen(device, total - used, by_owner if self.told else None, epoch=epoch)

    @rule(owner=owners, wants=wishes, pinned=st.booleans(), draws=st.lists(st.sampled_from(CLAIMS), unique=True))
    def reserve(self, owner: str, wants: dict[str, int], pinned: bool, draws: list[str]) -> None:
        before = self.ledger.holding(owner)
        short = self.ledger.reserve(owner, wants, pinned=pinned, draws=draws)
        if short is not None:
            assert self.ledger.holding(owner) == before
            assert set(short.missing) <= set(wants) and all(size > 0 for size in short.missing.values())
            for one in short.candidates:
                assert one.owner != owner and not one.pinned and one.stage is Stage.HELD
            return
        found = self.ledger.holding(owner)
        assert found is None or found.charged == {device: size for device, size in wants.items() if size}
        for device, size in wants.items():
            grown = size > (before.charged.get(device, 0) if before else 0)
            if grown:
                assert self.ledger.free(device, draws=draws, owner=owner) >= size
        # A process that was told to shrink does so only later; `shrink` is that moment.

    @rule(owner=owners)
    def start(self, owner: str) -> None:
        found = self.ledger.holding(owner)
        if found is None or found.stage is Stage.RETURNING:
            return
        cards = {device for device in found.charged if device != "ram"}
        busy = any(
            other.stage is Stage.STARTING and other.owner != owner and cards & set(other.charged)
            for other in self.ledger.holdings()
        )
        assert self.ledger.start(owner) is not busy

    @rule(owner=owners, share=st.sampled_from([10, 60, 100, 100]), greed=st.sampled_from([100, 100, 100, 100, 110]))
    def load(self, owner: str, share: int, greed: int) -> None:
        """A starting process takes a part of what it was given; at the end all of it, sometimes more."""
        found = self.ledger.holding(owner)
        if found is None or found.stage is not Stage.STARTING:
            return
        percent = greed if share == 100 else share
        held = {device: size * percent // 100 for device, size in found.charged.items()}
        for device, size in held.items():
            held[device] = max(size, self.real.get(owner, {}).get(device, 0))
            if held[device] > found.charged[device] + found.returning.get(device, 0):
                self.honest = False
        self.real[owner] = {**self.real.get(owner, {}), **held}
        if share == 100:
            self.ledger.measured(owner, self.real[owner])

    @rule(owner=owners, wants=wishes)
    def serve(self, owner: str, wants: dict[str, int]) -> None:
        """The usual life: reserved, started, loaded."""
        self.reserve(owner, wants, False, [])
        self.start(owner)
        self.load(owner, 100, 100)

    @rule(owner=owners)
    def shrink(self, owner: str) -> None:
        """A process that holds more than it is charged with gives that back."""
        found = self.ledger.holding(owner)
        if found is None or found.stage is Stage.RETURNING or owner not in self.real:
            return
        self.real[owner] = {d: min(size, found.charged.get(d, 0)) for d, size in self.real[owner].items()}

    @rule(owner=owners, at_once=st.booleans())
    def release(self, owner: str, at_once: bool) -> None:
        self.ledger.release(owner)
        if at_once:
            self.real.pop(owner, None)

    @rule(owner=owners)
    def die(self, owner: str) -> None:
        found = self.ledger.holding(owner)
        if found is None or found.stage is Stage.RETURNING:
            self.real.pop(owner, None)

    @rule(device=devices, size=sizes)
    def strangers(self, device: str, size: int) -> None:
        used = sum(held.get(device, 0) for held in self.real.values())
        size = min(size, max(0, self.ledger.devices[device].total - used))
        fits = size - self.foreign[device] <= max(0, self.ledger.free(device))
        self.foreign[device] = size
        if fits:
            self.read(device)
        else:
            self.honest = False

    @rule(device=devices)
    def look(self, device: str) -> None:
        self.read(device)

    @rule(device=devices)
    def begin_to_look(self, device: str) -> None:
        """A reading that will come late."""
        self.late = device, self.ledger.epoch, {owner: dict(held) for owner, held in self.real.items()}

    @precondition(lambda self: self.late is not None)
    @rule()
    def look_late(self) -> None:
        assert self.late is not None
        device, epoch, real = self.late
        now, self.real, self.late = self.real, real, None
        self.read(device, epoch)
        self.real = now

    @rule(claim=st.sampled_from(CLAIMS), wants=wishes)
    def earmark(self, claim: str, wants: dict[str, int]) -> None:
        self.ledger.earmark({claim: wants})

    @precondition(lambda self: not self.ledger.holdings())
    @rule()
    def nothing_is_lost(self) -> None:
        """With nobody left and a fresh look, every byte that is nobody's is free again."""
        self.ledger.earmark({})
        self.real.clear()
        for device in DEVICES:
            self.read(device.id)
            assert self.ledger.free(device.id) == device.total - device.margin - self.foreign[device.id]

    @rule()
    def all_go(self) -> None:
        for owner in [one.owner for one in self.ledger.holdings()]:
            self.ledger.release(owner)
        self.real.clear()
        for _ in range(2):
            for device in IDS:
                self.read(device)
        if self.told:
            assert self.ledger.holdings() == ()
        for one in self.ledger.holdings():
            self.ledger.forget(one.owner)
        self.nothing_is_lost()

    @invariant()
    def the_sums_add_up(self) -> None:
        for one in self.ledger.standing():
            parts = one.margin + one.foreign + one.charged + one.returning + one.set_aside + one.free
            assert parts == one.device.total
            assert min(one.margin, one.foreign, one.charged, one.returning, one.set_aside) >= 0

    @invariant()
    def no_memory_is_given_twice(self) -> None:
        """While nobody cheats, what is really in use never exceeds a device, whatever was reserved meanwhile."""
        if not self.honest:
            return
        for device in DEVICES:
            used = self.foreign[device.id] + sum(held.get(device.id, 0) for held in self.real.values())
            assert used <= device.total - device.margin


Machine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase

"""The budget against a model that adds up everything that was ever booked, by windows it computes itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from lumen.core import budget
from lumen.core.budget import BOX, Account, Caps, Refusal, Reservation, Scope

SCOPES = (Scope("key", "a"), Scope("key", "b"), Scope("route", "r"), BOX)
START = int(datetime(2026, 12, 31, 23, 58, tzinfo=UTC).timestamp())
caps = st.none() | st.integers(0, 60)


@dataclass
class Booking:
    scopes: tuple[Scope, ...]
    at: datetime
    amount: int
    cost: int | None = None


@dataclass
class Model:
    caps: dict[Scope, Caps] = field(default_factory=dict)
    bookings: list[Booking] = field(default_factory=list)

    def used(self, scope: Scope, at: datetime, digits: int) -> int:
        """Spent and held in the window around `at`, known by the leading fields of its date."""
        same = [b for b in self.bookings if scope in b.scopes and b.at.timetuple()[:digits] == at.timetuple()[:digits]]
        return sum(b.amount if b.cost is None else b.cost for b in same)

    def fits(self, scopes: tuple[Scope, ...], at: datetime, amount: int, total: int) -> bool:
        for scope in scopes:
            limits = self.caps[scope]
            if limits.request is not None and total > limits.request:
                return False
            for cap, digits in ((limits.minute, 5), (limits.day, 3), (limits.month, 2), (limits.credit, 0)):
                if cap is not None and amount and self.used(scope, at, digits) + amount > cap:
                    return False
                if cap is not None and total > cap:
                    return False
        return True


class Budgets(RuleBasedStateMachine):
    holds = Bundle("holds")

    @initialize(limits=st.lists(st.tuples(caps, caps, caps, caps, caps), min_size=4, max_size=4))
    def start(self, limits: list[tuple[int | None, ...]]) -> None:
        self.now = START
        self.model = Model()
        self.accounts = {}
        for scope, values in zip(SCOPES, limits, strict=True):
            self.model.caps[scope] = Caps(*values)
            self.accounts[scope] = Account(scope, Caps(*values))

    @rule(seconds=st.sampled_from([1, 20, 60, 3600, 86400, 31 * 86400]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=holds, key=st.sampled_from(SCOPES[:2]), route=st.booleans(), amount=st.integers(0, 40))
    def hold(self, key: Scope, route: bool, amount: int) -> tuple[Reservation, Booking] | None:
        scopes = (key, *SCOPES[2:]) if route else (key, BOX)
        at = datetime.fromtimestamp(self.now, UTC)
        expected = self.model.fits(scopes, at, amount, amount)
        made = budget.reserve([self.accounts[scope] for scope in scopes], amount, self.now)
        assert isinstance(made, Reservation) == expected, made
        if isinstance(made, Refusal):
            return None
        booking = Booking(scopes, at, amount)
        self.model.bookings.append(booking)
        return made, booking

    @rule(hold=holds, more=st.integers(1, 20))
    def extend(self, hold: tuple[Reservation, Booking] | None, more: int) -> None:
        if hold is None or hold[1].cost is not None:
            return
        reservation, booking = hold
        expected = self.model.fits(booking.scopes, booking.at, more, booking.amount + more)
        assert (budget.extend(reservation, more) is None) == expected
        if expected:
            booking.amount += more

    @rule(hold=consumes(holds), share=st.floats(0, 1))
    def settle(self, hold: tuple[Reservation, Booking] | None, share: float) -> None:
        if hold is None:
            return
        reservation, booking = hold
        booking.cost = int(booking.amount * share)
        budget.settle(reservation, booking.cost)

    @invariant()
    def never_more_than_a_limit(self) -> None:
        for scope, limits in self.model.caps.items():
            for booking in self.model.bookings:
                for cap, digits in ((limits.minute, 5), (limits.day, 3), (limits.month, 2), (limits.credit, 0)):
                    if cap is not None and scope in booking.scopes and booking.amount:
                        assert self.model.used(scope, booking.at, digits) <= cap


Budgets.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBudgets = Budgets.TestCase

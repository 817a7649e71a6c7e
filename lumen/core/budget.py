"""Who may spend how much, and what is spoken for. Pure: counters in, decisions out, now is an argument.

A hold reserves the worst case in every window of every account it touches, in one step without a wait in between;
settling books the exact cost in the same windows and lets the rest go. The sum of what is spent and held never
exceeds a limit, so what is spent never does. A hold belongs to the windows in which it was made: an answer that ends
after midnight is booked on the day it began, and a window's total never depends on when answers end.

| the amount | answer |
| --- | --- |
| is above a limit itself, so that it can never be held | 400 `budget_unsatisfiable`, with what was needed |
| does not fit this minute | 429 `rate_limit_exceeded`, `Retry-After` the next minute |
| does not fit beside what is spent this day, month or of the credit | 429 `insufficient_quota`, not to be retried |
| fits beside what is spent, but not beside what is held for others | 429 `insufficient_quota`, `Retry-After: 1` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from lumen.core.errors import LumenError
from lumen.core.money import format_amount, shown

_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()


class Window(StrEnum):
    """The spans over which money is counted: calendar spans of UTC, and all time."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    CREDIT = "credit"


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits of one account in pico-dollars; `None`: no such limit. `request`: what one request may cost."""

    request: int | None = None
    minute: int | None = None
    day: int | None = None
    month: int | None = None
    credit: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return any(cap is not None for cap in (self.request, self.minute, self.day, self.month, self.credit))


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose money: `kind` is key, route or box; `name` the key's id or the route's name, empty for the box."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return {"key": "this key", "route": f"the route '{self.name}'"}.get(self.kind, "this server")


BOX = Scope("box")


@dataclass(slots=True)
class Counter:
    """One window of one account. Holds keep it alive after its window has ended."""

    index: int
    spent: int = 0
    held: int = 0


@dataclass(slots=True)
class Account:
    """One scope's limits and its current windows."""

    scope: Scope
    caps: Caps = field(default_factory=Caps)
    counters: dict[Window, Counter] = field(default_factory=dict)

    def counter(self, window: Window, number: int) -> Counter:
        """The window of that number; one that has ended is replaced by a fresh one."""
        found = self.counters.get(window)
        if found is None or found.index < number:
            found = self.counters[window] = Counter(number)
        return found


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an amount cannot be held. `left`: what could be; `retry_after`: seconds, `None` where waiting is no use."""

    kind: str  # unsatisfiable, minute, spent, held
    scope: Scope
    limit: str
    cap: int
    needed: int
    left: int
    retry_after: int | None = None


@dataclass(slots=True)
class Reservation:
    """An amount set aside, in the windows of the second it was `booked`."""

    accounts: tuple[Account, ...]
    counters: tuple[tuple[Account, Window, Counter], ...]
    amount: int
    booked: int
    open: bool = True


def index(window: Window, now: int) -> int:
    """The number of the window that `now` (Unix seconds, UTC) falls in; later windows have higher numbers."""
    if window is Window.MINUTE:
        return now // 60
    if window is Window.DAY:
        return now // _DAY
    if window is Window.MONTH:
        day = date.fromordinal(_EPOCH + now // _DAY)
        return day.year * 12 + day.month - 1
    return 0


@lru_cache(maxsize=4)
def _numbers(minute: int) -> tuple[tuple[Window, int], ...]:
    """The windows that a minute falls in."""
    return tuple((window, index(window, minute * 60)) for window in Window)


def begins(window: Window, number: int) -> int:
    """The Unix second at which the window of that number begins; 0 for all time."""
    if window is Window.MINUTE:
        return number * 60
    if window is Window.DAY:
        return number * _DAY
    if window is Window.MONTH:
        return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp())
    return 0


def reserve(accounts: Sequence[Account], amount: int, now: int) -> Reservation | Refusal:
    """Set `amount` aside in every window of every account, or in none. `now`: Unix seconds that never go back."""
    numbers = _numbers(now // 60)
    counters = tuple((account, window, account.counter(window, n)) for account in accounts for window, n in numbers)
    for account in accounts:
        if (refused := _too_dear(account, amount)) is not None:
            return refused
    for account, window, counter in counters:
        if (refused := _full(account, window, counter, amount, amount, now)) is not None:
            return refused
    for _, _, counter in counters:
        counter.held += amount
    return Reservation(tuple(accounts), counters, amount, now)


def extend(reservation: Reservation, amount: int) -> Refusal | None:
    """Make a reservation `amount` larger, in the windows it was made in; unchanged where that is refused."""
    total = reservation.amount + amount
    for account in reservation.accounts:
        if (refused := _too_dear(account, total)) is not None:
            return refused
    for account, window, counter in reservation.counters:
        if (refused := _full(account, window, counter, amount, total, reservation.booked)) is not None:
            return refused
    for _, _, counter in reservation.counters:
        counter.held += amount
    reservation.amount = total
    return None


def lessen(reservation: Reservation, amount: int) -> None:
    """Take an extension of `amount` back."""
    for _, _, counter in reservation.counters:
        counter.held -= amount
    reservation.amount -= amount


def settle(reservation: Reservation, cost: int) -> None:
    """Book what it really cost and let the rest go; a second time it does nothing."""
    if not reservation.open:
        return
    reservation.open = False
    for _, _, counter in reservation.counters:
        counter.held -= reservation.amount
        counter.spent += cost


def room(accounts: Iterable[Account], now: int, reserved: int, committed: int) -> int | None:
    """The most that one more try of a request may cost; `None`: no limit. Never negative.

    Args:
        reserved: what the request has set aside already. `committed`: what of that its earlier tries need.
    """
    least: int | None = None
    for account in accounts:
        for window, number in _numbers(now // 60):
            cap = _cap(account.caps, window)
            if cap is not None:
                counter = account.counter(window, number)
                left = cap - counter.spent - counter.held + reserved - committed
                least = left if least is None else min(least, left)
        if (cap := account.caps.request) is not None:
            least = cap - committed if least is None else min(least, cap - committed)
    return None if least is None else max(least, 0)


class Steady:
    """A clock that never goes back, in microseconds since 1970, from one that may and one that may not.

    Where the wall clock was set back, this one goes on at half its pace until it is caught up with: no window is
    entered twice, none is refilled early, and no step however large stops it.
    """

    __slots__ = ("_mono", "_now")

    def __init__(self, wall: int, mono: int, latest: int = 0) -> None:
        """`latest`: the latest time that is known to have been used."""
        self._now = max(wall, latest)
        self._mono = mono

    def now(self, wall: int, mono: int) -> int:
        passed = max(mono - self._mono, 0)
        if wall >= self._now + passed // 2:
            self._now, self._mono = max(wall, self._now), max(mono, self._mono)
        elif passed > 1:
            self._now, self._mono = self._now + passed // 2, mono
        return self._now


class QuotaError(LumenError):
    """Money or a rate stands in the way. `retry`: whether the client should try again; `None`: as it likes."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, retry: bool | None = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        if retry is not None:
            self.headers["x-should-retry"] = "true" if retry else "false"


def refused(refusal: Refusal) -> LumenError:
    """The answer to a client for a refusal."""
    needed, cap, left = shown(refusal.needed), shown(refusal.cap), shown(max(refusal.left, 0))
    limit = f"the {refusal.limit} limit of {refusal.scope} ({cap})"
    if refusal.kind == "unsatisfiable":
        return unsatisfiable(
            f"This request could cost up to {needed}, above {limit}. Ask for fewer tokens, or raise the limit to "
            f"{format_amount(refusal.needed)} or more."
        )
    if refusal.kind == "minute":
        return rate_error(f"{_begin(limit)} is used up until the next minute.", refusal.retry_after or 1)
    if refusal.kind == "held":
        return QuotaError(
            f"This request could cost up to {needed}; of {limit} only {left} is neither spent nor held for requests "
            "under way. Try again shortly.",
            retry=True,
            retry_after=refusal.retry_after,
        )
    return QuotaError(f"This request could cost up to {needed}, and {left} is left of {limit}.")


def unsatisfiable(message: str) -> LumenError:
    """No target can serve this within the limits, now or later."""
    return LumenError(message, status=400, type="invalid_request_error", code="budget_unsatisfiable")


def rate_error(message: str, retry_after: float) -> QuotaError:
    """429 `rate_limit_exceeded`: `retry_after` seconds help."""
    return QuotaError(message, retry=None, type="requests", code="rate_limit_exceeded", retry_after=retry_after)


def totals(rows: Iterable[tuple[Scope, Window, int, int]]) -> Mapping[Scope, Account]:
    """Accounts as a ledger remembers them: (scope, window, the window's number, pico-dollars spent in it)."""
    found: dict[Scope, Account] = {}
    for scope, window, number, spent in rows:
        found.setdefault(scope, Account(scope)).counters[window] = Counter(number, spent)
    return found


def _begin(text: str) -> str:
    return text[0].upper() + text[1:]


def _cap(caps: Caps, window: Window) -> int | None:
    if window is Window.MINUTE:
        return caps.minute
    if window is Window.DAY:
        return caps.day
    return caps.month if window is Window.MONTH else caps.credit


def _too_dear(account: Account, amount: int) -> Refusal | None:
    """A limit that the amount is above by itself, whatever was spent."""
    cap = account.caps.request
    if cap is not None and amount > cap:
        return Refusal("unsatisfiable", account.scope, "request", cap, amount, cap)
    for window in Window:
        cap = _cap(account.caps, window)
        if cap is not None and amount > cap:
            return Refusal("unsatisfiable", account.scope, window.value, cap, amount, cap)
    return None


def _full(account: Account, window: Window, counter: Counter, more: int, total: int, now: int) -> Refusal | None:
    """A window in which `more` does not fit; `total`: all that the request needs, for the message."""
    cap = _cap(account.caps, window)
    # What costs nothing always fits, also where a target has billed more than it was allowed.
    if cap is None or not more or counter.spent + counter.held + more <= cap:
        return None
    left = cap - counter.spent - counter.held
    if window is Window.MINUTE:
        return Refusal("minute", account.scope, "minute", cap, total, left, 60 - now % 60)
    if counter.spent + more <= cap:
        return Refusal("held", account.scope, window.value, cap, total, left, 1)
    return Refusal("spent", account.scope, window.value, cap, total, left)

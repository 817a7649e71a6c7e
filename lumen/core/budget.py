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
| fits beside what is spent, but not beside what is held for others | the same, with `Retry-After: 1` |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from msgspec import Struct

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


WINDOWS = tuple(Window)


class Account:
    """One scope's limits and its current windows, in the order of `WINDOWS`."""

    __slots__ = ("_caps", "_current", "_minute", "capped", "limited", "scope")

    def __init__(self, scope: Scope, caps: Caps | None = None) -> None:
        self.scope = scope
        self._minute = -1
        self._current = tuple(Counter(-1) for _ in WINDOWS)
        self.caps = caps or Caps()

    @property
    def caps(self) -> Caps:
        return self._caps

    @caps.setter
    def caps(self, caps: Caps) -> None:
        self._caps = caps
        amounts = (caps.minute, caps.day, caps.month, caps.credit)
        # Only the windows that have a limit: (position in WINDOWS, limit).
        self.capped = tuple((i, cap) for i, cap in enumerate(amounts) if cap is not None)
        # Whether there is a limit at all; asked for every request.
        self.limited = caps.any

    def current(self, now: int) -> tuple[Counter, ...]:
        """The windows that `now` (Unix seconds) falls in; those that have ended are replaced by fresh ones."""
        minute = now // 60
        if minute > self._minute:
            self._minute = minute
            fresh = zip(self._current, _numbers(minute), strict=True)
            self._current = tuple(Counter(number) if old.index < number else old for old, number in fresh)
        return self._current

    def remember(self, window: Window, number: int, spent: int) -> None:
        """Take over what a ledger says was spent in a window."""
        at = WINDOWS.index(window)
        self._current = (*self._current[:at], Counter(number, spent), *self._current[at + 1 :])


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


class Reservation(Struct):
    """An amount set aside in the windows of the second it was `booked`, whatever the time is since."""

    bound: tuple[tuple[Account, tuple[Counter, ...]], ...]
    booked: int
    amount: int = 0
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
def _numbers(minute: int) -> tuple[int, ...]:
    """The numbers of the windows that a minute falls in."""
    return tuple(index(window, minute * 60) for window in WINDOWS)


def begins(window: Window, number: int) -> int:
    """The Unix second at which the window of that number begins; 0 for all time."""
    if window is Window.MINUTE:
        return number * 60
    if window is Window.DAY:
        return number * _DAY
    if window is Window.MONTH:
        return int(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp())
    return 0


def bind(accounts: Iterable[Account], now: int) -> Reservation:
    """A reservation of nothing yet, in the windows of `now` (Unix seconds that never go back)."""
    return Reservation(tuple([(account, account.current(now)) for account in accounts]), now)


def rebind(accounts: Iterable[Account], booked: int, now: int) -> Reservation:
    """A reservation of nothing yet for what another process admitted at `booked`; windows that are over count apart."""
    then, bound = _numbers(booked // 60), []
    for account in accounts:
        current = account.current(max(now, booked))
        counters = zip(current, then, strict=True)
        bound.append((account, tuple([one if one.index == number else Counter(number) for one, number in counters])))
    return Reservation(tuple(bound), booked)


def reserve(accounts: Iterable[Account], amount: int, now: int) -> Reservation | Refusal:
    """Set `amount` aside in every window of every account, or in none."""
    reservation = bind(accounts, now)
    return extend(reservation, amount) or reservation


def extend(reservation: Reservation, amount: int) -> Refusal | None:
    """Make a reservation `amount` larger, in the windows it was made in; unchanged where that is refused."""
    bound, total = reservation.bound, reservation.amount + amount
    for account, _ in bound:
        if account.limited and (refused := _too_dear(account, total)) is not None:
            return refused
    for account, counters in bound:
        for at, cap in account.capped:
            if (refused := _full(account, at, cap, counters[at], amount, total, reservation.booked)) is not None:
                return refused
    # Written out, as in `settle`: this is on the path of every request.
    for _, (minute, day, month, ever) in bound:
        minute.held += amount
        day.held += amount
        month.held += amount
        ever.held += amount
    reservation.amount = total
    return None


def lessen(reservation: Reservation, amount: int) -> None:
    """Take an extension of `amount` back."""
    for _, counters in reservation.bound:
        for counter in counters:
            counter.held -= amount
    reservation.amount -= amount


def force(reservation: Reservation, amount: int) -> None:
    """Make a reservation `amount` larger, whatever the limits say: it was granted before."""
    lessen(reservation, -amount)


def settle(reservation: Reservation, cost: int) -> None:
    """Book what it really cost and let the rest go; a second time it does nothing."""
    if not reservation.open:
        return
    reservation.open = False
    held = reservation.amount
    for _, (minute, day, month, ever) in reservation.bound:
        minute.held -= held
        minute.spent += cost
        day.held -= held
        day.spent += cost
        month.held -= held
        month.spent += cost
        ever.held -= held
        ever.spent += cost


def room(reservation: Reservation, committed: int) -> int | None:
    """The most that one more try of a request may cost; `None`: no limit. Never negative.

    `committed`: what of the reservation its earlier tries need.
    """
    found = []
    spare = reservation.amount - committed
    for account, counters in reservation.bound:
        found += [cap - counters[at].spent - counters[at].held + spare for at, cap in account.capped]
        if account.caps.request is not None:
            found.append(account.caps.request - committed)
    return max(min(found), 0) if found else None


class BudgetError(LumenError):
    """A limit of money is in the way. `needed`: the pico-dollars that had to be held; of several targets the least."""

    def __init__(self, message: str, *, needed: int, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.needed = needed


class QuotaError(BudgetError):
    """Money stands in the way: 429, never to be tried again by a client of its own accord.

    Where only holds are in the way it has a `retry_after`, for those who want to wait. It is no invitation: a crowd
    that tries again every second would be refused as often, while a hold may last as long as an answer.
    """

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, needed: int, **rest: Any) -> None:
        super().__init__(message, needed=needed, **rest)
        self.headers["x-should-retry"] = "false"


def refused(refusal: Refusal) -> LumenError:
    """The answer to a client for a refusal."""
    needed, cap, left = shown(refusal.needed), shown(refusal.cap), shown(max(refusal.left, 0))
    limit = f"the {refusal.limit} limit of {refusal.scope} ({cap})"
    if refusal.kind == "unsatisfiable":
        return unsatisfiable(
            f"This request could cost up to {needed}, above {limit}. Ask for fewer tokens, or raise the limit to "
            f"{format_amount(refusal.needed)} or more.",
            refusal.needed,
        )
    if refusal.kind == "minute":
        return rate_error(f"{_begin(limit)} is used up until the next minute.", refusal.retry_after or 1)
    if refusal.kind == "held":
        return QuotaError(
            f"This request could cost up to {needed}; of {limit} only {left} is neither spent nor held for requests "
            "under way. Try again shortly.",
            needed=refusal.needed,
            retry_after=refusal.retry_after,
        )
    return QuotaError(f"This request could cost up to {needed}, and {left} is left of {limit}.", needed=refusal.needed)


def unsatisfiable(message: str, needed: int = 0) -> BudgetError:
    """No target can serve this within the limits, now or later."""
    return BudgetError(message, needed=needed, status=400, type="invalid_request_error", code="budget_unsatisfiable")


def rate_error(message: str, retry_after: float) -> LumenError:
    """429 `rate_limit_exceeded`: `retry_after` seconds help."""
    return LumenError(message, status=429, type="requests", code="rate_limit_exceeded", retry_after=retry_after)


def _begin(text: str) -> str:
    return text[0].upper() + text[1:]


def _too_dear(account: Account, amount: int) -> Refusal | None:
    """A limit that the amount is above by itself, whatever was spent."""
    cap = account.caps.request
    if cap is not None and amount > cap:
        return Refusal("unsatisfiable", account.scope, "request", cap, amount, cap)
    for at, cap in account.capped:
        if amount > cap:
            return Refusal("unsatisfiable", account.scope, WINDOWS[at].value, cap, amount, cap)
    return None


def _full(account: Account, at: int, cap: int, counter: Counter, more: int, total: int, now: int) -> Refusal | None:
    """A window in which `more` does not fit; `total`: all that the request needs, for the message."""
    # What costs nothing always fits, also where a target has billed more than it was allowed.
    if not more or counter.spent + counter.held + more <= cap:
        return None
    left, window = cap - counter.spent - counter.held, WINDOWS[at]
    if window is Window.MINUTE:
        return Refusal("minute", account.scope, "minute", cap, total, left, 60 - now % 60)
    if counter.spent + more <= cap:
        return Refusal("held", account.scope, window.value, cap, total, left, 1)
    return Refusal("spent", account.scope, window.value, cap, total, left)

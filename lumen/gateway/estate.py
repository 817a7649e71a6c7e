"""Accounts that pass from one gateway to another while the first still finishes its requests.

The one that takes over keeps the ledger and all budgets from the moment on at which it opens the ledger; what is held
for requests of the other counts in its own windows. The other (`Lent`) writes down what becomes of its requests in
files of its own (`ledger/outbox.py`), which survive kill -9 and are read here (`Estate`) every few milliseconds, and
asks over the socket of the handover before it holds any more money. So no dollar is promised twice, and no request
waits for another process but one that begins a new try in these seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from lumen.core import budget
from lumen.core.budget import Account, Refusal, Reservation, Scope
from lumen.core.errors import LumenError
from lumen.ledger.journal import Record
from lumen.ledger.outbox import Inbox, Outbox
from lumen.ledger.rows import ESTIMATED, LOST, AttemptRow, HoldRow
from lumen.ledger.store import Ledger, LedgerError

# Seconds between two looks at what the other gateway wrote; also between two tries to write where there is no room.
_LOOK = 0.02
_NO_ROOM = "the disk is full"
_GONE = "the gateway that took over is gone"

# Asks the gateway that keeps the accounts; `None`: it cannot be reached, or not in time.
Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]


class Lent:
    """In place of the ledger, in the gateway that finishes its requests: what they come to goes into the outbox."""

    waiting = dropped = 0

    def __init__(self, outbox: Outbox, ask: Ask) -> None:
        self._outbox = outbox
        self._ask = ask
        # What found no room on the disk, in order.
        self._late: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def trouble(self) -> str | None:
        return _NO_ROOM if self._late else None

    @property
    def healthy(self) -> bool:
        return not self._late

    def hold(self, row: HoldRow) -> Awaitable[None]:
        """Have the other gateway hold this for us; durable once that is awaited.

        The awaitable raises `LedgerError` where that cannot be now, and what `budget.refused` makes of a refusal.
        """
        return self._held(row)

    async def _held(self, row: HoldRow) -> None:
        answer = await self._ask({"hold": list(row)})
        if answer is None or "ok" not in answer:
            raise LedgerError("The accounts are being handed over; try again shortly.", retry_after=2)
        if (told := answer.get("refused")) is not None:
            raise _refusal(told)
        if not self._write(Record(hold=row)):
            raise LedgerError("Requests that cost money cannot be accounted for now; try again shortly.", retry_after=5)

    def settle(self, rows: list[AttemptRow], held: str | None) -> None:
        """As `Ledger.settle`; what finds no room is tried again, and is lost only with this process."""
        record = Record(rows=rows, drop=held)
        if not self._write(record):
            self._late.append(record)
            self._soon()

    def know(self, pairs: Iterable[tuple[int, str]]) -> None:
        """As `Ledger.know`."""
        if known := list(pairs):
            self._write(Record(known=known))

    def flush(self, *, last: bool = False) -> None:
        """Nothing waits here."""

    def retain(self, days: int | None) -> None:
        """The other gateway's to do."""

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._again()
        self._outbox.close()

    def _write(self, record: Record) -> bool:
        return not self._late and self._outbox.add(record)

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._tried)

    def _tried(self) -> None:
        self._timer = None
        self._again()
        if self._late:
            self._soon()

    def _again(self) -> None:
        while self._late and self._outbox.add(self._late[0]):
            del self._late[0]


class Estate:
    """In the gateway that keeps the accounts: what is held for requests that another one still finishes.

    Args:
        ledger: commits what the other one writes. bound: the accounts of a hold's key and route.
        now: Unix seconds of the ledger's clock.
        done: called once the other one has ended and everything of it is in the ledger.
    """

    def __init__(
        self,
        inbox: Inbox,
        ledger: Ledger,
        bound: Callable[[str, str], tuple[Account, ...]],
        now: Callable[[], int],
        done: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._bound = bound
        self._now = now
        self._done = done
        self._reservations: dict[str, Reservation] = {}
        # Holds that the other one has written down: only for those has it asked a target.
        self._rows: dict[str, HoldRow] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, held: Iterable[HoldRow]) -> None:
        """Count what was held when the ledger was opened, and read what is written from now on."""
        for row in held:
            self._rows[row.request] = row
            reservation = self._reservations[row.request] = self._rebound(row)
            budget.force(reservation, row.amount)
        self._look()

    def hold(self, asked: Any) -> dict[str, Any]:
        """The other one wants to hold this, as `Lent` asks it: `ok`, with what is in the way under `refused`."""
        row = HoldRow(*asked)
        if self._ledger.trouble is not None:
            return {"trouble": self._ledger.trouble}
        found = self._reservations.get(row.request)
        reservation = found or self._rebound(row)
        more = row.amount - reservation.amount
        refusal = budget.extend(reservation, more) if more > 0 else None
        if refusal is not None:
            return {"ok": False, "refused": _told(refusal)}
        self._reservations[row.request] = reservation
        return {"ok": True}

    def over(self) -> None:
        """The other one has ended: what it left open is charged what was known of it."""
        self._stop()
        self._read()
        for request, reservation in self._reservations.items():
            row = self._rows.get(request)
            budget.settle(reservation, 0 if row is None else row.known)
            if row is not None:
                self._ledger.settle([_lost(row)], request)
        self._reservations.clear()
        self._rows.clear()
        self._ledger.after(self._committed)

    def close(self) -> None:
        """This gateway ends before the other one; the files stay for the next."""
        self._stop()
        self._inbox.close()

    def _look(self) -> None:
        self._read()
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _read(self) -> None:
        for record in self._inbox.read():
            self._ledger.relay(record)
            if record.hold is not None:
                self._rows[record.hold.request] = record.hold
            for known, request in record.known:
                if (row := self._rows.get(request)) is not None:
                    self._rows[request] = row._replace(known=known)
            if record.rows or record.drop is not None:
                self._settled(record)

    def _settled(self, record: Record) -> None:
        cost = sum([row.cost for row in record.rows])
        reservation = self._reservations.pop(record.drop, None) if record.drop is not None else None
        self._rows.pop(record.drop or "", None)
        if reservation is None and cost:
            row = record.rows[0]
            reservation = budget.rebind(self._bound(row.key, row.route), row.booked // 1_000_000, self._now())
        if reservation is not None:
            budget.settle(reservation, cost)

    def _rebound(self, row: HoldRow) -> Reservation:
        return budget.rebind(self._bound(row.key, row.route), row.booked // 1_000_000, self._now())

    def _committed(self) -> None:
        self._inbox.remove()
        self._done()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _lost(row: HoldRow) -> AttemptRow:
    """As `opening` books what a dead gateway left."""
    return AttemptRow(
        row.request, 0, row.key, row.route, row.target, row.provider, row.model, row.operation, row.booked, row.booked,
        None, row.booked, None, None, None, None, None, row.known, ESTIMATED, LOST, None, None,
    )  # fmt: skip


def _told(refusal: Refusal) -> dict[str, Any]:
    scope = refusal.scope
    return {
        "kind": refusal.kind,
        "scope": [scope.kind, scope.name],
        "limit": refusal.limit,
        "cap": refusal.cap,
        "needed": refusal.needed,
        "left": refusal.left,
        "retry_after": refusal.retry_after,
    }


def _refusal(told: dict[str, Any]) -> LumenError:
    return budget.refused(Refusal(**{**told, "scope": Scope(*told["scope"])}))

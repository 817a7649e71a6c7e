"""Money in the serving process: the counters in force, the ledger behind them, and a tab for every request.

The counters of this process are authoritative while it runs: a decision takes no wait, so a hundred requests at once
cannot all see the same last dollar. The ledger makes holds durable before a target is asked, and costs before the
client is told that all is done, without a wait either; the counters are read from it at the start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lumen.config.adapters import adapted
from lumen.config.schema import Budget, Config
from lumen.core.budget import BOX, WINDOWS, Account, Caps, Scope, Window, rate_error, unsatisfiable
from lumen.core.lengths import Lengths
from lumen.core.meter import ceiling_needed, estimate_input, meets
from lumen.core.money import format_rate, micro
from lumen.core.rate import Gate, RateLimits
from lumen.core.steady import Steady
from lumen.gateway.estate import Ask, Estate, Lent
from lumen.gateway.need import needed
from lumen.gateway.tab import Offer, Tab
from lumen.keys import Key, KeyRing, Limits
from lumen.ledger.journal import Record
from lumen.ledger.outbox import Inbox, Outbox
from lumen.ledger.rows import HoldRow, Opening
from lumen.ledger.store import Ledger, LedgerError
from lumen.wire.call import Call

# Seconds between checkpoints of what requests under way have cost; also between tries to open a ledger.
_CHECKPOINT = 1.0
_SET_BACK = "the machine's clock was set back"


@dataclass(slots=True)
class _Route:
    """What money knows of a route. `ceiling`: the lowest there is for a token, of the route and of the box."""

    account: Account | None
    ceiling: int | None = None
    most: int | None = None
    lengths: Lengths = field(default_factory=Lengths)


class Billing:
    """Everything about money that requests and operators ask of the running gateway. The event loop's own.

    Args:
        path: the ledger's file. `wall`, `mono`: nanoseconds of a clock that may go back and of one that may not.
        told: called with a reason when what costs money is refused, because the ledger fails or the clock was set
            back, and with `None` when that is over.
    """

    def __init__(
        self,
        path: Path,
        *,
        wall: Callable[[], int] = time.time_ns,
        mono: Callable[[], int] = time.monotonic_ns,
        told: Callable[[str | None], None] = lambda why: None,
    ) -> None:
        self._path = path
        self._wall = wall
        self.ticks = mono
        self._told = told
        self._trouble: str | None = None
        self._ledger: Ledger | Lent = Ledger(path, told=self._tell)
        # Whether another gateway still finishes requests of its own, and what is held for those.
        self._shared = False
        self._estate: Estate | None = None
        self._clock = Steady(wall() // 1000, mono() // 1000)
        self._accounts: dict[Scope, Account] = {BOX: Account(BOX)}
        self._box = _Route(self._accounts[BOX])
        self._routes: dict[str, _Route] = {}
        self._keys: dict[str, Account] = {}
        self._gates: dict[str, Gate] = {}
        self._held: dict[str, tuple[Tab, HoldRow]] = {}
        self._past: dict[str, list[int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self.lost = 0

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self, *, shared: bool = False) -> None:
        """Open the ledger; where that fails for now it is tried again, and paid requests are refused until then.

        Args:
            shared: another gateway has lent it and finishes its requests; `over` is called when it has ended.

        Raises:
            SchemaError: the ledger was written by a newer Lumen.
        """
        self._shared = shared
        try:
            await self._open()
        except LedgerError:
            self._tell(self._ledger.trouble)
            self._opening = asyncio.create_task(self._keep_opening())

    async def stop(self) -> None:
        """Write what is queued and close the ledger."""
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError):
                await self._opening
        if self._estate is not None:
            self._estate.close()
        self._ledger.flush(last=True)
        await asyncio.to_thread(self._ledger.close)

    async def lend(self, ask: Ask) -> bool:
        """Let the gateway that takes over keep the accounts from now on; `ask` reaches it. The ledger is closed then.

        False: that cannot be now, and this gateway keeps them to its end.
        """
        ledger = self._ledger
        if not isinstance(ledger, Ledger) or not ledger.healthy or self.sharing:
            return False
        try:
            outbox = Outbox(self._path)
        except OSError:
            return False
        if not all([outbox.add(Record(hold=row)) for _, row in self._held.values()]):
            await asyncio.to_thread(outbox.discard)
            return False
        self._ledger = Lent(outbox, ask)
        ledger.flush(last=True)
        await asyncio.to_thread(ledger.close)
        return True

    @property
    def sharing(self) -> bool:
        """Whether requests of a gateway before this one are still open in the accounts."""
        return self._shared or self._estate is not None

    def grant(self, asked: Any) -> dict[str, Any]:
        """What the gateway before this one wants to hold, as `Lent` asks it; the answer for it."""
        return {} if self._estate is None else self._estate.hold(asked)

    def over(self) -> None:
        """The gateway before this one has ended."""
        self._shared = False
        if self._estate is not None:
            self._estate.over()

    def configure(self, config: Config, ring: KeyRing | None) -> None:
        """Put limits in force; what was spent and held stays, so a limit counts what came before it."""
        self._ledger.retain(config.ledger.keep_days)
        box = config.server.budget
        self._box.ceiling = box.max_cost
        self._account(BOX).caps = _caps(box)
        routes: dict[str, _Route] = {}
        # Local models are routes of their own; a limit set on one later must find what was spent before.
        for name in {*config.models, *adapted(config.models), *config.routes}:
            declared = config.routes.get(name)
            own = declared.budget if declared is not None else Budget()
            account = self._account(Scope("route", name))
            account.caps = _caps(own)
            most = declared.max_output if declared is not None else None
            ceilings = [c for c in (own.max_cost, box.max_cost) if c is not None]
            routes[name] = _Route(account, min(ceilings, default=None), most, self._lengths(name))
        for name in self._routes.keys() - routes.keys():
            self._account(Scope("route", name)).caps = Caps()
        self._routes = routes
        for key in ring.keys if ring is not None else ():
            self._account(Scope("key", key.id)).caps = _caps(key.limits)

    # -- a request -------------------------------------------------------------------------------------------

    def open(
        self,
        request_id: str,
        key: Key | None,
        route: str,
        call: Call,
        body: int,
        offers: Sequence[Offer],
        spare: Sequence[Offer] = (),
    ) -> Tab:
        """Admit a request by its key's rates and every price ceiling. Never waits.

        Args:
            body: bytes of the request's JSON. `offers`: the plan's targets in order; the tab has those within bounds.
            spare: targets that can only go on with an answer; the tab has those within bounds too.

        Raises:
            LumenError: 429 `rate_limit_exceeded`, or 400 `budget_unsatisfiable`.
        """
        known = self._routes.get(route) or self._box
        accounts = self._bound(key, known)
        need = needed(call, body)
        limited = any([account.limited for account in accounts])
        usable = self._within(known, route, limited, offers)
        if spare:
            usable = [*usable, *self._affordable(known, limited, spare)]
        likely = need.max_tokens or known.lengths.bound()
        expected = estimate_input(need.input_bytes) + likely * need.answers
        gate = self._enter(key, expected) if key is not None else None
        tab = Tab(
            self, request_id, key=key.id if key is not None else "", route=route, call=call, need=need, offers=usable,
            accounts=accounts, limited=limited, lengths=known.lengths, most=known.most, expected=expected, gate=gate,
        )  # fmt: skip
        return tab

    def usable(self, route: str, offers: Sequence[Offer]) -> Sequence[Offer]:
        """Those of a plan's targets that may be asked, by the price ceilings and limits of the route and the box.

        Raises:
            LumenError: 400 `budget_unsatisfiable`: none of them.
        """
        known = self._routes.get(route) or self._box
        return self._within(known, route, any(one.limited for one in self._bound(None, known)), offers)

    def _bound(self, key: Key | None, route: _Route) -> tuple[Account, ...]:
        """The accounts that a request counts in."""
        box = self._box.account
        assert box is not None
        counted = (box,) if route is self._box or route.account is None else (route.account, box)
        if key is None:
            return counted
        own = self._keys.get(key.id)
        if own is None:
            own = self._keys[key.id] = self._account(Scope("key", key.id))
        return (own, *counted)

    def _affordable(self, route: _Route, limited: bool, offers: Sequence[Offer]) -> Sequence[Offer]:
        """The targets within the price ceilings; where money is limited, those whose price is known."""
        if (ceiling := route.ceiling) is not None:
            return [offer for offer in offers if meets(offer.price, ceiling)]
        return [offer for offer in offers if offer.price is not None] if limited else offers

    def _within(self, route: _Route, name: str, limited: bool, offers: Sequence[Offer]) -> Sequence[Offer]:
        """The same, where there must be one."""
        usable = self._affordable(route, limited, offers)
        if usable or not offers:
            return usable
        prices = [offer.price for offer in offers if offer.price is not None]
        if not prices:
            raise unsatisfiable(
                f"Money is limited here and no target of '{name}' has a known price; give its model a price."
            )
        ceiling, cheapest = route.ceiling or 0, min(ceiling_needed(price) for price in prices)
        raise unsatisfiable(
            f"No target of '{name}' costs at most {format_rate(ceiling)}; the cheapest needs a limit of "
            f"{format_rate(cheapest)}."
        )

    def _enter(self, key: Key, tokens: int) -> Gate | None:
        """Through the key's gate, if it has one."""
        limits, gate = key.limits, self._gates.get(key.id)
        if gate is None and limits.rpm is None and limits.tpm is None and limits.concurrency is None:
            return None
        wanted, now = RateLimits(limits.rpm, limits.tpm, limits.concurrency), self.mono()
        if gate is None:
            gate = self._gates[key.id] = Gate(wanted, now)
        elif gate.limits != wanted:
            gate.change(wanted, now)
        wait = gate.enter(tokens, now)
        if wait is None:
            return gate
        limit = {"rpm": limits.rpm, "tpm": limits.tpm, "concurrency": limits.concurrency}[wait.limit]
        words = {"rpm": "requests a minute", "tpm": "tokens a minute", "concurrency": "requests at once"}
        seconds = max(wait.micros / 1_000_000, 0.001)
        raise rate_error(
            f"Rate limit reached: this key may use {limit} {words[wait.limit]}. Try again in {seconds:.3g} s.",
            # Rounded up: a client that waits so long is let in.
            float(-(-wait.micros // 1_000_000)),
        )

    # -- what a tab asks -------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether the ledger can be written, as far as is known."""
        return self._ledger.healthy

    def now(self) -> int:
        """Microseconds since 1970 that never go back."""
        return self._clock.now(self._wall() // 1000, self.ticks() // 1000)

    def mono(self) -> int:
        """Microseconds for measuring."""
        return self.ticks() // 1000

    def write(self, tab: Tab, row: HoldRow) -> Awaitable[None] | None:
        """Make a hold durable; where another gateway keeps the accounts, it is once the awaitable has come back.

        Raises:
            LedgerError: it cannot be written now, or the machine's clock was set back a moment ago.
        """
        if left := self._clock.unsettled(self.mono()):
            self._tell(self._ledger.trouble)
            raise LedgerError(
                "Requests that cost money are refused for now, because this machine's clock was set back.",
                retry_after=float(-(-left // 1_000_000)),
            )
        asked = self._ledger.hold(row)
        self._held[tab.request_id] = (tab, row)
        return asked

    def closed(self, tab: Tab) -> None:
        """A tab was closed: its record survives kill -9 when this returns."""
        self._held.pop(tab.request_id, None)
        rows = [line.row(seq) for seq, line in enumerate(tab.lines, 1)]
        # Lines know their tab: without this a request would be a cycle, and wait for the collector.
        tab.lines.clear()
        if rows or tab.held:
            self._ledger.settle(rows, tab.request_id if tab.held else None)

    # -- what an operator asks -------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How the ledger stands, what today has cost, and what is left of every limit, in micro-dollars."""
        today = self._accounts[BOX].current(self.now() // 1_000_000)[WINDOWS.index(Window.DAY)]
        return {
            "today": micro(today.spent),
            "ledger": {
                "healthy": self._why(self._ledger.trouble) is None,
                "why": self._why(self._ledger.trouble),
                "waiting": self._ledger.waiting,
                "dropped": self._ledger.dropped,
                "lost_holds": self.lost,
            },
            "budgets": [line for account in self._accounts.values() for line in self._limits(account)],
        }

    def _limits(self, account: Account) -> list[dict[str, Any]]:
        found = []
        counters = account.current(self.now() // 1_000_000)
        for at, cap in account.capped:
            entry = {"scope": account.scope.kind, "name": account.scope.name, "limit": WINDOWS[at].value}
            amounts = {"cap": cap, "spent": counters[at].spent, "held": counters[at].held}
            found.append({**entry, **{name: micro(amount) for name, amount in amounts.items()}})
        return found

    # -- inside ----------------------------------------------------------------------------------------------

    def _account(self, scope: Scope) -> Account:
        found = self._accounts.get(scope)
        if found is None:
            found = self._accounts[scope] = Account(scope)
        return found

    def _lengths(self, name: str) -> Lengths:
        """How long a route's answers have been, those of earlier processes included; it outlives a reload."""
        before = self._routes.get(name)
        lengths = before.lengths if before is not None else Lengths()
        for length in self._past.pop(name, ()):
            lengths.add(length)
        return lengths

    async def _open(self) -> None:
        ledger = self._ledger
        assert isinstance(ledger, Ledger)
        # A new one for each try: what is read is read once.
        inbox = Inbox(self._path) if self._shared else None
        opening = await asyncio.to_thread(ledger.open, inbox)
        self._opened(opening)
        ledger.start()
        if inbox is not None:
            self._estate = Estate(inbox, ledger, self._of, lambda: self.now() // 1_000_000, self._settled)
            self._estate.begin(opening.held)
            if not self._shared:
                # It has ended while the ledger was opened.
                self._estate.over()
        self._timer = asyncio.get_running_loop().call_later(_CHECKPOINT, self._checkpoint)

    def _opened(self, opening: Opening) -> None:
        """Take over what the ledger remembers. Nothing was spent in this process before: it could not be written."""
        self._clock = Steady(self.now(), self.mono(), opening.latest)
        self.lost = opening.lost
        for scope, window, number, spent in opening.totals:
            self._account(scope).remember(window, number, spent)
        for route, length in opening.lengths:
            self._past.setdefault(route, []).append(length)
        for name, known in self._routes.items():
            known.lengths = self._lengths(name)

    def _of(self, key: str, route: str) -> tuple[Account, ...]:
        """The accounts that a request of another gateway counts in."""
        known = self._routes.get(route)
        scopes = [Scope("key", key)] if key else []
        own = [known.account] if known is not None and known.account is not None else []
        return (*map(self._account, scopes), *own, self._account(BOX))

    def _settled(self) -> None:
        """All of the gateway before this one is in the ledger."""
        self._estate = None

    async def _keep_opening(self) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT)
            with suppress(LedgerError):
                await self._open()
                self._tell(None)
                return

    def _why(self, ledger: str | None) -> str | None:
        """Why what costs money is refused now; `ledger`: what is wrong with that."""
        return ledger or (_SET_BACK if self._clock.unsettled(self.mono()) else None)

    def _tell(self, ledger: str | None) -> None:
        """Tell of trouble, and of its end, once."""
        why = self._why(ledger)
        if why != self._trouble:
            self._trouble = why
            self._told(why)

    def _look(self) -> None:
        """Notice that the clock was set back, or that this is over, also where nobody asks."""
        self.now()
        self._tell(self._ledger.trouble)

    def _checkpoint(self) -> None:
        """Once a second: what requests under way have cost, so that a crash forgets a second of each at most."""
        self._look()
        changed = []
        for request_id, (tab, row) in self._held.items():
            known = tab.known()
            if known > row.known:
                self._held[request_id] = (tab, row._replace(known=known))
                changed.append((known, request_id))
        self._ledger.know(changed)
        self._timer = asyncio.get_running_loop().call_later(_CHECKPOINT, self._checkpoint)


def _caps(limits: Budget | Limits) -> Caps:
    return Caps(limits.max_request, limits.per_minute, limits.daily, limits.monthly, limits.credit)

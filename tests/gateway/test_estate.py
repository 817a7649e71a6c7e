"""Two gateways, one ledger: what one has begun and the other has granted, counted once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumen.core.errors import LumenError
from lumen.gateway.billing import Billing
from lumen.gateway.tab import Line, Tab
from lumen.keys import KeyRing, Limits
from lumen.ledger.journal import handed
from lumen.ledger.store import LedgerError
from tests.gateway.billed import PAID, Bench, Clock, ask, said, setup
from tests.ledger.ledgers import consistent, rows

pytestmark = pytest.mark.anyio
CAP = 100


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def two(path: Path, limits: Limits | None = None) -> AsyncIterator[tuple[Bench, Bench]]:
    """An old gateway and the one that will take over; the second has not opened the ledger."""
    config, ring = setup(limits or Limits(credit=CAP))
    clock = Clock()
    made = []
    for _ in range(2):
        told: list[str | None] = []
        billing = Billing(path, wall=lambda: clock.wall, mono=lambda: clock.mono, told=told.append)
        billing.configure(config, KeyRing(ring.keys))
        made.append(Bench(billing, path, clock, ring.keys[0], told))
    # Names of requests are apart.
    made[1].count = 1000
    await made[0].billing.start()
    try:
        yield made[0], made[1]
    finally:
        await made[0].billing.stop()
        await made[1].billing.stop()


async def lent(old: Bench, new: Bench) -> None:
    async def reach(asked: dict[str, Any]) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        return new.billing.grant(asked["hold"])

    assert await old.billing.lend(reach)
    await new.billing.start(shared=True)


async def begun(tab: Tab) -> Line:
    line = tab.begin(PAID)
    if line.asked is not None:
        await line.asked
    return line


def finish(tab: Tab, tokens: int) -> None:
    for event in said(tokens):
        tab.lines[-1].note(event)
    tab.close()


def money(bench: Bench) -> tuple[int, int]:
    """Spent and held of the key's credit, in pico-dollars."""
    account = bench.billing._keys.get(bench.key.id) or bench.billing._of(bench.key.id, "fast")[0]
    (counter,) = account.current(bench.billing.now() // 1_000_000)[3:]
    return counter.spent, counter.held


async def over(old: Bench, new: Bench) -> None:
    await old.billing.stop()
    new.billing.over()
    async with asyncio.timeout(100):
        while new.billing.sharing:
            await asyncio.sleep(0.005)


async def until(true: Any) -> None:
    async with asyncio.timeout(100):
        while not true():
            await asyncio.sleep(0.005)


async def test_what_is_under_way_counts_in_the_new_ones_budget_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with two(path) as (old, new):
        await old.serve(tokens=10)
        tab = old.open(PAID, call=ask(60))
        await begun(tab)
        await lent(old, new)
        assert money(new) == (10, 60)
        # Thirty are left: neither gateway gives away more.
        fits, mine = new.open(PAID, call=ask(25)), old.open(PAID, call=ask(25))
        await begun(fits)
        with pytest.raises(LumenError) as refused:
            await begun(mine)
        assert refused.value.status == 429
        mine.close("refused")
        assert money(new) == (10, 85) and mine.lines == []
        finish(tab, 12)
        await until(lambda: money(new) == (22, 25))
        # Now it fits, and the new one knows of it at once.
        later = old.open(PAID, call=ask(50))
        await begun(later)
        assert money(new) == (22, 75)
        finish(fits, 25)
        finish(later, 50)
        await until(lambda: money(new) == (97, 0))
        await over(old, new)
        assert handed(path) == []
        assert await new.rows("SELECT sum(cost), count(*) FROM attempts") == [(97, 4)]
        assert await new.rows("SELECT count(*) FROM holds") == [(0,)]
    consistent(path)


async def test_a_retry_asks_for_the_difference_and_is_booked_as_one_request(tmp_path: Path) -> None:
    async with two(tmp_path / "l.db") as (old, new):
        tab = old.open(PAID, call=ask(40))
        first = await begun(tab)
        await lent(old, new)
        first.note(said(3)[0])
        first.end("upstream_broken")
        await begun(tab)
        assert money(new)[1] == tab._reservation.amount == 40 + first.bill.cost
        finish(tab, 40)
        await until(lambda: money(new) == (40 + first.bill.cost, 0))
        await over(old, new)
        assert await new.rows("SELECT count(*), count(DISTINCT request) FROM attempts") == [(2, 1)]


async def test_the_old_one_killed_is_charged_what_was_known(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with two(path) as (old, new):
        tab = old.open(PAID, call=ask(40))
        line = await begun(tab)
        await lent(old, new)
        for event in said(10, usage=False)[:10]:
            line.note(event)
        known = tab.known()
        old.billing._checkpoint()
        # Granted, and killed before it was written down: its target was never asked.
        assert new.billing.grant([*old.billing._held[tab.request_id][1]._replace(request="never")])["ok"]
        assert known > 0 and money(new)[1] == 80
        new.billing.over()
        await until(lambda: not new.billing.sharing)
        assert money(new) == (known, 0)
        assert await new.rows("SELECT request, cost, outcome FROM attempts") == [(tab.request_id, known, "lost")]
        assert await new.rows("SELECT count(*) FROM holds") == [(0,)] and handed(path) == []


async def test_the_new_one_killed_leaves_all_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with two(path) as (old, new):
        tab, ended = old.open(PAID, call=ask(40)), old.open(PAID, call=ask(10))
        await begun(tab)
        await begun(ended)
        await lent(old, new)
        finish(ended, 10)
        await until(lambda: money(new) == (10, 40))
        fresh = new.open(PAID, call=ask(20))
        await begun(fresh)
        finish(fresh, 20)
        # It looks no more; what it has written down is left as it is, as after kill -9.
        assert new.billing._estate is not None
        new.billing._estate.close()
        finish(tab, 30)
    config, ring = setup(Limits(credit=CAP))
    third = Billing(path)
    third.configure(config, ring)
    await third.start()
    try:
        assert third.lost == 0 and handed(path) == []
        assert rows(path, "SELECT sum(cost), count(*) FROM attempts") == [(60, 3)]
        assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
    finally:
        await third.stop()
    consistent(path)


async def test_nobody_there_to_ask_means_no_new_money(tmp_path: Path) -> None:
    async with two(tmp_path / "l.db") as (old, _):
        tab = old.open(PAID, call=ask(40))
        await begun(tab)

        async def nobody(asked: dict[str, Any]) -> None:
            return None

        assert await old.billing.lend(nobody)
        mine = old.open(PAID, call=ask(5))
        with pytest.raises(LedgerError):
            await begun(mine)
        mine.close("refused")
        # What was held before is booked all the same.
        finish(tab, 40)
        assert money(old) == (40, 0)


async def test_it_is_not_lent_twice_nor_while_it_is_in_trouble(tmp_path: Path) -> None:
    async with two(tmp_path / "l.db") as (old, new):
        old.billing._ledger.trouble = "the disk is full"  # type: ignore[misc]
        assert not await old.billing.lend(lambda asked: asyncio.sleep(0, {}))
        old.billing._ledger.trouble = None  # type: ignore[misc]
        await lent(old, new)
        assert not await old.billing.lend(lambda asked: asyncio.sleep(0, {}))
        # And who shares it cannot lend it either.
        assert not await new.billing.lend(lambda asked: asyncio.sleep(0, {}))
        await over(old, new)
        await new.serve(tokens=5)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["open", "end", "more"]), st.integers(1, 60)), min_size=4, max_size=40
    ),
    st.integers(0, 20),
)
async def test_no_dollar_is_promised_twice_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, str, int]], at: int
) -> None:
    path, served = tmp_path_factory.mktemp("e") / "l.db", 0
    async with two(path) as (old, new):
        under_way: list[tuple[Tab, int]] = []
        for number, (first, what, tokens) in enumerate(steps):
            if number == at:
                await lent(old, new)
            bench = old if first or number < at else new
            if what == "open" or not under_way:
                tab = bench.open(PAID, call=ask(tokens))
                try:
                    await begun(tab)
                except LumenError:
                    tab.close("refused")
                    continue
                under_way.append((tab, tokens))
            elif what == "end":
                tab, most = under_way.pop(tokens % len(under_way))
                finish(tab, min(tokens, most))
                served += tab.cost
            else:
                tab, most = under_way[tokens % len(under_way)]
                tab.lines[-1].end("upstream_broken")
                try:
                    await begun(tab)
                except LumenError:
                    under_way.remove((tab, most))
                    tab.close("refused")
            open_now = sum(tab._reservation.amount for tab, _ in under_way)
            assert served + open_now <= CAP
        if at >= len(steps):
            await lent(old, new)
        for tab, most in under_way:
            finish(tab, most)
            served += tab.cost
        await over(old, new)
        assert money(new) == (served, 0)
        assert await new.rows("SELECT coalesce(sum(cost), 0) FROM attempts") == [(served,)]
        assert await new.rows("SELECT count(*) FROM holds") == [(0,)] and handed(path) == []
    consistent(path)

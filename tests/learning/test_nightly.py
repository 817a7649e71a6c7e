"""Routes that learn each night, and what a route without anything tried on it pays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Route, Target
from lumen.core.errors import RequestError, UnavailableError
from lumen.gateway.table import Origin, Origins, Table
from lumen.keys import Key
from lumen.learning.learning import Learning, Outside
from lumen.learning.shelf import Shelf, ShelfError
from lumen.ledger.labels import Labels
from tests.gateway.conftest import Up, fake
from tests.learning.test_fitting import traffic

pytestmark = pytest.mark.anyio
NAMES = {"cheap": "fake/words-2", "strong": "fake/words-3"}


class Night:
    """A clock that stands still, and everything that was told."""

    def __init__(self, hour: int) -> None:
        self.now = time.mktime((2026, 11, 22, hour, 0, 0, 0, 0, -1))
        self.notes: list[str] = []
        self.said: list[str] = []
        self.learnt = 0
        self.heard = asyncio.Event()

    async def note(self, action: str, subject: str, who: str, details: Mapping[str, Any]) -> None:
        self.notes.append(f"{action} {subject} {who}")

    async def put_in_force(self) -> None:
        self.learnt += 1

    def say(self, text: str) -> None:
        self.said.append(text)
        self.heard.set()


async def nobody(route: str, targets: list[Any]) -> None:
    raise AssertionError("nothing is promoted here")


def learning(up: Up, night: Night, where: Path, *, nightly: bool = True) -> Learning:
    targets = tuple(Target(name) for name in ("fake/words-3", "fake/words-2"))
    route = Route(targets, policy="ordered", max_loss=0.02, learn="nightly" if nightly else "off")
    up.state.config = replace(up.state.config, routes={"chat": route})
    (fakes,) = {origin for entry in up.state.table.entries() for origin in (entry.targets[0].upstream,)}
    up.state.table = Table(up.state.config, Origins({}, {"fake": Origin(fakes, fake)}), 1)
    retains = lambda route, key: True  # noqa: E731
    return Learning(
        up.state,
        Outside(
            where / "ledger.db", where / "trials.json", Shelf(where / "scorers"), retains, night.put_in_force, nobody,
            night.note, night.say, lambda: night.now,
        ),
    )  # fmt: skip


def teach(where: Path, count: int) -> None:
    store = Labels(where / "ledger.db")
    for label in traffic(count):
        store.add(type(label)(label.request, "judge", "chat", label.at, {NAMES[n]: ok for n, ok in label.ok.items()},
                              propensity=0.05, form=label.form, ask=label.ask))  # fmt: skip
    store.close()


async def test_it_learns_once_a_night_after_three(up: Up, tmp_path: Path) -> None:
    await asyncio.to_thread(teach, tmp_path, 400)
    night = Night(3)
    one = learning(up, night, tmp_path)
    await one.start()
    async with asyncio.timeout(100):
        await night.heard.wait()
    assert night.said == ["chat has learnt: version 1 from 400 labels"]
    assert night.notes == ["route.learn chat lumen"] and night.learnt == 1
    assert (await one.versions("chat"))["versions"][0]["live"]
    await one.close()
    # The same night again, after a restart: nothing; the next one: once more.
    night.heard.clear()
    again = learning(up, night, tmp_path)
    await again.start()
    night.now += 86_400
    again.configured()
    async with asyncio.timeout(100):
        await night.heard.wait()
    await again.close()
    assert night.said[1:] == ["chat has learnt: version 2 from 400 labels"]


async def test_with_too_few_labels_the_night_passes_and_is_told(up: Up, tmp_path: Path) -> None:
    night = Night(5)
    one = learning(up, night, tmp_path)
    await one.start()
    async with asyncio.timeout(100):
        await night.heard.wait()
    await one.close()
    assert night.said == ["chat has learnt: 0 labels, 300 are missing; nothing is changed"]
    assert night.learnt == 0 and night.notes == []


async def test_a_night_that_fails_in_an_odd_way_is_told_and_the_next_one_comes(
    up: Up, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(4)
    one = learning(up, night, tmp_path)

    async def fails(*given: Any, **more: Any) -> Any:
        raise ShelfError("odd") if len(night.said) == 0 else RuntimeError

    monkeypatch.setattr(one._learner, "learn", fails)
    await one.start()
    for told in ("chat could not learn tonight: odd", "chat could not learn tonight: RuntimeError"):
        async with asyncio.timeout(100):
            await night.heard.wait()
        assert night.said[-1] == told
        night.heard.clear()
        night.now += 86_400
        one.configured()
    await one.close()


async def test_before_three_and_where_it_was_not_asked_for_nothing_is_learnt(
    up: Up,
    tmp_path: Path,
) -> None:
    for night, nightly in ((Night(2), True), (Night(12), False)):
        one = learning(up, night, tmp_path, nightly=nightly)
        await one.start()
        assert bool(up.state.trials) is nightly
        await asyncio.sleep(0.1)
        await one.close()
        assert night.said == [] and up.state.trials == {} and up.state.feedback is None


async def test_who_asks_with_a_key_is_retained_by_it(up: Up, tmp_path: Path) -> None:
    night = Night(2)
    one = learning(up, night, tmp_path)
    await one.start()
    asked: list[tuple[str, Key | None]] = []
    trial = up.state.trials["chat"]
    trial._retains = lambda route, key: asked.append((route, key)) or False  # type: ignore[attr-defined]
    body = {"model": "chat", "messages": [{"role": "user", "content": "a secret"}]}
    status, _, headers = await up.post("/v1/chat/completions", body)
    await asyncio.sleep(0)
    assert status == 200 and [(route, key.name if key else None) for route, key in asked] == [("chat", "test")]
    assert trial.past(headers["x-request-id"]) is None  # type: ignore[attr-defined]
    await one.close()


async def test_nothing_is_changed_before_what_an_earlier_process_left_is_taken_up(up: Up, tmp_path: Path) -> None:
    """What would be written down then is not all that there is."""
    night = Night(2)
    one = learning(up, night, tmp_path)
    (tmp_path / "trials.json").write_text('{"nights": {"chat": "1999-01-01"}}')
    for asked in (
        one.shadow("chat", "start", '{"candidate": "m"}'),
        one.canary("chat", "start", '{"candidate": "m", "guard": "errors"}', "me"),
        one.learn("chat", "learn", "{}", "me"),
    ):
        with pytest.raises(UnavailableError, match="try again shortly"):
            await asked
    assert "1999" in (tmp_path / "trials.json").read_text()
    await one.start()
    with pytest.raises(RequestError, match="has no shadow"):
        await one.shadow("chat", "stop", "{}")
    await one.close()

"""Health kept on disk, and idle checks of targets that are out."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen.core.errors import ConnectError
from lumen.gateway import upkeep
from lumen.gateway.health import Health
from lumen.gateway.upkeep import Keeper, prober
from tests.gateway.healths import (
    ASKED,
    BASE,
    EPOCH,
    UNSET,
    Clock,
    attempt,
    break_down,
    failover,
    learned,
    limits,
    taken,
)

# -- kept on disk ----------------------------------------------------------------------------------------------


def test_what_is_known_survives_a_restart(health: Health, clock: Clock, tmp_path: Path) -> None:
    said: list[str] = []
    learned(health, clock, 1.0, 3.0)
    attempt(health, "b", clock(), ASKED)
    health.drain("c", clock(), "by hand")
    health.failovers.add(failover(1))
    Keeper(health, tmp_path / "health.json", said.append).save()
    assert (tmp_path / "health.json").stat().st_mode & 0o777 == 0o600
    # The next process: the loop's time began anew.
    later = Clock()
    later.now = 3.0
    again = Health(lambda: 0.0, later(), EPOCH + clock() + 20)
    Keeper(again, tmp_path / "health.json", said.append).load(later())
    assert {name: one.state.value for name, one in again.out("abc", later()).items()} == {"b": "open", "c": "drained"}
    assert again.out("b", later() + 39.9)
    assert not again.out("b", later() + 40.1)
    given = again.begin("a", later(), 1000)
    assert given is not None
    assert limits(given, BASE, UNSET).first_token == pytest.approx(8.0, rel=0.1)
    assert again.failovers.recent() == health.failovers.recent()
    assert not said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"format": 9}',
        b'{"format": 1, "targets": {"a": {}}, "failovers": []}',
        b'{"format": 1, "targets": {}, "failovers": [{"x": 1}]}',
        b'{"format": 1, "targets": [], "failovers": []}',
        b"[" * 100_000,
    ],
)
def test_a_corrupt_file_is_set_aside(health: Health, clock: Clock, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "health.json"
    path.write_bytes(content)
    said: list[str] = []
    Keeper(health, path, said.append).load(clock())
    assert not path.exists()
    assert (tmp_path / "health.json.corrupt").read_bytes() == content
    assert len(said) == 1
    assert health.snapshot(clock()) == []


def test_no_file_is_no_trouble(health: Health, clock: Clock, tmp_path: Path) -> None:
    said: list[str] = []
    Keeper(health, tmp_path / "health.json", said.append).load(clock())
    assert not said


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not true():
            await asyncio.sleep(0.005)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_it_is_written_when_it_changed(health: Health, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    task = asyncio.create_task(Keeper(health, path, lambda text: None).run(every=0.01))
    attempt(health, "a", clock(), ASKED)
    await until(path.exists)
    assert json.loads(path.read_bytes())["targets"]["a"]["breaker"]["state"] == "open"
    health.restore("a", clock())
    await until(lambda: json.loads(path.read_bytes())["targets"]["a"]["breaker"]["state"] == "closed")
    await cancelled(task)


@pytest.mark.anyio
async def test_it_is_not_written_for_nothing(
    health: Health, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[Path] = []
    monkeypatch.setattr(upkeep, "write_atomic", lambda path, data, mode: writes.append(path))
    keeper = Keeper(health, tmp_path / "health.json", lambda text: None)
    looks = 0

    def last_used() -> float:
        nonlocal looks
        looks += 1
        return Health.last_used(health)

    monkeypatch.setattr(health, "last_used", last_used)
    task = asyncio.create_task(keeper.run(every=0.001, times_every=3600.0))
    attempt(health, "a", clock())
    await until(lambda: looks >= 10)
    assert not writes
    await cancelled(task)
    task = asyncio.create_task(keeper.run(every=0.001, times_every=0.0))

    async def written_once_more(count: int) -> None:
        await until(lambda: len(writes) == count)
        looked = looks
        await until(lambda: looks >= looked + 10)
        assert len(writes) == count

    await written_once_more(1)
    clock.now += 1
    attempt(health, "a", clock())
    await written_once_more(2)
    await cancelled(task)


def test_a_late_write_does_not_undo_a_later_one(
    health: Health, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper(health, tmp_path / "health.json", lambda text: None)
    attempt(health, "a", clock())
    early = keeper._dump()
    attempt(health, "a", clock(), ASKED)
    keeper.save()
    thread = threading.Thread(target=keeper._write, args=early)
    thread.start()
    thread.join()
    assert json.loads((tmp_path / "health.json").read_bytes())["targets"]["a"]["breaker"]["state"] == "open"


def test_a_full_disk_is_told_once(health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    said: list[str] = []
    keeper = Keeper(health, tmp_path / "health.json", said.append)
    monkeypatch.setattr(upkeep, "write_atomic", full)
    keeper.save()
    keeper.save()
    assert said == ["the health of targets cannot be written: No space left on device"]


# -- idle checks -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_open_target_that_answers_is_probed_earlier() -> None:
    loop = asyncio.get_running_loop()
    health = Health(lambda: 0.0, loop.time(), EPOCH)
    answers: dict[str, int | Exception | None] = {
        "alive": 200,
        "locked": 401,
        "failing": 503,
        "local": None,
        "gone": ConnectError("", phase="connect"),
        "reset": ConnectionResetError(),
    }
    asked: list[str] = []

    async def ask(name: str) -> int | None:
        asked.append(name)
        if name == "silent":
            await asyncio.Event().wait()
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    names = (*answers, "silent", "busy", "asked")
    for name in names:
        break_down(health, name, loop.time())
    attempt(health, "asked", loop.time(), ASKED, force=True)
    taken(health, "busy", loop.time(), force=True)
    attempt(health, "well", loop.time())
    task = asyncio.create_task(prober(health, ask, look=0.01, pace=600.0, limit=0.05))
    await until(lambda: not {"alive", "locked"} & health.out(names, loop.time()).keys())
    await until(lambda: len(asked) == len(answers) + 1)
    # Nobody is asked twice within the pace, nor whom somebody uses, nor who asked to be left alone.
    assert sorted(asked) == sorted((*answers, "silent"))
    assert health.out(names, loop.time()).keys() == {"failing", "local", "gone", "reset", "silent", "busy", "asked"}
    assert taken(health, "alive", loop.time()).probing
    await cancelled(task)

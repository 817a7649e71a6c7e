from __future__ import annotations

import asyncio
import fcntl
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen.backup import backup, restore
from lumen.core.errors import ConfigError
from lumen.keys import KeyRing, ensure_local, load, mint, save
from lumen.learning.shelf import Shelf
from lumen.ledger import copying, opening
from lumen.ledger.journal import Journal, Record
from lumen.ledger.report import reading
from lumen.ledger.schema import STEPS, migrate
from lumen.paths import Paths
from tests.ledger.ledgers import attempt, consistent, hold, opened, rows

CONFIG = "# mine\nserver: {port: 7777}\n"


def place(root: Path) -> Paths:
    paths = Paths(root / "config", root / "state", root / "data", root / "run")
    paths.make()
    paths.config_file.write_text(CONFIG)
    save(paths.keys_file, KeyRing([mint("one")[0], mint("two")[0]]))
    (paths.state_dir / "targets.json").write_text('{"a": 1}')
    paths.probed_file.write_text('{"b": 2}')
    return paths


async def booked(path: Path, count: int) -> None:
    async with opened(path) as (ledger, _):
        for i in range(count):
            ledger.settle([attempt(f"r{i}", cost=i)], None)


def names(file: Path) -> list[str]:
    with tarfile.open(file) as tar:
        return tar.getnames()


def tampered(file: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> Path:
    """The same archive with other members."""
    out = file.with_name("other.tar.gz")
    with tarfile.open(file) as old, tarfile.open(out, "w:gz") as new:
        for member in old.getmembers():
            body = old.extractfile(member)
            assert body is not None
            changed = change(member.name, body.read())
            if changed is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                new.addfile(info, io.BytesIO(changed[1]))
    return out


def test_what_was_backed_up_comes_back_and_what_was_there_stays_aside(tmp_path: Path) -> None:
    one, two, file = place(tmp_path / "one"), place(tmp_path / "two"), tmp_path / "b.tar.gz"
    secret = ensure_local(one)
    asyncio.run(booked(one.ledger_file, 20))
    asyncio.run(booked(two.ledger_file, 3))
    two.config_file.write_text("server: {port: 8888}\n")
    made = backup(one, one.config_file, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(names(file)) == {"manifest.json", "ledger.db", "config.yaml", "keys.json", "targets.json", "probed.json"}
    assert secret.encode() not in b"".join(tarfile.open(file).extractfile(n).read() for n in names(file))  # type: ignore[union-attr]  # noqa: SIM115
    found, replaced = restore(two, two.config_file, file)
    assert found == made
    assert two.config_file.read_text() == CONFIG
    assert [key.name for key in load(two.keys_file).keys] == ["one", "two", "local"]
    assert rows(two.ledger_file, "SELECT count(*), sum(cost) FROM attempts") == [(20, 190)]
    consistent(two.ledger_file)
    aside = two.ledger_file.with_name("ledger.db.before-restore")
    assert aside in replaced and rows(aside, "SELECT count(*) FROM attempts") == [(3,)]
    assert two.ledger_file.stat().st_mode & 0o777 == 0o600
    with reading(two.ledger_file) as ledger:
        assert ledger.total().cost == 190
    # And it goes on from there.
    asyncio.run(booked(two.ledger_file, 25))
    assert rows(two.ledger_file, "SELECT count(*) FROM attempts") == [(25,)]


def test_what_routes_have_learnt_and_try_comes_back_as_one(tmp_path: Path) -> None:
    one, two, file = place(tmp_path / "one"), place(tmp_path / "two"), tmp_path / "b.tar.gz"
    name = "lumen/auto with ü and /.."
    mine, theirs = Shelf(one.scorers_dir), Shelf(two.scorers_dir)
    for number in (1, 2):
        assert mine.put(name, f"scorer {number}".encode(), "labels") == number
    mine.use(name, 1)
    one.trials_file.write_text('{"canaries": []}')
    for _ in range(5):
        theirs.put(name, b"other", "labels")
    theirs.use(name, 5)
    backup(one, one.config_file, file)
    assert len([name for name in names(file) if name.startswith("scorers/")]) == 5
    _, replaced = restore(two, two.config_file, file)
    assert theirs.current(name) == (1, b"scorer 1")
    assert [version.number for version in theirs.versions(name)] == [1, 2]
    assert two.trials_file.read_text() == '{"canaries": []}'
    aside = two.scorers_dir.with_name("scorers.before-restore")
    assert aside in replaced and Shelf(aside).current(name) == (5, b"other")
    assert all(path.stat().st_mode & 0o077 == 0 for path in two.scorers_dir.rglob("*"))
    # Once more: what was put aside before makes room.
    restore(two, two.config_file, file)
    assert Shelf(aside).current(name) == (1, b"scorer 1")


@pytest.mark.parametrize("wrong", ["scorers/route-a/../../evil", "scorers/x/000001.json", "scorers/route-a/000001.sh"])
def test_nothing_else_comes_in_by_that_way(tmp_path: Path, wrong: str) -> None:
    paths, file = place(tmp_path / "one"), tmp_path / "b.tar.gz"
    Shelf(paths.scorers_dir).put("a", b"x", "")
    backup(paths, paths.config_file, file)
    other = tampered(file, lambda name, body: (wrong if name.endswith(".scorer") else name, body))
    with pytest.raises(ConfigError, match="something else in it"):
        restore(paths, paths.config_file, other)


@pytest.mark.parametrize("old", range(1, len(STEPS) + 1))
def test_a_ledger_of_every_version_there_was_is_restored_and_brought_up_to_date(tmp_path: Path, old: int) -> None:
    paths, file = place(tmp_path / "one"), tmp_path / "b.tar.gz"
    connection = sqlite3.connect(paths.ledger_file, isolation_level=None)
    migrate(connection, STEPS[:old])
    for i in range(5):
        opening.write(connection, rows=[attempt(f"r{i}", cost=i)])
    opening.write(connection, [hold("open", known=7)])
    connection.close()
    assert backup(paths, paths.config_file, file).schema == old
    assert rows(paths.ledger_file, "PRAGMA user_version") == [(old,)], "a copy is made, not a change"
    restore(paths, paths.config_file, file)
    assert rows(paths.ledger_file, "PRAGMA user_version") == [(len(STEPS),)]
    assert rows(paths.ledger_file, "SELECT count(*), sum(cost) FROM attempts") == [(5, 10)]
    asyncio.run(booked(paths.ledger_file, 0))
    # What was under way when the copy was made is charged what was known of it.
    assert rows(paths.ledger_file, "SELECT request, cost FROM attempts WHERE outcome = 'lost'") == [("open", 7)]
    consistent(paths.ledger_file)


def test_what_is_only_in_the_journal_yet_is_in_the_copy_and_nothing_is_charged_twice(tmp_path: Path) -> None:
    paths, file = place(tmp_path / "one"), tmp_path / "b.tar.gz"
    asyncio.run(booked(paths.ledger_file, 2))
    journal = Journal(paths.ledger_file)
    journal.add(Record(hold=hold("a", known=50)))
    journal.add(Record(rows=[attempt("a", cost=30)], drop="a"))
    journal.add(Record(hold=hold("b", known=60)))
    journal.add(Record(hold=hold("r1", known=9)))
    backup(paths, paths.config_file, file)
    journal.close()
    restore(paths, paths.config_file, file)
    assert rows(paths.ledger_file, "SELECT request, cost FROM attempts ORDER BY 1") == [("a", 30), ("r0", 0), ("r1", 1)]
    assert rows(paths.ledger_file, "SELECT request FROM holds") == [("b",)]
    assert copying.belongings(paths.ledger_file) == [], "a journal of before would be taken over"


@pytest.mark.anyio
async def test_a_copy_made_while_it_is_written_is_one_moment(tmp_path: Path) -> None:
    paths = place(tmp_path / "one")
    async with opened(paths.ledger_file) as (ledger, _):
        copies = []
        for i in range(200):
            ledger.settle([attempt(f"r{i}", 1, cost=1), attempt(f"r{i}", 2, cost=2)], None)
            if i % 50 == 20:
                copies.append((i, tmp_path / f"c{i}.db"))
                await asyncio.to_thread(copying.copy, paths.ledger_file, copies[-1][1])
    for i, path in copies:
        consistent(path)
        ((count, whole),) = rows(path, "SELECT count(*), count(DISTINCT request) FROM attempts")
        assert count == 2 * whole and whole >= i + 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_it_is_refused_while_a_gateway_runs(tmp_path: Path) -> None:
    paths, file = place(tmp_path / "one"), tmp_path / "b.tar.gz"
    backup(paths, paths.config_file, file)
    with (paths.run_dir / "gateway.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="lumen down"):
            restore(paths, paths.config_file, file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda name, body: (name, body + b" ") if name == "config.yaml" else (name, body), "config.yaml is not what"),
        (lambda name, body: (name, body) if name != "keys.json" else None, "keys.json is not what"),
        (lambda name, body: ("../evil" if name == "keys.json" else name, body), "something else in it"),
        (lambda name, body: (name, body) if name != "manifest.json" else None, "no backup of Lumen's"),
        (lambda name, body: (name, body.replace(b'"format": 1', b'"format": 2')), "newer Lumen"),
    ],
)
def test_a_backup_that_was_changed_is_refused_and_nothing_is_touched(
    tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], told: str
) -> None:
    paths, file = place(tmp_path / "one"), tmp_path / "b.tar.gz"
    asyncio.run(booked(paths.ledger_file, 2))
    backup(paths, paths.config_file, file)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = tampered(file, change)
    with pytest.raises(ConfigError, match=told):
        restore(paths, paths.config_file, other)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("*.before-restore"))


def test_what_cannot_be_used_is_refused_whole(tmp_path: Path) -> None:
    paths, file = place(tmp_path / "one"), tmp_path / "b.tar.gz"
    asyncio.run(booked(paths.ledger_file, 1))
    connection = sqlite3.connect(paths.ledger_file)
    connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    for one in copying.belongings(paths.ledger_file):
        one.unlink()
    backup(paths, paths.config_file, file)
    with pytest.raises(ConfigError, match="newer Lumen"):
        restore(paths, paths.config_file, file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ConfigError, match="damaged"):
        restore(paths, paths.config_file, file)
    with pytest.raises(ConfigError, match="no such file"):
        restore(paths, paths.config_file, tmp_path / "nowhere")
    paths.config_file.write_text("nonsense: 1\n")
    connection = sqlite3.connect(paths.ledger_file)
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    connection.close()
    backup(paths, paths.config_file, file)
    with pytest.raises(ConfigError, match="nonsense"):
        restore(paths, paths.config_file, file)
    assert not list(tmp_path.rglob("*.before-restore"))
    assert json.loads((paths.state_dir / "targets.json").read_text()) == {"a": 1}
    assert json.loads(paths.probed_file.read_text()) == {"b": 2}

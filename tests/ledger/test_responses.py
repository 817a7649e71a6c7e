"""Answers that later requests go on from: whose they are, how long, how many, and that kill -9 leaves them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumen.ledger import responses
from lumen.ledger.responses import Kept, Responses, ResponsesError

DAY = 86_400_000_000
NOW = 20_000 * DAY


def kept(name: str, previous: str = "", *, key: str = "k", at: int = NOW, days: int = 30, size: int = 2) -> Kept:
    return Kept(name, key, "fast", at, at + days * DAY, previous, b"i" * size, name.encode())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Responses]:
    made = Responses(tmp_path / "ledger.db")
    yield made
    made.close()


def test_a_conversation_is_a_chain_of_its_own_key(store: Responses) -> None:
    for one in (kept("a"), kept("b", "a"), kept("c", "b"), kept("d", "a")):
        store.put(one, 10**9)
    assert store.conversation("c", "k", NOW) == [(b"ii", b"a"), (b"ii", b"b"), (b"ii", b"c")]
    assert store.conversation("d", "k", NOW) == [(b"ii", b"a"), (b"ii", b"d")]
    assert store.answer("c", "k", NOW) == b"c"
    for nobody in (store.conversation("c", "other", NOW), store.answer("c", "other", NOW), store.answer("x", "k", NOW)):
        assert nobody is None
    assert not store.drop("b", "other", NOW)
    assert store.drop("b", "k", NOW)
    assert not store.drop("b", "k", NOW)
    assert store.conversation("c", "k", NOW) is None
    assert store.answer("c", "k", NOW) == b"c"


def test_what_is_over_is_not_told_and_goes(store: Responses, tmp_path: Path) -> None:
    store.put(kept("a", days=1), 10**9)
    store.put(kept("b", "a", days=3), 10**9)
    later = NOW + 2 * DAY
    assert store.answer("a", "k", later) is None
    assert store.conversation("b", "k", later) is None
    connection = sqlite3.connect(tmp_path / "ledger.db")
    with connection:
        responses.prune(connection, later)
    assert connection.execute("SELECT id FROM responses").fetchall() == [("b",)]
    connection.close()


def test_the_oldest_go_beyond_the_bytes(store: Responses, tmp_path: Path) -> None:
    for i in range(100):
        store.put(kept(f"r{i:03}", at=NOW + i, size=1000), 20 * 1004)
    connection = sqlite3.connect(tmp_path / "ledger.db")
    names = [name for (name,) in connection.execute("SELECT id FROM responses ORDER BY at")]
    connection.close()
    assert names == [f"r{i:03}" for i in range(100 - len(names), 100)]
    assert len(names) <= 20 + responses._PRUNE_EVERY


def test_a_conversation_is_bounded(store: Responses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MOST_TURNS", 2)
    for name, previous in (("a", ""), ("b", "a"), ("c", "b")):
        store.put(kept(name, previous), 10**9)
    assert len(store.conversation("b", "k", NOW) or ()) == 2
    with pytest.raises(ResponsesError, match="too long") as caught:
        store.conversation("c", "k", NOW)
    assert caught.value.status == 400


def test_kill_leaves_what_was_put(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    script = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom lumen.ledger.responses import Kept, Responses\n"
        f"Responses(Path(sys.argv[1])).put(Kept('a', 'k', 'r', {NOW}, {NOW + DAY}, '', b'[]', b'kept'), 10**9)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=os.environ, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL
    again = Responses(path)
    assert again.answer("a", "k", NOW) == b"kept"
    again.close()


def test_trouble_is_told_without_a_path(tmp_path: Path) -> None:
    store = Responses(tmp_path / "nowhere" / "ledger.db")
    with pytest.raises(ResponsesError) as caught:
        store.put(kept("a"), 1)
    assert str(tmp_path) not in caught.value.message

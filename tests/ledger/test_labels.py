from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lumen.ledger import labels as module
from lumen.ledger.labels import Anchor, Label, Labels, LabelsError, PairRow, Served
from lumen.ledger.schema import migrate
from tests.ledger.ledgers import NOON

DAY = 86_400_000_000


def label(number: int = 1, **more: object) -> Label:
    given: dict[str, object] = {"request": f"req_{number}", "source": "judge", "route": "chat", "at": NOON + number}
    return Label(**{**given, "ok": {"a": 1.0, "b": 0.0}, **more})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Labels:
    return Labels(tmp_path / "ledger.db")


def test_what_goes_in_comes_out(store: Labels) -> None:
    given = label(
        tokens={"a": 12.0}, key="k1", propensity=0.25, form="text", ask=b"{}", versions="judge x", comment="no"
    )
    store.add(given)
    assert store.of("chat", 10) == [given]
    assert store.of("other", 10) == []
    assert store.counts("chat") == {"judge": 1}


def test_the_newest_come_oldest_first_and_by_source(store: Labels) -> None:
    for number in range(5):
        store.add(label(number, source="feedback" if number == 3 else "judge"))
    assert [one.request for one in store.of("chat", 3)] == ["req_2", "req_3", "req_4"]
    assert [one.request for one in store.of("chat", 9, ("feedback",))] == ["req_3"]


def test_a_second_word_on_a_request_takes_the_place_of_the_first(store: Labels) -> None:
    store.add(label())
    store.add(label(ok={"a": 0.0}))
    store.add(label(source="feedback"))
    assert [(one.source, one.ok["a"]) for one in store.of("chat", 9)] == [("judge", 0.0), ("feedback", 1.0)]


def test_labels_are_bounded_by_number_and_by_age(store: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABELS", 10)
    monkeypatch.setattr(module, "_PRUNE_EVERY", 2)
    store.add(label(0, at=NOON - 181 * DAY))
    store.add(label(1, route="other"))
    for number in range(2, 33):
        store.add(label(number))
    assert [one.request for one in store.of("chat", 99)] == [f"req_{n}" for n in range(23, 33)]
    assert len(store.of("other", 99)) == 1


def test_a_chance_that_is_none_is_refused(store: Labels) -> None:
    with pytest.raises(LabelsError):
        store.add(label(propensity=0.0))
    store.add(label())
    assert len(store.of("chat", 9)) == 1


def test_pairs_of_a_run(store: Labels) -> None:
    rows = [PairRow(f"req_{n}", "run1", NOON, b"{}", b"text" if n % 2 else None) for n in range(4)]
    for row in (*rows, PairRow("req_9", "run2", NOON, b"{}")):
        store.pair(row)
    assert store.pairs("run1", 3) == rows[1:]


def test_anchors_add_up_are_replaced_and_bounded(store: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Anchor("p", "a", "b", "first"), Anchor("q", "a", "b", "tie")
    assert store.anchor("chat", [one], NOON) == 1
    assert store.anchor("chat", [one, two], NOON) == 2
    assert store.anchor("chat", [two], NOON, replace=True) == 1
    assert store.anchors("chat") == [two]
    monkeypatch.setattr(module, "MOST_ANCHORS", 1)
    with pytest.raises(LabelsError, match="at most 1"):
        store.anchor("chat", [one], NOON)
    assert store.anchors("chat") == [two]


def test_it_says_who_asked_for_a_request(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    other = sqlite3.connect(path, isolation_level=None)
    migrate(other)
    for seq, target in ((1, "p/a"), (2, "p/b")):
        other.execute(
            "INSERT INTO attempts (request, seq, key, route, target, provider, model, operation, booked, began_us,"
            " ended_us, cost, flags, outcome)"
            " VALUES ('req_1', ?, 'k1', 'chat', ?, 'p', 'm', 'chat', 1, 0, 0, 0, 0, '')",
            (seq, target),
        )
    other.close()
    store = Labels(path)
    assert store.served("req_1") == Served("k1", "chat", "p/b")
    assert store.served("req_2") is None
    store.close()


def test_threads_may_share_it(store: Labels) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.add(label(number)), range(64)))
    assert len(store.of("chat", 99)) == 64


def test_trouble_is_told_and_gets_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = Labels(path, busy=0.01)
    store.add(label(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LabelsError, match="locked"):
        store.add(label(2))
    other.execute("COMMIT")
    other.close()
    store.add(label(3))
    assert [one.request for one in store.of("chat", 9)] == ["req_1", "req_3"]
    store.close()

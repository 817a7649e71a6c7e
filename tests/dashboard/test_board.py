from __future__ import annotations

import pytest
from lumen_cli.dashboard import rows
from lumen_cli.dashboard.board import KEPT, POINTS, Board

from tests.dashboard.frames import DEGRADED, EMPTY, OK, ended, frame


def board(*frames: dict[str, object]) -> Board:
    made = Board()
    for one in frames:
        made.take(one)
    return made


def test_totals_are_over_all_routes_and_the_slowest_tail_is_shown() -> None:
    totals = board(OK).totals
    assert totals.rps == pytest.approx(12.0)
    assert totals.p95 == 200.0
    assert totals.spent == pytest.approx(1.25)
    assert (totals.in_flight, board(EMPTY).totals.p95) == (1, None)


def test_what_is_wrong_is_said() -> None:
    assert board(OK).alarms() == []
    assert board(DEGRADED).alarms() == ["out: groq/fast", "20% of the requests fail"]
    lost = board(OK)
    lost.lose("no gateway is running")
    assert lost.alarms()[0] == "no gateway is running"
    assert lost.matching("code")
    trouble = frame(money={"today": 0, "ledger": {"why": "the disk is full"}, "budgets": []}, draining=True)
    assert board(trouble).alarms()[0].endswith("the disk is full")
    assert board(trouble).alarms()[-1] == "the gateway is shutting down"


def test_memory_is_bounded() -> None:
    made = Board()
    for i in range(1, 2 * KEPT):
        made.take(frame(number=i, ended=[ended(i)]))
    assert len(made.requests) == KEPT
    assert len(made.plots["chat"]) == POINTS
    made.take(EMPTY | {"number": 2 * KEPT})
    assert made.plots == {}


def test_another_process_begins_anew() -> None:
    made = board(frame(number=9, ended=[ended(9)]), frame(number=1, ended=[ended(1)]))
    assert [one["n"] for one in made.requests] == [1]


def test_requests_are_found_by_any_of_their_words() -> None:
    made = board(OK)
    assert next(one["id"] for one in made.matching("")) == "req_active"
    assert [one["route"] for one in made.matching("code groq")] == ["code"]
    assert made.matching("nothing like it") == []


def test_rows() -> None:
    assert rows.requests(board(OK).matching("code"))[0][1][:4] == ("code", "groq/fast", "ok ⤳prefill", "12+34")
    assert rows.failovers(OK["failovers"])[0][1][1:6] == ("groq/fast", "openai/best", "prefill", "120", "48 ms")
    assert rows.replicas(DEGRADED["models"])[0][1][2:4] == ("starting", "loading 40 %")
    assert rows.replicas([{"name": "m", "missing": "not on this disk", "replicas": []}])[0][1][2:4] == (
        "off",
        "not on this disk",
    )
    assert [key for key, _ in rows.routes(OK["routes"])] == ["chat", "code"]
    assert rows.ms(None) == "-" and rows.ms(1.25) == "1.2 ms" and rows.ms(20_000) == "20 s"

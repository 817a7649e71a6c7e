from __future__ import annotations

from typing import Any

import pytest
from lumen_cli.dashboard.alarms import slowness
from lumen_cli.dashboard.board import KEPT, POINTS, Board

from tests.dashboard.frames import AT, DEGRADED, EMPTY, OK, budget, canary, ended, frame, model, replica, target


def board(*frames: dict[str, Any]) -> Board:
    made = Board()
    for one in frames:
        made.take(one)
    return made


def wrong(**more: Any) -> list[tuple[str, str]]:
    return [tuple(alarm) for alarm in board(frame(**more)).alarms()]


def test_totals_are_over_all_routes_and_the_slowest_tail_is_shown() -> None:
    totals = board(OK).totals
    assert totals.rps == pytest.approx(12.0)
    assert totals.p95 == 200.0
    assert (totals.spent, totals.budget) == (1_250_000, 50_000_000)
    assert (totals.in_flight, board(EMPTY).totals.p95, board(EMPTY).totals.budget) == (1, None, None)


def test_nothing_is_wrong_where_all_is_well() -> None:
    assert board(OK).alarms() == []
    assert board(EMPTY).alarms() == []


def test_what_is_bad_is_said_before_what_is_to_be_watched() -> None:
    assert [(alarm.level, alarm.text) for alarm in board(DEGRADED).alarms()] == [
        ("bad", "the day budget of route chat is used up ($20.00)"),
        ("bad", "lumen-tiny #0 restarted 3 times and is not ready"),
        ("bad", "big #0 crashed: it ran out of memory"),
        ("bad", "away: not on this disk: lumen pull away"),
        ("bad", "out: groq/fast (5 failures in a row: upstream_timeout)"),
        ("bad", "17% of the requests fail"),
        ("warn", "96% of the day budget of box is spent"),
        ("warn", "on trial again: openai/new"),
        ("warn", "drained: groq/cheap"),
        ("warn", "openai/best is 10.5× slower than it was"),
        ("warn", "the canary on chat was rolled back"),
    ]


def test_a_lost_connection_is_the_first_thing_said_and_what_was_known_stays() -> None:
    made = board(OK)
    made.lose("no connection: no gateway is running")
    assert made.alarms()[0] == ("bad", "no connection: no gateway is running")
    assert made.matching("code")
    made.take(OK)
    assert made.alarms() == []


def test_trouble_of_the_ledger_a_shutdown_and_an_approval_that_is_waited_for() -> None:
    money = {"today": 0, "ledger": {"why": "the disk is full"}, "budgets": []}
    assert wrong(money=money, draining=True) == [
        ("bad", "the ledger is in trouble, paid requests are refused: the disk is full"),
        ("warn", "the gateway is shutting down"),
    ]
    assert wrong(trials={"canaries": [canary(phase="waiting")]}) == [
        ("warn", "the canary on chat waits for your approval")
    ]


def test_a_crash_is_bad_where_no_other_replica_answers() -> None:
    crashed = replica("crashed", index=1, why="killed by signal 9")
    assert wrong(models=[model(True, "resident", replica(), crashed)]) == [
        ("warn", "lumen-tiny #1 crashed: killed by signal 9")
    ]


def test_what_is_held_counts_as_spent() -> None:
    held = budget("key", "k1", 1_000_000, 500_000) | {"held": 450_000}
    assert wrong(money={"today": 0, "budgets": [held]}) == [("warn", "95% of the day budget of key k1 is spent")]


def test_a_target_is_slow_against_its_own_history_and_only_where_anybody_notices() -> None:
    assert slowness(target("a", usual_first_token_ms=100.0)) == 2.5
    assert slowness(target("a", usual_first_token_ms=None)) is None
    assert slowness(target("a", first_token_ms=None)) is None
    assert wrong(targets=[target("a", usual_first_token_ms=150.0)]) == []
    assert wrong(targets=[target("a", usual_first_token_ms=220.0)]) == [("warn", "a is 5.5× slower than it was")]


def test_memory_is_bounded() -> None:
    made = Board()
    for i in range(1, 2 * KEPT):
        made.take(frame(at=AT + i, number=i, ended=[ended(i)]))
    assert len(made.requests) == KEPT
    assert len(made.plots["chat"]) == POINTS
    made.take(EMPTY | {"number": 2 * KEPT})
    assert made.plots == {}


def test_a_plot_has_one_point_a_second() -> None:
    made = board(*(frame(at=AT + quarter / 4) for quarter in range(12)))
    assert list(made.plots["chat"]) == [(40.0, 80.0, 120.0)] * 3


def test_another_process_begins_anew() -> None:
    made = board(frame(number=9, ended=[ended(9)]), frame(number=1, ended=[ended(1)]))
    assert [one["n"] for one in made.requests] == [1]


def test_requests_are_found_by_any_of_their_words() -> None:
    made = board(OK)
    assert next(one["id"] for one in made.matching("")) == "req_active"
    assert [one["route"] for one in made.matching("code groq")] == ["code"]
    assert made.matching("nothing like it") == []
    assert len(made.matching("", 2)) == 2


def test_the_busiest_routes_come_first() -> None:
    assert board(OK).busiest(5) == ["chat", "code"]
    assert board(OK).busiest(1) == ["chat"]

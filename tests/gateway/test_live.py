from __future__ import annotations

import pytest

from lumen.core.trace import Trace
from lumen.gateway.attempt import Journey, Record
from lumen.gateway.live import KEPT, WINDOW, Active, Live, quantiles
from lumen.gateway.settled import Settled
from lumen.wire.answers import Usage


def settled(number: int, *, ended: float = 100.0, route: str = "r", outcome: str = "ok", ttft: float = 0.05) -> Settled:
    started = ended - 1.0
    broken = Record("a", "first", started, ended=started + 0.01, outcome="upstream_disconnected")
    last = Record("b", "fallback", started + 0.01, rung="prefill", position=4, first_token=started + ttft, ended=ended)
    last.queued, last.sent, last.answered = 0.005, started + 0.02, started + 0.03
    last.outcome, last.usage = outcome, Usage(10, 20, 30)
    return Settled(f"req_{number}", "chat", route, None, 1e9, started, ended, outcome, True, [broken, last], 7)


def test_only_what_is_new_is_told_and_what_is_left_out_is_counted() -> None:
    live = Live()
    for i in range(10):
        live.take([settled(i)])
    left_out, rows = live.since(0, 4)
    assert (left_out, [row["id"] for row in rows]) == (6, ["req_6", "req_7", "req_8", "req_9"])
    number = rows[-1]["n"]
    assert live.since(number, 4) == (0, [])
    live.take([settled(10)])
    assert [row["id"] for row in live.since(number, 4)[1]] == ["req_10"]


def test_memory_is_bounded() -> None:
    live = Live()
    for i in range(3 * KEPT):
        live.take([settled(i, route=f"route{i}")])
    assert live.find("req_0") is None
    assert live.find(f"req_{3 * KEPT - 1}") is not None
    assert len(live.routes(100.0)) <= 201


def test_figures_look_back_one_window() -> None:
    live = Live()
    for i in range(60):
        live.take([settled(i, ended=40.0 + i, ttft=0.001 * (i + 1), outcome="ok" if i % 2 else "upstream_timeout")])
    figures = live.routes(100.0)["r"]
    assert figures["rps"] == pytest.approx(60 / WINDOW)
    assert figures["tps"] == pytest.approx(60 * 20 / WINDOW)
    assert figures["errors"] == pytest.approx(0.5)
    assert figures["ttft_ms"]["p50"] == pytest.approx(31)
    assert (figures["requests"], figures["failed"], figures["cost"]) == (60, 30, 420)
    later = live.routes(100.0 + WINDOW)["r"]
    assert (later["rps"], later["ttft_ms"]["p50"], later["requests"]) == (0.0, None, 60)


def test_figures_of_many_requests_are_made_once_a_second_those_of_few_at_once() -> None:
    live = Live()
    for i in range(10):
        live.take([settled(i, route="quiet")])
        assert live.routes(100.0)["quiet"]["requests"] == i + 1
    for i in range(300):
        live.take([settled(i, route="busy")])
    assert live.routes(100.0)["busy"]["requests"] == 300
    live.take([settled(300, route="busy")])
    assert live.routes(100.5)["busy"]["requests"] == 300
    assert live.routes(101.0)["busy"]["requests"] == 301


def test_a_request_can_be_looked_up_with_all_its_tries() -> None:
    live = Live()
    live.take([settled(1)])
    found = live.find("req_1")
    assert found is not None
    assert [(t["target"], t["outcome"], t["rung"], t["ended_ms"]) for t in found["tries"]] == [
        ("a", "upstream_disconnected", None, 10.0),
        ("b", "ok", "prefill", 1000.0),
    ]
    assert found["parts_ms"] == {"gateway": 15.0, "wake": 0.0, "queue": 15.0, "prefill": 20.0}
    assert live.find("req_2") is None


def test_a_request_under_way_tells_its_tries_so_far() -> None:
    tried = [
        Record("a", "first", 10.0, ended=10.1, outcome="upstream_disconnected"),
        Record("b", "fallback", 10.1, sent=10.2, answered=10.3, first_token=10.5),
    ]
    active = Active("req_1", "chat", "r", None, True, 10.0, Journey(Trace(1), tried), None)
    told = active.told(11.0)
    assert (told["age_ms"], told["target"], told["attempts"]) == (1000, "b", 2)
    assert [(t["outcome"], t["ended_ms"]) for t in told["tries"]] == [("upstream_disconnected", 100.0), (None, None)]
    assert told["parts_ms"]["prefill"] == 200.0


def test_quantiles_are_values_that_were_seen() -> None:
    assert quantiles([3, 1, 2], [0.0, 0.5, 1.0]) == [1, 2, 3]
    assert quantiles([], [0.5]) == [None]

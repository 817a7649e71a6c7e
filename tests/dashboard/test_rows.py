from __future__ import annotations

from typing import Any

from lumen_cli.dashboard import columns, rows, telling, words
from lumen_cli.dashboard.board import Board
from lumen_cli.dashboard.status import tiles

from tests.dashboard.frames import (
    AT,
    DEGRADED,
    MEMORY,
    OK,
    TRACE,
    canary,
    device,
    ended,
    model,
    replica,
    shadow,
    target,
)


def found(told: list[rows.Row], heads: Any) -> list[dict[str, str]]:
    return [dict(zip((head.name for head in heads), cells, strict=True)) for _, cells in told]


def tone(cell: str) -> str:
    return getattr(cell, "tone", "")


def test_requests_tell_how_they_ended_what_they_cost_and_where_their_time_went() -> None:
    ok, failed = found(
        rows.requests([ended(1, splices=["prefill"]), ended(2, outcome="upstream_timeout", prompt_tokens=None)]),
        columns.REQUESTS,
    )
    assert (ok["outcome"], ok["tokens"], ok["cost"]) == ("ok ⤳prefill", "12+34", "$0.000005")
    assert ok["first token's parts"] == "queue 12 + prefill 29"
    assert (tone(ok["outcome"]), tone(failed["outcome"]), failed["tokens"]) == ("good", "bad", "-")
    (active,) = found(rows.requests([{**OK["active"][0], "outcome": "…", "ms": 90}]), columns.REQUESTS)
    assert (active["tokens"], active["cost"], active["first"]) == ("7 so far", "-", "-")


def test_requests_tell_how_good_the_chosen_target_was_held_to_be_and_what_was_wanted() -> None:
    told = [
        ended(1),
        ended(2, score=0.7),
        ended(3, score=0.98234, bar=0.97),
        OK["active"][0] | {"outcome": "…", "ms": 9},
    ]
    assert [one["score/bar"] for one in found(rows.requests(told), columns.REQUESTS)] == [
        "-",
        "70.0%",
        "98.2%/97.0%",
        "-",
    ]
    tries = [{**TRACE["tries"][0], "score": 0.98, "bar": 0.97}, *TRACE["tries"][1:]]
    lines = [line for line in telling.request({**TRACE, "tries": tries}) if "score" in line]
    assert len(lines) == 1 and ", score 98.0%/97.0%)" in lines[0]


def test_failovers_tell_from_where_to_where_and_what_the_client_saw() -> None:
    (one,) = found(rows.failovers(OK["failovers"]), columns.FAILOVERS)
    assert (one["from"], one["to"], one["rung"], one["at"]) == ("groq/fast", "openai/best", "prefill", "120")
    assert (one["when"], one["seam"], one["client saw"]) == ("14:13:20", "48 ms", "one answer, continued")


def test_targets_tell_state_age_and_speed_against_their_history() -> None:
    out, slow, trial, _ = found(rows.targets(DEGRADED["targets"], AT), columns.TARGETS)
    assert (out["state"], tone(out["state"]), out["for"], tone(out["errors"])) == ("open", "bad", "12s", "bad")
    assert (slow["first now"], tone(slow["first now"]), slow["usual p50/p95"]) == ("420 ms ▲10×", "bad", "40/80 ms")
    assert (tone(trial["state"]), trial["first now"], trial["load"]) == ("warn", "40 ms", "2, 50%")
    assert found(rows.targets([target("new", first_token_ms=None)], AT), columns.TARGETS)[0]["usual p50/p95"] == "-"


def test_engines_tell_the_phase_of_a_start_with_its_progress() -> None:
    starting, crashed, away = found(rows.replicas(DEGRADED["models"], AT), columns.REPLICAS)
    assert (starting["state"], starting["doing"]) == ("starting", "loading ████░░░░░░ 40 %")
    assert (tone(starting["restarts"]), tone(crashed["doing"])) == ("bad", "bad")
    assert (away["state"], away["doing"]) == ("off", "not on this disk: lumen pull away")
    waking = model(False, "waking", replica("waking", phase="warmup"))
    assert found(rows.replicas([waking], AT), columns.REPLICAS)[0]["doing"] == "warmup"


def test_models_tell_who_is_resident_asleep_or_off() -> None:
    two = model(True, "resident", replica(), replica(index=1))
    first, asleep, off = found(
        rows.models([two, model(True, "asleep", replica("asleep")), model(False, "off", name="o")]), columns.MODELS
    )
    assert (first["state"], first["memory"], first["flight"]) == ("resident ×2", "ram 500.0 MiB", "2")
    assert (asleep["state"], asleep["wakes in"], tone(asleep["state"])) == ("asleep", "0.4 s", "idle")
    assert (off["state"], off["wakes in"], off["doing"]) == ("off", "2.5 s", "-")


def test_devices_are_bars_and_only_the_machine_s_own_memory_is_cause_for_alarm() -> None:
    card, memory = found(rows.devices([device(used=24 * 2**30), MEMORY | {"used": 63 * 2**30}]), columns.DEVICES)
    assert (card["memory"], tone(card["memory"]), card["busy"]) == ("██████████ 100%", "", "██████▎░░░  62 %")
    assert (tone(memory["memory"]), memory["busy"], memory["temperature"]) == ("bad", "-", "-")


def test_trials_tell_their_state() -> None:
    told = rows.trials({"canaries": [canary(why="the budget is used up")], "shadows": [shadow()]}, AT + 60)
    one, dark = found(told, columns.TRIALS)
    assert [key for key, _ in told] == ["canary chat", "shadow code"]
    assert one["state"] == "running, step 2 of 5 (the budget is used up)"
    assert (dark["state"], dark["seen"], dark["for"]) == ("running", "40 of 55 pairs, $0.002000 of $1.000000", "1m")


def test_budgets_are_bars_that_redden() -> None:
    box, route = found(rows.budgets(DEGRADED["money"]), columns.BUDGETS)
    assert (box["budget of"], box["per"], box["spent"]) == ("box", "day", "█████████▋  96% $48.00")
    assert (tone(box["spent"]), tone(route["spent"]), route["of"]) == ("warn", "bad", "$20.00")


def test_tiles_tell_the_budget_where_there_is_one() -> None:
    board = Board()
    board.take(DEGRADED)
    told = dict(tiles(board.totals))
    assert (told["today"], tone(told["today"]), tone(told["errors"])) == ("$48.00 of $50.00", "warn", "bad")
    assert dict(tiles(Board().totals))["first token ms"] == "-"


def test_a_trace_shows_parts_tries_and_seams() -> None:
    told = telling.request(TRACE, OK["failovers"])
    text = "\n".join(told)
    assert told[0] == "req_000000000000000000000002"
    assert (
        "queue    " in text and "12 ms" in text and "2. openai/best: ok (continues groq/fast, prefill at 120)" in text
    )
    assert "groq/fast → openai/best (upstream_disconnected): prefill at 120, seam 48 ms" in text
    assert "the client saw: one answer, continued" in told
    bars = [line.strip() for line in told if "█" in line][-2:]
    assert len(bars[0]) + 1 >= bars[1].count("·") >= len(bars[0]) - 1, "the second try begins where the first ended"


def test_a_trace_of_a_request_under_way() -> None:
    one = {**TRACE["tries"][0], "ended_ms": None, "outcome": None}
    text = "\n".join(telling.request({**OK["active"][0], "parts_ms": {}, "tries": [one]}))
    assert "under way after 90 ms" in text and "1. groq/fast: under way" in text


def test_a_target_is_told_in_full() -> None:
    text = "\n".join(telling.target(DEGRADED["targets"][0], AT))
    assert "open for 12 s, tried again in 18 s" in text and "upstream_timeout" in text
    assert "longest gap" in text and "60% errors" in text


def test_words() -> None:
    assert [words.ms(value) for value in (None, 1.25, 41.5, 4_800, 120_000)] == [
        "-", "1.2 ms", "42 ms", "4.8 s", "2 min",
    ]  # fmt: skip
    assert [words.short_ms(value) for value in (None, 41.5, 20_000)] == ["-", "42", "20 s"]
    assert [words.dollars(value) for value in (0, 12_300, 1_250_000, 2_000_000_000)] == [
        "$0.00", "$0.0123", "$1.25", "$2,000.00",
    ]  # fmt: skip
    assert [words.age(value) for value in (45, 200, 7_500, 360_000)] == ["45s", "3m", "2h05", "4d04"]
    assert [words.bar(share, 4) for share in (-1.0, 0.0, 0.5, 0.53, 2.0)] == ["░░░░", "░░░░", "██░░", "██▏░", "████"]

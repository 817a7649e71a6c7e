from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lumen.config.schema import Config
from lumen.gateway.attempt import Record
from lumen.gateway.metrics import MOST_SERIES, Collector, Gauges, Metrics, Snapshot, exposition
from lumen.gateway.overview import Served, gauges
from lumen.gateway.settled import Settled
from lumen.wire.answers import CompletionDetails, PromptDetails, Usage
from lumen.workers.supervisor import Standing


def settled(route: str = "r", target: str = "t", outcome: str = "ok", rung: str | None = None) -> Settled:
    usage = Usage(100, 11, 111, PromptDetails(60), CompletionDetails(None, 4)) if outcome == "ok" else None
    first = 10.05 if outcome == "ok" else None
    last = Record(target, "only", 10.0, rung=rung, first_token=first, outcome=outcome, usage=usage)
    before = [Record("dead", "first", 10.0, outcome="upstream_timeout")] if rung else []
    attempts = [*before, last]
    return Settled("req_1", "chat/completions", route, "k", 1e9, 10.0, 11.05, outcome, True, attempts, 2_500_000)


def samples(*collectors: Collector) -> dict[tuple[str, tuple[str, ...]], float]:
    text = exposition(Snapshot(*collectors)).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_tokens_times_and_money_are_counted() -> None:
    metrics = Metrics()
    for outcome in ("ok", "ok", "upstream_timeout"):
        metrics.take([settled(outcome=outcome)])
    found = samples(metrics)
    # As the conventions for generative AI have them: operation, provider, model asked for, model that answered.
    labels = ("chat", "lumen", "r", "t")
    assert found["lumen_requests_total", (*labels, "ok")] == 2
    assert found["lumen_requests_total", (*labels, "upstream_timeout")] == 1
    assert found["gen_ai_server_request_duration_seconds_count", ("", *labels)] == 2
    assert found["gen_ai_server_request_duration_seconds_count", ("upstream_timeout", *labels)] == 1
    assert found["gen_ai_server_time_to_first_token_seconds_bucket", (*labels, "0.06")] == 2
    assert found["gen_ai_server_time_to_first_token_seconds_bucket", (*labels, "0.04")] == 0
    assert found["gen_ai_server_time_per_output_token_seconds_sum", labels] == pytest.approx(0.2)
    assert found["gen_ai_client_token_usage_sum", (*labels, "input")] == 200
    assert found["gen_ai_client_token_usage_sum", (*labels, "output")] == 22
    assert found["lumen_cached_tokens_total", labels] == 120
    assert found["lumen_guessed_tokens_total", labels] == 8
    assert found["lumen_cost_dollars_total", labels] == pytest.approx(7.5e-6)


def test_every_try_and_every_seam_counts() -> None:
    metrics = Metrics()
    metrics.take([settled(rung="prefill")])
    found = samples(metrics)
    assert found["lumen_attempts_total", ("upstream_timeout", "dead")] == 1
    assert found["lumen_attempts_total", ("ok", "t")] == 1
    assert found["lumen_splices_total", ("prefill",)] == 1


def test_the_number_of_series_is_bounded() -> None:
    metrics = Metrics()
    for i in range(3 * MOST_SERIES):
        metrics.take([settled(route=f"r{i}", target=f"t{i}")])
    found = samples(metrics)
    requests = {labels: value for (name, labels), value in found.items() if name == "lumen_requests_total"}
    assert sum(requests.values()) == 3 * MOST_SERIES
    assert len(requests) == MOST_SERIES + 1
    assert requests["chat", "other", "other", "other", "ok"] == 2 * MOST_SERIES


def test_a_target_is_its_provider_and_its_model_and_who_left_made_no_error() -> None:
    metrics = Metrics()
    metrics.take([settled(target="openrouter/meta/llama", outcome="cancelled")])
    labels = ("chat", "openrouter", "r", "meta/llama")
    found = samples(metrics)
    assert found["lumen_requests_total", (*labels, "cancelled")] == 1
    assert found["gen_ai_server_request_duration_seconds_count", ("", *labels)] == 1


def test_a_model_that_rests_by_design_is_ready() -> None:
    served = Served(Config(models={}), {"idle": "x.gguf", "lost": "y.gguf"}, {"absent": "run: lumen pull z"})
    standings = {
        "idle": Standing("idle", "off", True, 0, {}, {}, 0.0),
        "lost": Standing("lost", "off", False, 0, {}, {}, 0.0),
    }
    state: Any = SimpleNamespace(
        counters=SimpleNamespace(in_flight=0), draining=False, billing=SimpleNamespace(healthy=True)
    )
    found = samples(Gauges(gauges(state, served, [], standings, [])))
    ready = {labels: value for (name, labels), value in found.items() if name == "lumen_model_ready"}
    assert ready == {("idle",): 1.0, ("lost",): 0.0, ("absent",): 0.0}


def test_gauges_are_told_and_the_process_tells_of_itself() -> None:
    gauges = Gauges({"lumen_target_up": ("Whether it is asked.", ("target",), {("t",): 1.0})})
    found = samples(gauges)
    assert found["lumen_target_up", ("t",)] == 1.0
    assert found["process_resident_memory_bytes", ()] > 0


def test_many_together_count_like_one_by_one() -> None:
    many = [
        settled(outcome=("ok", "ok", "upstream_timeout")[i % 3], rung="prefill" if i % 5 else None) for i in range(97)
    ]
    for i, one in enumerate(many):
        one.stream = i % 4 > 0
        one.ended += i / 7
    apart, together = Metrics(), Metrics()
    for one in many:
        apart.take([one])
    together.take(many)
    first, second = (
        {name: value for name, value in samples(one).items() if not name[0].startswith("process_")}
        for one in (apart, together)
    )
    assert first.keys() == second.keys() and len(first) > 50
    assert first == pytest.approx(second)


def test_of_a_whole_answer_nobody_knows_how_fast_its_tokens_came() -> None:
    metrics = Metrics()
    one = settled()
    one.stream = False
    metrics.take([one])
    assert not [name for name, _ in samples(metrics) if "per_output_token" in name]

"""What Prometheus reads. Requests are counted in plain numbers; the text is made when it is asked for.

Names and buckets follow the OpenTelemetry semantic conventions for generative AI where those have one (metrics
`gen_ai.server.*` and `gen_ai.client.token.usage`), written as Prometheus writes them. Cardinality is bounded: routes
and targets come from the configuration, and beyond `MOST_SERIES` sets of labels everything is counted as `other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from lumen.core.histogram import Histogram
from lumen.gateway.convention import GOOD, operation_name, provider_and_model
from lumen.gateway.settled import Settled
from lumen.gateway.timing import parts
from lumen.wire.answers import Usage

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MOST_SERIES = 500
_OTHER = "other"
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**power) for power in range(14))
_PICO = 1e-12
CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class Collector(Protocol):
    def collect(self) -> Iterable[Metric]: ...


# Operation, route, target: the labels every request is counted under.
Labels = tuple[str, str, str]
# The same as it is told: operation, provider, route, model.
Told = tuple[str, str, str, str]
_Found = dict[tuple[str, ...], Histogram]
_Bounds = tuple[float, ...]


@dataclass(slots=True)
class _Series:
    """What one set of labels came to."""

    outcomes: dict[str, int] = field(default_factory=dict)
    # By what went wrong, which is nothing for those that went well.
    duration: dict[str, Histogram] = field(default_factory=dict)
    first: Histogram = field(default_factory=lambda: Histogram(_FIRST))
    parts: dict[str, Histogram] = field(default_factory=dict)
    per_token: Histogram = field(default_factory=lambda: Histogram(_PER_TOKEN))
    input: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    output: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    cached: int = 0
    guessed: int = 0
    cost: int = 0

    def add(self, together: list[Settled]) -> None:
        """Count requests that have these labels."""
        outcomes = self.outcomes
        for outcome, count in Counter([one.outcome for one in together]).items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        self.cost += sum([one.cost for one in together])
        lasted: dict[str, list[float]] = {}
        for one in together:
            lasted.setdefault("" if one.outcome in GOOD else one.outcome, []).append(one.ended - one.started)
        _extend(self.duration, lasted, lambda error: _DURATION)
        self.first.extend([first for one in together if (first := one.first_token) is not None])
        self._parted(together)
        self._used([(one, usage) for one in together if (usage := one.usage) is not None])

    def _parted(self, together: list[Settled]) -> None:
        found: dict[str, list[float]] = {}
        for one in together:
            for name, seconds in parts(one.attempts, one.started, stream=one.stream).items():
                # That most requests wake nothing needs no counting.
                if name != "first" and (seconds or name != "wake"):
                    found.setdefault(name, []).append(seconds)
        _extend(self.parts, found, lambda name: _DURATION if name == "wake" else _FIRST)

    def _used(self, counted: list[tuple[Settled, Usage]]) -> None:
        self.input.extend([usage.prompt_tokens for _, usage in counted])
        self.output.extend([usage.completion_tokens or 0 for _, usage in counted])
        for one, usage in counted:
            if usage.prompt_tokens_details is not None:
                self.cached += usage.prompt_tokens_details.cached_tokens or 0
            if usage.completion_tokens_details is not None:
                self.guessed += usage.completion_tokens_details.accepted_prediction_tokens or 0
            output = usage.completion_tokens or 0
            if one.stream and output > 1 and (first := one.first_token) is not None:
                self.per_token.add((one.seconds - first) / (output - 1))


def _extend(known: dict[str, Histogram], found: dict[str, list[float]], bounds: Callable[[str], _Bounds]) -> None:
    for name, values in found.items():
        histogram = known.get(name)
        if histogram is None:
            histogram = known[name] = Histogram(bounds(name))
        histogram.extend(values)


class Metrics:
    """Counts requests as they are settled; one event loop writes and reads."""

    def __init__(self) -> None:
        self._series: dict[Labels, _Series] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._splices: dict[str, int] = {}

    def take(self, settled: Sequence[Settled]) -> None:
        """Count requests, those of the same labels together."""
        alike: dict[Labels, list[Settled]] = {}
        for one in settled:
            alike.setdefault((one.operation, one.route, one.target), []).append(one)
        for labels, together in alike.items():
            self._of(labels).add(together)
        tries = [attempt for one in settled for attempt in one.attempts]
        for pair, count in Counter([(attempt.target, attempt.outcome) for attempt in tries]).items():
            self._count(pair, count)
        for rung, count in Counter([attempt.rung for attempt in tries if attempt.rung is not None]).items():
            self._splices[rung] = self._splices.get(rung, 0) + count

    def _of(self, labels: Labels) -> _Series:
        found = self._series.get(labels)
        if found is None:
            if len(self._series) >= MOST_SERIES:
                labels = (labels[0], _OTHER, _OTHER)
            found = self._series.setdefault(labels, _Series())
        return found

    def _count(self, pair: tuple[str, str], count: int) -> None:
        if pair not in self._attempts and len(self._attempts) >= MOST_SERIES:
            pair = (_OTHER, pair[1])
        self._attempts[pair] = self._attempts.get(pair, 0) + count

    def collect(self) -> Iterator[Metric]:
        """Everything counted, as the client library's families."""
        from prometheus_client.core import CounterMetricFamily

        names = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")
        told = {_named(labels): series for labels, series in self._series.items()}
        requests = CounterMetricFamily("lumen_requests", "Requests by how they ended.", labels=(*names, "outcome"))
        cached = CounterMetricFamily("lumen_cached_tokens", "Prompt tokens that a cache gave.", labels=names)
        guessed = CounterMetricFamily("lumen_guessed_tokens", "Tokens of answers that were guessed.", labels=names)
        cost = CounterMetricFamily("lumen_cost_dollars", "What requests cost, in dollars.", labels=names)
        for labels, series in told.items():
            for outcome, count in series.outcomes.items():
                requests.add_metric((*labels, outcome), count)
            cached.add_metric(labels, series.cached)
            guessed.add_metric(labels, series.guessed)
            cost.add_metric(labels, series.cost * _PICO)
        yield from (requests, cached, guessed, cost)
        yield from _histograms(names, told)
        attempts = CounterMetricFamily("lumen_attempts", "Tries at a target.", labels=("target", "outcome"))
        for pair, count in self._attempts.items():
            attempts.add_metric(pair, count)
        splices = CounterMetricFamily("lumen_splices", "Answers that went on elsewhere.", labels=("rung",))
        for rung, count in self._splices.items():
            splices.add_metric((rung,), count)
        yield from (attempts, splices)


def _named(labels: Labels) -> Told:
    operation, route, target = labels
    provider, model = (_OTHER, _OTHER) if target == _OTHER else provider_and_model(target)
    return operation_name(operation), provider, route, model


def _histograms(names: tuple[str, ...], told: Mapping[Told, _Series]) -> Iterator[Metric]:
    simple: Iterable[tuple[str, str, Callable[[_Series], Histogram]]] = (
        ("gen_ai_server_time_to_first_token_seconds", "Request to first token.", lambda s: s.first),
        ("gen_ai_server_time_per_output_token_seconds", "Time per token after the first.", lambda s: s.per_token),
    )
    for name, help, of in simple:
        yield _family(name, help, names, {labels: of(series) for labels, series in told.items()})
    by_error: _Found = {
        (*labels, error): one for labels, series in told.items() for error, one in series.duration.items()
    }
    yield _family("gen_ai_server_request_duration_seconds", "Request to end.", (*names, "error_type"), by_error)
    by_part: _Found = {(*labels, part): one for labels, series in told.items() for part, one in series.parts.items()}
    help = "The time to the first token in its parts."
    yield _family("lumen_time_to_first_token_part_seconds", help, (*names, "part"), by_part)
    kinds: _Found = {(*labels, "input"): series.input for labels, series in told.items()}
    kinds |= {(*labels, "output"): series.output for labels, series in told.items()}
    yield _family("gen_ai_client_token_usage", "Tokens of a request.", (*names, "gen_ai_token_type"), kinds)


# Name → help, names of labels, and a value for each set of labels.
Gauged = Mapping[str, tuple[str, tuple[str, ...], Mapping[tuple[str, ...], float]]]


class Gauges:
    """What is so right now, read off the running gateway."""

    def __init__(self, read: Gauged) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        for name, (help, names, values) in self._read.items():
            family = GaugeMetricFamily(name, help, labels=names)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


def _family(name: str, help: str, names: tuple[str, ...], found: Mapping[tuple[str, ...], Histogram]) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(name, help, labels=names)
    for labels, histogram in found.items():
        if histogram.count:
            buckets = [("+Inf" if bound == float("inf") else f"{bound:g}", n) for bound, n in histogram.cumulative()]
            family.add_metric(labels, buckets, sum_value=histogram.sum)
    return family


class Snapshot:
    """Families as they stood at one moment, to be written out on another thread."""

    def __init__(self, *collectors: Collector) -> None:
        self._families = [family for collector in collectors for family in collector.collect()]

    def collect(self) -> list[Metric]:
        return self._families


def exposition(snapshot: Snapshot) -> bytes:
    """The text that a scrape gets, the process's own figures included."""
    # Imported when first scraped: a gateway that nobody scrapes does not carry the library.
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(snapshot)
    return generate_latest(registry)

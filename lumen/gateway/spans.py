"""Spans of a request that is over, as plain values: the request, each try, each splice, each phase of an engine. Pure.

Names of attributes follow the OpenTelemetry semantic conventions for generative AI where those have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from lumen.core.tracecontext import Context
from lumen.gateway.attempt import Record
from lumen.gateway.convention import GOOD, operation_name, provider_and_model
from lumen.gateway.settled import Settled
from lumen.wire.answers import Usage

# Numbers of spans: the request's is 0, those of its tries follow, the rest begins here.
_FURTHER = 1000


class Span(Struct, frozen=True):
    """Times are nanoseconds since 1970. `parent`: the id of the span it belongs to, or empty. `kind`: as OTLP says it.

    `error`: what went wrong, where something did.
    """

    name: str
    id: int
    parent: str
    kind: str
    start: int
    end: int
    attributes: dict[str, Any]
    error: str | None = None


def spans(settled: Settled, context: Context) -> list[Span]:
    """The spans of one request, its own first."""
    # Both clocks were read at the same moment.
    offset = settled.at - settled.ended
    operation = operation_name(settled.operation)
    own = f"{context.id(0):016x}"
    made = [_request(settled, context, operation, offset)]
    further = iter(range(_FURTHER, _FURTHER * 1000))
    for number, attempt in enumerate(settled.attempts, 1):
        made.append(_attempt(attempt, context.id(number), own, operation, offset, number))
        inside = f"{context.id(number):016x}"
        for name, begin, end in _phases(attempt):
            span = Span(name, context.id(next(further)), inside, "internal", _ns(begin, offset), _ns(end, offset), {})
            made.append(span)
        if attempt.rung is not None and number > 1:
            made.append(_splice(settled.attempts[number - 2], attempt, context.id(next(further)), own, offset))
    return made


def _request(settled: Settled, context: Context, operation: str, offset: float) -> Span:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": settled.route,
        "gen_ai.request.stream": settled.stream,
        "lumen.request.id": settled.id,
        "lumen.route": settled.route,
        "lumen.outcome": settled.outcome,
        "lumen.attempts": len(settled.attempts),
        "lumen.cost.pico_dollars": settled.cost,
        **_of_target(settled.target, "gen_ai.response.model"),
        **_usage(settled.usage),
    }
    if settled.key is not None:
        attributes["lumen.key.id"] = settled.key
    if settled.first_token is not None:
        attributes["lumen.time_to_first_token"] = settled.first_token
    error = None if settled.outcome in GOOD else settled.outcome
    if error is not None:
        attributes["error.type"] = error
    name = f"{operation} {settled.route}"
    times = _ns(settled.started, offset), _ns(settled.ended, offset)
    return Span(name, context.id(0), context.parent, "server", *times, attributes, error)


def _attempt(attempt: Record, number: int, parent: str, operation: str, offset: float, seq: int) -> Span:
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        **_of_target(attempt.target, "gen_ai.request.model"),
        "lumen.attempt": seq,
        "lumen.target": attempt.target,
        "lumen.reason": attempt.reason,
        "lumen.outcome": attempt.outcome,
        **_usage(attempt.usage),
    }
    if attempt.rung is not None:
        attributes |= {"lumen.splice.rung": attempt.rung, "lumen.splice.position": attempt.position}
    error = None if attempt.outcome in GOOD else attempt.outcome
    if error is not None:
        attributes["error.type"] = error
    end = _ns(attempt.ended or attempt.started, offset)
    name = f"{operation} {attempt.target}"
    return Span(name, number, parent, "client", _ns(attempt.started, offset), end, attributes, error)


def _phases(attempt: Record) -> Iterator[tuple[str, float, float]]:
    """What a target was at: waking, waiting for its turn, reading the prompt, answering."""
    at = attempt.started
    for name, seconds in (("wake", attempt.woke), ("queue", attempt.queued)):
        if seconds:
            yield name, at, at + seconds
            at += seconds
    if attempt.sent is None:
        return
    answered = attempt.first_token or attempt.ended or attempt.sent
    yield "prefill", attempt.sent, answered
    if attempt.first_token is not None and attempt.ended:
        yield "decode", attempt.first_token, attempt.ended


def _splice(before: Record, after: Record, number: int, parent: str, offset: float) -> Span:
    """From the break to the first token that followed it."""
    attributes = {
        "lumen.splice.rung": after.rung,
        "lumen.splice.position": after.position,
        "lumen.splice.from": before.target,
        "lumen.splice.to": after.target,
        "lumen.splice.why": before.outcome,
    }
    begin = before.ended or after.started
    end = max(after.first_token or after.ended or begin, begin)
    return Span("splice", number, parent, "internal", _ns(begin, offset), _ns(end, offset), attributes)


def _of_target(target: str, model: str) -> dict[str, Any]:
    provider, name = provider_and_model(target)
    return {"gen_ai.provider.name": provider, model: name} if provider else {}


def _usage(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    found: dict[str, Any] = {"gen_ai.usage.input_tokens": usage.prompt_tokens}
    if usage.completion_tokens is not None:
        found["gen_ai.usage.output_tokens"] = usage.completion_tokens
    details = usage.prompt_tokens_details
    if details is not None and details.cached_tokens is not None:
        found["gen_ai.usage.cache_read.input_tokens"] = details.cached_tokens
    return found


def _ns(at: float, offset: float) -> int:
    return round((at + offset) * 1e9)

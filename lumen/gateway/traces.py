"""OpenTelemetry traces over OTLP/HTTP. A request costs the choice of its ids, and a place in a queue when it is over.

Everything else happens in a thread of its own, which alone imports the exporter (`lumen-serve[otlp]`). The queue is
bounded: where the receiver is slower than the requests, spans are lost and not time.
"""

from __future__ import annotations

import os
import queue
import random
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

from lumen import __version__
from lumen.config.schema import Traces as Wanted
from lumen.core.errors import ConfigError
from lumen.core.trace import Trace
from lumen.core.tracecontext import Context, begun, passed_on
from lumen.gateway.settled import Settled
from lumen.gateway.spans import Span, spans
from lumen.wire.call import Call
from lumen.wire.folded import folded

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

_MOST = 2_000
# Characters of a payload in a span, and spans of one export.
_MOST_TEXT = 16 * 1024
_BATCH = 500
_TIMEOUT = 10.0
_encode = msgspec.json.Encoder().encode


class _Over(msgspec.Struct, frozen=True):
    settled: Settled
    context: Context
    asked: bytes
    answered: bytes
    text: str
    parts: list[bytes]


class Traces:
    """The event loop calls all but `close`, which blocks.

    Args:
        draw: random numbers for ids and for what is sampled. `told`: called with what an operator should know.

    Raises:
        ConfigError: the extra is not installed, or a variable that a header names is not set.
    """

    def __init__(self, wanted: Wanted, draw: random.Random, told: Callable[[str], None]) -> None:
        self.wanted = wanted
        self._headers = usable(wanted)
        self._endpoint = wanted.endpoint or ""
        self._draw = draw
        self._told = told
        self._queue: queue.Queue[_Over | None] = queue.Queue(_MOST)
        self._troubled = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def begin(self, parent: str | None, state: str | None) -> Context:
        """The context of a new request. `parent`, `state`: what its client sent as `traceparent` and `tracestate`."""
        given = None if parent is None else passed_on(parent, state or "")
        return begun(given, self._draw.getrandbits(192), self._draw.random() < self.wanted.share)

    def take(self, settled: Settled, context: Context, call: Call | None, trace: Trace, whole: bytes) -> None:
        """A request with a sampled context is over. `call`: what was asked; `None` where that must not be kept."""
        if context.span is None:
            # It began before anybody wanted spans.
            return
        asked = answered = b""
        text, parts = "", list[bytes]()
        if self.wanted.payloads and call is not None:
            asked = _encode(getattr(call.request, "messages", None) or call.request)[:_MOST_TEXT]
            answered, text, parts = whole[:_MOST_TEXT], trace.text[:_MOST_TEXT], _first(trace.parts)
        try:
            self._queue.put_nowait(_Over(settled, context, asked, answered, text, parts))
        except queue.Full:
            self.dropped += 1

    def close(self, within: float = 5.0) -> None:
        """Send what is queued and end. Blocks for at most `within` seconds."""
        try:
            self._queue.put(None, timeout=within)
        except queue.Full:
            return
        self._thread.join(within)

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource

        exporter = OTLPSpanExporter(endpoint=self._endpoint, headers=self._headers, timeout=_TIMEOUT)
        resource = Resource.create({"service.name": "lumen", "service.version": __version__})
        more = True
        while more:
            batch, more = self._next(resource)
            if batch:
                self._export(exporter, batch)
        exporter.shutdown()

    def _next(self, resource: Resource) -> tuple[list[ReadableSpan], bool]:
        batch: list[ReadableSpan] = []
        over = self._queue.get()
        while over is not None:
            batch += [_readable(span, over.context, resource) for span in _with_payload(over)]
            if len(batch) >= _BATCH:
                return batch, True
            try:
                over = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _export(self, exporter: Any, batch: list[ReadableSpan]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        good = exporter.export(batch) is SpanExportResult.SUCCESS
        if not good:
            self.dropped += len(batch)
            # Once, not for every batch.
            if not self._troubled:
                self._told("traces cannot be sent; spans are lost until the receiver answers")
        elif self._troubled:
            self._told("traces can be sent again")
        self._troubled = not good


def context_of(traces: Traces | None, parent: str | None, state: str | None) -> Context | None:
    """Where a request stands in a trace, with spans of its own or only as its client said; `None`: nowhere."""
    if traces is not None:
        return traces.begin(parent, state)
    return None if parent is None else passed_on(parent, state or "")


def _with_payload(over: _Over) -> list[Span]:
    made = spans(over.settled, over.context)
    if over.asked:
        made[0].attributes["gen_ai.input.messages"] = over.asked.decode("utf-8", "replace")
        answered = over.answered or _answered(over)
        made[0].attributes["gen_ai.output.messages"] = answered.decode("utf-8", "replace")
    return made


def _answered(over: _Over) -> bytes:
    """What a stream said: its text alone where that was all, else every choice with its calls of tools."""
    if not over.parts:
        return over.text.encode(errors="replace")
    told = folded(over.text, over.parts) or {}
    return _encode(told.get("choices"))[:_MOST_TEXT]


def _first(parts: list[bytes]) -> list[bytes]:
    """As many of them as a span may hold."""
    size = 0
    for number, part in enumerate(parts):
        size += len(part)
        if size > _MOST_TEXT:
            return parts[:number]
    return list(parts)


def _readable(span: Span, context: Context, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    trace, flags = int(context.trace, 16), TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(trace, int(span.parent, 16), is_remote=True, trace_flags=flags) if span.parent else None
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace, span.id, is_remote=False, trace_flags=flags),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        kind=SpanKind[span.kind.upper()],
        status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=InstrumentationScope("lumen", __version__),
    )


def usable(wanted: Wanted) -> dict[str, str]:
    """The headers with what their variables hold.

    Raises:
        ConfigError: the extra is not installed, or a variable is not set.
    """
    found: dict[str, str] = {}
    if wanted.endpoint is None:
        return found
    if find_spec("opentelemetry") is None:
        raise ConfigError("traces need the package's extra: install lumen-serve[otlp]")
    for header, value in wanted.headers.items():
        name = value.removeprefix("env:")
        if name not in os.environ:
            raise ConfigError(f"traces.headers.{header}: the environment variable {name} is not set")
        found[header] = os.environ[name]
    return found

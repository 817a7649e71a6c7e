"""Spans as values, and as a real receiver of OTLP decodes them."""

from __future__ import annotations

import gzip
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest

from lumen.config.schema import Config
from lumen.config.schema import Traces as Wanted
from lumen.core.errors import ConfigError
from lumen.core.trace import Trace
from lumen.core.tracecontext import begun, passed_on
from lumen.gateway.attempt import Record
from lumen.gateway.retention import Retention
from lumen.gateway.settled import Settled
from lumen.gateway.spans import spans
from lumen.gateway.traces import Traces
from lumen.wire.answers import Usage
from tests.gateway.conftest import Up

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"
installed = pytest.mark.skipif(find_spec("opentelemetry") is None, reason="the extra otlp is not installed")


def settled(outcome: str = "ok") -> Settled:
    broken = Record("emu/x", "weight 9", 100.0, sent=100.05, answered=100.06, first_token=100.1, ended=100.4)
    broken.outcome = "upstream_disconnected"
    last = Record("tiny", "fallback", 100.41, rung="prefill", position=4, first_token=100.6, ended=101.0, outcome="ok")
    last.queued, last.woke, last.sent, last.usage = 0.02, 0.03, 100.46, Usage(10, 20, 30)
    return Settled("req_1", "chat/completions", "fast", "key-1", 2e9, 100.0, 101.0, outcome, True, [broken, last], 7)


def test_a_request_becomes_a_span_with_its_tries_splices_and_phases_below_it() -> None:
    context = begun(passed_on(GIVEN, ""), 12345, False)
    made = spans(settled(), context)
    request, first, second = made[0], *[span for span in made if span.kind == "client"]
    assert (request.parent, request.kind, request.name) == (SPAN, "server", "chat fast")
    assert request.end - request.start == 1_000_000_000 and request.end == 2_000_000_000_000_000_000
    assert request.attributes["gen_ai.usage.output_tokens"] == 20
    assert request.attributes["gen_ai.response.model"] == "tiny"
    own = f"{request.id:016x}"
    assert first.parent == second.parent == own
    assert (first.error, first.attributes["error.type"]) == ("upstream_disconnected", "upstream_disconnected")
    assert first.attributes["gen_ai.provider.name"] == "emu" and second.attributes["gen_ai.provider.name"] == "lumen"
    (splice,) = [span for span in made if span.name == "splice"]
    assert splice.parent == own and splice.attributes["lumen.splice.rung"] == "prefill"
    assert splice.end - splice.start == pytest.approx(200_000_000, abs=1000)
    phases = [span.name for span in made if span.parent == f"{second.id:016x}"]
    assert phases == ["wake", "queue", "prefill", "decode"]
    assert len({span.id for span in made}) == len(made)
    assert all(request.start <= span.start <= span.end <= request.end for span in made)
    # The span that its target was told of is its try's.
    assert passed_on(context.header(2).decode()[13:68], "") is not None
    assert context.header(2).decode()[49:65] == f"{second.id:016x}"


def test_an_error_is_one_and_a_client_that_left_is_none() -> None:
    context = begun(None, 99, True)
    assert spans(settled("upstream_timeout"), context)[0].error == "upstream_timeout"
    assert spans(settled("cancelled"), context)[0].error is None
    empty = Settled("req_2", "embeddings", "r", None, 2e9, 1.0, 1.1, "unavailable", False, [], 0)
    (only,) = spans(empty, context)
    assert only.name == "embeddings r" and only.parent == ""


@dataclass
class Receiver:
    """A real receiver: decodes what comes."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200

    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found = []
        for body in self.bodies:
            request = ExportTraceServiceRequest.FromString(body)
            found += [span for r in request.resource_spans for s in r.scope_spans for span in s.spans]
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            zipped = self.headers.get("content-encoding") == "gzip"
            if made.status == 200:
                made.bodies.append(gzip.decompress(body) if zipped else body)
                made.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(made.status)
            self.send_header("content-length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@installed
def test_a_receiver_gets_what_was_sampled(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTLP_KEY", "Bearer x")
    traces = Traces(Wanted(receiver.url, share=0.0, headers={"Authorization": "env:OTLP_KEY"}), random.Random(1), print)
    assert not traces.begin(None, None).sampled
    context = traces.begin(GIVEN, "a=1")
    assert context.sampled and context.trace == TRACE
    traces.take(settled(), context, None, Trace(1), b"")
    traces.close(60.0)
    assert receiver.headers[0]["authorization"] == "Bearer x"
    found = receiver.spans()
    assert {span.trace_id.hex() for span in found} == {TRACE}
    (root,) = [span for span in found if span.kind == 2]
    assert root.parent_span_id.hex() == SPAN and root.span_id.hex() == f"{context.id(0):016x}"
    told = attributes(root)
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.usage.input_tokens"] == 10
    (broken,) = [span for span in found if span.status.code == 2]
    assert attributes(broken)["error.type"] == "upstream_disconnected"
    assert root.end_time_unix_nano - root.start_time_unix_nano == 1_000_000_000


@installed
def test_a_receiver_that_fails_costs_spans_and_is_told_once(receiver: Receiver) -> None:
    told: list[str] = []
    receiver.status = 400
    traces = Traces(Wanted(receiver.url), random.Random(1), told.append)
    for _ in range(3):
        traces.take(settled(), traces.begin(None, None), None, Trace(1), b"")
    traces.close(60.0)
    assert traces.dropped > 0 and [text for text in told if "cannot be sent" in text] == told[:1]


@installed
@pytest.mark.anyio
@pytest.mark.parametrize(("payloads", "retention"), [(False, "usual"), (True, "usual"), (True, "none")])
async def test_requests_are_traced_and_targets_told(up: Up, receiver: Receiver, payloads: bool, retention: Any) -> None:
    import asyncio

    up.state.traces = traces = Traces(Wanted(receiver.url, payloads=payloads), random.Random(1), print)
    up.state.retention = Retention(Config(retention=retention))
    name = next(iter(up.state.table.entries())).account
    headers = {"Authorization": f"Bearer {up.secret}", "traceparent": GIVEN}
    body = {"model": name, "messages": [{"role": "user", "content": "CANARY"}]}
    status, _, _ = await up.post("/v1/chat/completions", body, headers=headers)
    assert status == 200
    await up.stream(body)
    await asyncio.to_thread(traces.close, 60.0)
    roots = [span for span in receiver.spans() if span.kind == 2]
    tries = {span.span_id.hex(): span.trace_id.hex() for span in receiver.spans() if span.kind == 3}
    for told in (headers["traceparent"] for headers in up.emulator.headers[-2:]):
        _, trace, span_id, flags = told.split("-")
        assert tries[span_id] == trace and flags == "01"
    assert len(roots) == 2 and roots[0].trace_id.hex() == TRACE != roots[1].trace_id.hex()
    kept = [json.dumps(attributes(root)) for root in roots]
    assert all(("CANARY" in text) is (payloads and retention == "usual") for text in kept)


@pytest.mark.anyio
async def test_without_traces_of_our_own_targets_are_told_what_the_client_said(up: Up) -> None:
    name = next(iter(up.state.table.entries())).account
    body = {"model": name, "messages": [{"role": "user", "content": "x"}]}
    for given, told in ((GIVEN, GIVEN), ("nonsense", None), (None, None)):
        headers = {"Authorization": f"Bearer {up.secret}"} | ({} if given is None else {"traceparent": given})
        status, _, _ = await up.post("/v1/chat/completions", body, headers=headers)
        assert status == 200 and up.emulator.headers[-1].get("traceparent") == told


def test_what_is_missing_is_told_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    from lumen.gateway import traces

    monkeypatch.setattr(traces, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lumen-serve\[otlp\]"):
        Traces(Wanted("http://127.0.0.1:1/v1/traces"), random.Random(1), print)
    monkeypatch.setattr(traces, "find_spec", lambda name: object())
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH"):
        Traces(Wanted("http://127.0.0.1:1/v1/traces", headers={"A": "env:NO_SUCH"}), random.Random(1), print)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"

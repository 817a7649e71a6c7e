"""The whole path of a request over real sockets, before a provider that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.conftest import Up

pytestmark = pytest.mark.anyio
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


def chunks(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


def said(text: str) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(text) if c.get("choices"))


def raw(up: Up, model: str, version: str = "1.1") -> bytes:
    """A streamed request as it goes over the wire."""
    body = json.dumps({**HI, "model": f"fake/{model}", "stream": True}).encode()
    return (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {up.secret}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def test_whole(up: Up) -> None:
    status, body, headers = await up.post("/v1/chat/completions", {**HI, "model": "fake/words-3"})
    assert status == 200
    assert body["choices"][0]["message"]["content"] == "word0 word1 word2 "
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-lumen-target"] == headers["x-lumen-route"] == "fake/words-3"
    assert int(headers["openai-processing-ms"]) >= 0


async def test_stream_is_what_section_8_says(up: Up) -> None:
    status, text, headers = await up.stream({**HI, "model": "fake/words-3"})
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert headers["x-lumen-target"] == "fake/words-3"
    assert said(text) == "word0 word1 word2 "
    assert text.endswith("data: [DONE]\n\n")
    assert [c["choices"][0]["finish_reason"] for c in chunks(text)].count("stop") == 1
    # Usage was asked of the provider for metering, but not by this client.
    assert up.emulator.requests[-1]["stream_options"] == {"include_usage": True}
    assert all(c["choices"] and "usage" not in c for c in chunks(text))


async def test_usage_only_where_asked(up: Up) -> None:
    body = {**HI, "model": "fake/words-3", "stream_options": {"include_usage": True}}
    _, text, _ = await up.stream(body)
    last = chunks(text)[-1]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)


async def test_every_choice_finishes(up: Up) -> None:
    _, text, _ = await up.stream({**HI, "model": "fake/words-2", "n": 3})
    ends = [c["choices"][0]["index"] for c in chunks(text) if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1, 2]


@pytest.mark.parametrize(
    ("route", "stream"),
    # A whole answer is silent until it is done, so silence is a failure of streams only.
    [(route, stream) for route in ("failover", "once", "limits") for stream in (False, True)] + [("silent", True)],
)
async def test_failures_before_the_first_token_stay_unseen(up: Up, route: str, stream: bool) -> None:
    if stream:
        _, text, headers = await up.stream({**HI, "model": route})
        assert said(text).startswith("word0 word1 word2 ")
        assert text.count('"role"') == 1
        assert text.endswith("data: [DONE]\n\n")
    else:
        status, body, headers = await up.post("/v1/chat/completions", {**HI, "model": route})
        assert status == 200
        assert body["choices"][0]["message"]["content"].startswith("word0")
    assert headers["x-lumen-route"] == route


@pytest.mark.parametrize("script", ["cut-3", "nofinish-3", "errin-3", "garbage-3", "stall-3"])
async def test_a_broken_stream_never_looks_whole(up: Up, script: str) -> None:
    status, text, _ = await up.stream({**HI, "model": f"fake/{script}"})
    assert status == 200
    assert said(text) == "word0 word1 word2 "
    error = chunks(text)[-1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "[DONE]" not in text
    assert text.endswith("<CUT>")


async def test_a_lost_done_is_mended(up: Up) -> None:
    _, text, _ = await up.stream({**HI, "model": "fake/nodone-3"})
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("status-400", 400, "scripted"),
        ("status-401", 502, "upstream_error"),
        ("status-500", 502, "upstream_error"),
        ("status-503", 503, "upstream_error"),
        ("html", 502, "upstream_malformed"),
        ("limit-30", 429, "rate_limit_exceeded"),
        ("reset", 502, "upstream_disconnected"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_before_the_first_token(up: Up, script: str, status: int, code: str, stream: bool) -> None:
    got, body, headers = await up.post("/v1/chat/completions", {**HI, "model": f"fake/{script}", "stream": stream})
    assert (got, body["error"]["code"]) == (status, code)
    assert headers["x-lumen-route"] == headers["x-lumen-target"] == f"fake/{script}"
    assert headers["openai-processing-ms"].isdigit()
    assert headers["x-request-id"]
    assert "upstream-secret" not in json.dumps(body)
    assert "127.0.0.1" not in json.dumps(body)
    assert headers.get("Retry-After") == ("30" if script == "limit-30" else None)


async def test_400_is_not_tried_twice_and_500_is(up: Up) -> None:
    await up.post("/v1/chat/completions", {**HI, "model": "fake/status-400"})
    assert len(up.emulator.requests) == 1
    await up.post("/v1/chat/completions", {**HI, "model": "fake/status-500"})
    assert len(up.emulator.requests) == 3


async def test_route_defaults_fill_what_the_client_left_out(up: Up) -> None:
    await up.post("/v1/chat/completions", {**HI, "model": "warm", "max_tokens": 4})
    sent = up.emulator.requests[-1]
    assert (sent["temperature"], sent["max_tokens"], sent["model"]) == (0.25, 4, "words-2")


async def test_only_allowed_fields_and_headers_reach_the_provider(up: Up) -> None:
    await up.post(
        "/v1/chat/completions",
        {**HI, "model": "fake/words-1", "api_base": "http://x", "chat_template": "x", "resume_exact": True},
        headers={"Authorization": f"Bearer {up.secret}", "Cookie": "a=b", "x-custom": "1", "User-Agent": "me"},
    )
    assert set(up.emulator.requests[-1]) == {"model", "messages"}
    sent = {name.lower() for name in up.emulator.headers[-1]}
    assert sent == {"host", "authorization", "content-type", "content-length", "accept"}
    assert up.emulator.headers[-1]["Authorization"] == "Bearer upstream-secret"


async def test_a_client_that_leaves_stops_the_provider(up: Up) -> None:
    headers = {"Authorization": f"Bearer {up.secret}"}
    body = {**HI, "model": "fake/slow-1000-20", "stream": True}
    async with up.session.post(f"{up.url}/v1/chat/completions", json=body, headers=headers) as answer:
        await answer.content.readany()
        assert up.emulator.open == 1
        answer.close()
    async with asyncio.timeout(100):
        while up.emulator.open or up.state.counters.in_flight:
            await asyncio.sleep(0.01)
    assert up.emulator.closed_early == 1
    assert up.state.counters.cancelled == 1


async def test_a_slow_reader_stops_the_reading_upstream(up: Up) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", up.port, limit=1024)
    writer.write(raw(up, "words-200000"))
    await reader.readexactly(1)
    before = -1
    async with asyncio.timeout(100):
        while before != up.emulator.words_sent:
            before = up.emulator.words_sent
            await asyncio.sleep(0.5)
    # Buffers of four sockets, two processes' worth of kernel and the gateway's own bounded ones; not the answer.
    assert 0 < up.emulator.words_sent < 150_000
    writer.close()


async def test_keepalive_comments_while_the_first_token_is_late(up: Up) -> None:
    _, text, _ = await up.stream({**HI, "model": "silent"})
    assert text.startswith(": keep-alive\n\n")
    assert said(text) == "word0 word1 word2 "


async def test_keepalive_comments_in_the_middle_of_an_answer(up: Up) -> None:
    _, text, _ = await up.stream({**HI, "model": "fake/slow-3-500"})
    assert said(text) == "word0 word1 word2 "
    assert text.count(": keep-alive\n\n") >= 2
    assert text.index("word0") < text.index(": keep-alive") < text.index("word2")
    assert text.endswith("data: [DONE]\n\n")


async def test_a_client_of_http_1_0_gets_the_bare_stream(up: Up) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
    writer.write(raw(up, "slow-20-1", version="1.0"))
    async with asyncio.timeout(100):
        head = await reader.readuntil(b"\r\n\r\n")
        body = (await reader.read()).decode()
    writer.close()
    assert b"chunked" not in head.lower()
    assert said(body) == "".join(f"word{i} " for i in range(20))
    assert body.startswith("data: {") and body.endswith("data: [DONE]\n\n")


async def test_embeddings_and_completions_take_the_same_path(up: Up) -> None:
    status, body, _ = await up.post("/v1/embeddings", {"model": "fake/e", "input": "x"})
    assert (status, body["data"][0]["embedding"]) == (200, [0.5, 0.25])
    status, body, _ = await up.post("/v1/completions", {"model": "fake/words-2", "prompt": "x"})
    assert status == 200


async def test_unknown_model(up: Up) -> None:
    status, body, _ = await up.post("/v1/chat/completions", {**HI, "model": "nope"})
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "model_not_found", "model")


async def test_every_request_leaves_one_line_without_its_words(up: Up) -> None:
    await up.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "CANARY"}], "model": "fake/words-3"}
    )
    await up.stream({**HI, "model": "failover"})
    up.flush()
    lines = [json.loads(line) for line in "".join(up.lines).splitlines()]
    assert [(line["outcome"], line["attempts"]) for line in lines] == [("ok", 1), ("ok", 3)]
    assert lines[0]["completion_tokens"] == 3
    assert "CANARY" not in "".join(up.lines)
    assert up.secret not in "".join(up.lines)


async def test_draining_refuses_new_requests(up: Up) -> None:
    up.state.draining = True
    status, body, headers = await up.post("/v1/chat/completions", {**HI, "model": "fake/words-1"})
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "draining", "5")

"""Clients of other dialects on the one path of a request, before the emulated provider."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from openai import APIError, AsyncOpenAI, NotFoundError

from tests.gateway.conftest import Up

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}


def client(up: Up) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{up.url}/v1", api_key=up.secret, max_retries=0)


async def messages(up: Up, **fields: Any) -> tuple[str, list[dict[str, Any]]]:
    """A streamed answer of `/v1/messages`: the raw text and its events."""
    body = {**ASK, **fields, "stream": True}
    async with up.session.post(f"{up.url}/v1/messages", json=body, headers={"x-api-key": up.secret}) as answer:
        assert answer.status == 200
        text = b""
        # A stream that ends with an error is cut short on purpose.
        with suppress(ClientPayloadError):
            async for data in answer.content.iter_any():
                text += data
    blocks = [block for block in text.decode().split("\n\n") if block.startswith("event: ")]
    return text.decode(), [json.loads(block.partition("\ndata: ")[2]) for block in blocks]


async def test_messages_whole(up: Up) -> None:
    status, body, headers = await up.post(
        "/v1/messages", {**ASK, "model": "fake/words-3"}, headers={"x-api-key": up.secret}
    )
    assert status == 200
    assert body["content"] == [{"type": "text", "text": "word0 word1 word2 "}]
    assert (body["stop_reason"], body["usage"]["output_tokens"]) == ("end_turn", 3)
    assert headers["x-lumen-target"] == "fake/words-3"
    assert up.emulator.requests[-1]["max_tokens"] == 64


async def test_messages_streamed_goes_on_elsewhere(up: Up) -> None:
    text, events = await messages(up, model="failover")
    assert "[DONE]" not in text
    said = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert said == "word0 word1 word2 "
    assert events[-1] == {"type": "message_stop"}
    assert events[-2]["usage"]["output_tokens"] == 3


async def test_messages_cut_for_good_end_with_an_error_and_no_stop(up: Up) -> None:
    text, events = await messages(up, model="fake/cut-2")
    assert events[-1]["type"] == "error"
    assert events[-1]["request_id"].startswith("req_")
    assert "message_stop" not in text


async def test_messages_errors_are_told_its_way(up: Up) -> None:
    status, body, _ = await up.post("/v1/messages", {"model": "fake/words-1"}, headers={"x-api-key": up.secret})
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert "messages" in body["error"]["message"]
    status, body, _ = await up.post("/v1/messages", {**ASK, "model": "fake/words-1"}, headers={"x-api-key": "no"})
    assert (status, body["error"]["type"]) == (401, "authentication_error")
    status, body, _ = await up.post("/v1/messages", {**ASK, "model": "nope"})
    assert (status, body["error"]["type"]) == (404, "not_found_error")


async def test_responses_whole(up: Up) -> None:
    async with client(up) as openai:
        response = await openai.responses.create(model="fake/words-3", input="hi", instructions="be brief")
    assert response.output_text == "word0 word1 word2 "
    assert response.status == "completed"
    assert response.usage is not None and response.usage.output_tokens == 3
    assert [m["role"] for m in up.emulator.requests[-1]["messages"]] == ["system", "user"]


async def test_responses_streamed_goes_on_elsewhere(up: Up) -> None:
    async with client(up) as openai, openai.responses.stream(model="failover", input="hi") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(deltas) == final.output_text == "word0 word1 word2 "


async def test_responses_errors(up: Up) -> None:
    async with client(up) as openai:
        with pytest.raises(NotFoundError):
            await openai.responses.create(model="nope", input="hi")
        with pytest.raises(APIError) as caught:
            async for _ in await openai.responses.create(model="fake/cut-2", input="hi", stream=True):
                pass
    assert (caught.value.message, caught.value.code) == ("The connection to the target broke.", "upstream_disconnected")

"""`/v1/responses` with storage: the real SDK before the emulated provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from lumen.config.schema import Responses as Rules
from lumen.gateway.retention import Retention
from lumen.keys import KeyRing, mint
from lumen.ledger.responses import Kept, Responses, ResponsesError
from tests.gateway.conftest import Up

pytestmark = pytest.mark.anyio


def client(up: Up, secret: str | None = None) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{up.url}/v1", api_key=secret or up.secret, max_retries=0)


@pytest.fixture
async def keeping(up: Up, tmp_path: Path) -> AsyncIterator[Up]:
    store = Responses(tmp_path / "ledger.db")
    up.state.responses = store
    up.state.config = replace(up.state.config, responses=Rules(store=True, days=30))
    yield up
    store.close()


def stored(response: Any) -> bool:
    """What it says of itself; the SDK's model has no such field."""
    found: bool = response.store
    return found


def sent(up: Up) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in up.emulator.requests[-1]["messages"]]


async def test_a_conversation_goes_on_whole_and_streamed(keeping: Up) -> None:
    async with client(keeping) as openai:
        first = await openai.responses.create(model="fake/words-2", input="one", instructions="be brief")
        assert stored(first)
        second = await openai.responses.create(model="failover", input="two", previous_response_id=first.id)
        assert sent(keeping) == [("user", "one"), ("assistant", "word0 word1 "), ("user", "two")]
        async with openai.responses.stream(
            model="fake/words-1", input="three", previous_response_id=second.id
        ) as stream:
            async for _ in stream:
                pass
            third = await stream.get_final_response()
        assert sent(keeping)[-2:] == [("assistant", "word0 word1 word2 "), ("user", "three")]
        await openai.responses.create(model="fake/words-1", input="four", previous_response_id=third.id)
        assert len(sent(keeping)) == 7
        shown = await openai.responses.retrieve(third.id)
    assert shown.output_text == third.output_text == "word0 "
    assert shown.previous_response_id == second.id


async def test_calls_of_tools_are_gone_on_from(keeping: Up) -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
    async with client(keeping) as openai:
        first = await openai.responses.create(model="fake/tool-words-1", input="x", tools=[tool])  # type: ignore[list-item]
        call = first.output[0]
        assert call.type == "function_call"
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "found"}
        await openai.responses.create(model="fake/words-1", input=[result], previous_response_id=first.id)  # type: ignore[list-item]
    messages = keeping.emulator.requests[-1]["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "tool"]
    assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"]


async def test_a_response_belongs_to_its_key(keeping: Up) -> None:
    other, secret = mint("other")
    assert keeping.state.ring is not None
    keeping.state.ring = KeyRing([*keeping.state.ring.keys, other])
    async with client(keeping) as openai, client(keeping, secret) as stranger:
        mine = await openai.responses.create(model="fake/words-1", input="one")
        with pytest.raises(NotFoundError):
            await stranger.responses.retrieve(mine.id)
        with pytest.raises(NotFoundError):
            await stranger.responses.delete(mine.id)
        with pytest.raises(BadRequestError) as caught:
            await stranger.responses.create(model="fake/words-1", input="two", previous_response_id=mine.id)
        assert caught.value.code == "previous_response_not_found"
        await openai.responses.delete(mine.id)
        with pytest.raises(NotFoundError):
            await openai.responses.retrieve(mine.id)


async def test_what_is_not_to_be_stored_is_not(keeping: Up) -> None:
    async with client(keeping) as openai:
        answer = await openai.responses.create(model="fake/words-1", input="one", store=False)
        assert not stored(answer)
        with pytest.raises(NotFoundError):
            await openai.responses.retrieve(answer.id)


async def test_off_by_default_and_by_route(keeping: Up) -> None:
    routes = dict(keeping.state.config.routes)
    routes["once"] = replace(routes["once"], responses=Rules(store=False))
    keeping.state.config = replace(keeping.state.config, routes=routes)
    async with client(keeping) as openai:
        assert not stored(await openai.responses.create(model="once", input="one", store=True))
        kept = await openai.responses.create(model="warm", input="one")
        with pytest.raises(BadRequestError, match="not switched on"):
            await openai.responses.create(model="once", input="one", previous_response_id=kept.id)
        keeping.state.config = replace(keeping.state.config, responses=Rules())
        assert not stored(await openai.responses.create(model="warm", input="one", store=True))


async def test_nothing_is_kept_where_nothing_may_be(keeping: Up, tmp_path: Path) -> None:
    async with client(keeping) as openai:
        kept = await openai.responses.create(model="fake/words-1", input="before")
        keeping.state.retention = Retention(replace(keeping.state.config, retention="none"), keeping.state.ring)
        answer = await openai.responses.create(model="fake/words-1", input="a-secret-word", store=True)
        assert not stored(answer)
        with pytest.raises(BadRequestError, match="nothing of this route's or this key's requests may be kept"):
            await openai.responses.create(model="fake/words-1", input="x", previous_response_id=kept.id)
    files = await asyncio.to_thread(lambda: [file.read_bytes() for file in tmp_path.iterdir()])
    assert files
    assert not any(b"a-secret-word" in data for data in files)


async def test_an_answer_that_cannot_be_kept_is_given_and_says_so(keeping: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Responses, kept: Kept, most: int) -> None:
        raise ResponsesError("Kept answers cannot be read or written now.")

    monkeypatch.setattr(Responses, "put", fails)
    async with client(keeping) as openai:
        answer = await openai.responses.create(model="fake/words-2", input="one")
        assert (answer.output_text, stored(answer)) == ("word0 word1 ", False)
        stream = await openai.responses.create(model="fake/words-2", input="one", stream=True)
        events = [event async for event in stream]
    assert events[-1].type == "response.completed"
    assert not stored(events[-1].response)
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_an_answer_that_broke_off_is_not_kept(keeping: Up, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {keeping.secret}"}
    body = {"model": "fake/cut-2", "input": "one", "stream": True}
    text = b""
    async with keeping.session.post(f"{keeping.url}/v1/responses", json=body, headers=headers) as answer:
        try:
            async for data in answer.content.iter_any():
                text += data
        except Exception:  # noqa: BLE001 - it is cut short on purpose
            assert b"response.failed" in text
    name = json.loads(text.split(b"data: ")[1].split(b"\n")[0])["response"]["id"]
    async with client(keeping) as openai:
        with pytest.raises(NotFoundError):
            await openai.responses.retrieve(name)

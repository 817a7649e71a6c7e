"""The emulated provider itself, in every dialect, read by the dialects' own decoders over real sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lumen.core.errors import BrokenError, MalformedError, RefusedError, UpstreamError
from lumen.providers.base import Capabilities, HttpCall, module
from lumen.wire.call import Event, chat_call
from lumen.wire.parse import parse_chat
from tests.emulator.half_open import HalfOpen
from tests.emulator.server import Emulator

pytestmark = pytest.mark.anyio
DIALECTS = ("openai", "anthropic", "gemini")
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
SPOKEN = pytest.mark.parametrize("dialect", DIALECTS)
TOOLS = [{"type": "function", "function": {"name": "lookup"}}]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Answer:
    text: str
    reasoning: str
    tools: list[tuple[str, str]]
    finishes: list[str]
    tokens: int | None


@dataclass
class Provider:
    """The emulator on a socket, and a client that reads it as the gateway would."""

    emulator: Emulator
    base: str
    session: aiohttp.ClientSession

    async def ask(self, dialect: str, model: str, *, stream: bool, **fields: Any) -> Answer:
        body = {"model": "route", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **fields}
        call = chat_call(parse_chat(json.dumps(body).encode()))
        made = module(dialect).make(Capabilities())
        sent: HttpCall = made.encode(call, model, None)
        root = "/v1beta/" if dialect == "gemini" else "/v1/"
        async with self.session.post(self.base + root + sent.path, data=sent.body) as answer:
            if answer.status != 200:
                raise made.refusal(
                    answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()
                )
            decoder = made.decoder(call, answer.headers["content-type"], None)
            events: list[Event] = []
            async for data in answer.content.iter_any():
                events += decoder.feed(data)
            events += decoder.finish()
        usage = [event.usage for event in events if event.usage is not None]
        return folded(events, usage[-1].completion_tokens if usage else None)


def folded(events: list[Event], tokens: int | None) -> Answer:
    made = Answer("", "", [], [], tokens)
    for event in events:
        for choice in json.loads(event.data)["choices"] if event.data else ():
            said = choice.get("delta") or choice.get("message") or {}
            made.text += said.get("content") or ""
            made.reasoning += said.get("reasoning_content") or ""
            for call in said.get("tool_calls") or ():
                if "id" in call:
                    made.tools.append((call["function"]["name"], ""))
                name, arguments = made.tools[-1]
                made.tools[-1] = (name, arguments + call["function"].get("arguments", ""))
            made.finishes += [choice["finish_reason"]] if choice["finish_reason"] else []
    return made


@pytest.fixture
async def provider(anyio_backend: str) -> AsyncIterator[Provider]:
    emulator = Emulator()
    runner = web.AppRunner(emulator.app(), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Provider(emulator, f"http://127.0.0.1:{runner.addresses[0][1]}", session)
    await runner.cleanup()


@SPOKEN
@STREAMED
async def test_words(provider: Provider, dialect: str, stream: bool) -> None:
    found = await provider.ask(dialect, "words-3", stream=stream)
    assert found == Answer("word0 word1 word2 ", "", [], ["stop"], 3)
    (served,) = provider.emulator.served
    assert (served.prompt_tokens, served.completion_tokens, served.complete) == (7, 3, True)
    assert (served.dialect, served.stream) == (dialect, stream)


@SPOKEN
@STREAMED
async def test_kinds(provider: Provider, dialect: str, stream: bool) -> None:
    called = await provider.ask(dialect, "tool-words-2", stream=stream, tools=TOOLS)
    ((name, arguments),) = called.tools
    assert (name, json.loads(arguments), called.finishes) == ("lookup", {"words": ["word0", "word1"]}, ["tool_calls"])
    bound = await provider.ask(dialect, "json-2", stream=stream)
    assert json.loads(bound.text) == {"words": ["word0", "word1"]}
    thought = await provider.ask(dialect, "think-words-1", stream=stream)
    assert (thought.reasoning, thought.text) == ("let me think", "word0 ")


@SPOKEN
@STREAMED
async def test_an_agents_model(provider: Provider, dialect: str, stream: bool) -> None:
    assert (await provider.ask(dialect, "agent", stream=stream)).text == "It is sunny in Paris."
    called = await provider.ask(dialect, "agent", stream=stream, tools=TOOLS)
    ((name, arguments),) = called.tools
    assert (name, json.loads(arguments), called.finishes) == ("lookup", {"city": "Paris"}, ["tool_calls"])
    call = {"id": "call_0", "type": "function", "function": {"name": "lookup", "arguments": arguments}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "sunny"},
    ]
    answered = await provider.ask(dialect, "agent", stream=stream, tools=TOOLS, messages=turns)
    assert (answered.text, answered.finishes) == ("It is sunny in Paris.", ["stop"])
    schema = {"name": "city", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    wanted = {"type": "json_schema", "json_schema": schema}
    bound = await provider.ask(dialect, "agent", stream=stream, response_format=wanted)
    assert json.loads(bound.text) == {"city": "Paris"}


@pytest.mark.parametrize("dialect", ["openai", "gemini"])
async def test_seeds_and_choices(provider: Provider, dialect: str) -> None:
    texts = [(await provider.ask(dialect, "seeded-8", stream=True, seed=seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2] and len(texts[0].split()) == 8
    assert (await provider.ask(dialect, "words-1", stream=True, n=2)).finishes == ["stop", "stop"]


@SPOKEN
@pytest.mark.parametrize("script", ["words-5", "json-words-5"])
async def test_a_partial_answer(provider: Provider, dialect: str, script: str) -> None:
    whole = (await provider.ask(dialect, script, stream=True)).text
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": whole[:15]}]
    over = await provider.ask(dialect, f"startover-{script}", stream=True, messages=begun)
    assert over.text == whole
    goes_on = await provider.ask(dialect, f"prefill-{script}", stream=True, messages=begun)
    assert whole[:15] + goes_on.text == whole
    again = [*begun, {"role": "user", "content": "repeat the end and go on"}]
    anchored = await provider.ask(dialect, f"anchor-{script}", stream=True, messages=again)
    assert anchored.text == whole
    with pytest.raises(RefusedError) as caught:
        await provider.ask(dialect, f"noprefill-{script}", stream=True, messages=begun)
    assert caught.value.upstream_status == 400
    assert (await provider.ask(dialect, f"noprefill-{script}", stream=True)).text == whole


@SPOKEN
@STREAMED
async def test_refusals(provider: Provider, dialect: str, stream: bool) -> None:
    async def error(model: str) -> RefusedError:
        with pytest.raises(RefusedError) as caught:
            await provider.ask(dialect, model, stream=stream)
        return caught.value

    assert (await error("limit-7")).retry_after == 7
    told = await error("status-429")
    assert (told.code, told.retry_after) == ("rate_limit_exceeded", None)
    assert (await error("status-503")).status == 503
    assert (await error("filter")).code == "content_filter"
    assert (await error("context")).code == "context_length_exceeded"
    assert (await error("once-500")).upstream_status == 500
    assert (await provider.ask(dialect, "once-500", stream=stream)).finishes == ["stop"]
    ups = []
    for _ in range(6):
        try:
            await provider.ask(dialect, "flap-2-1", stream=stream)
            ups.append(True)
        except RefusedError:
            ups.append(False)
    assert ups == [False, False, True] * 2


@SPOKEN
@STREAMED
@pytest.mark.parametrize("kind", ["", "tool-", "json-"])
async def test_answers_that_break(provider: Provider, dialect: str, stream: bool, kind: str) -> None:
    """Not one of them may pass for a complete answer."""
    for script in ("cut-2", "drop-2", "errin-2", "garbage-2", "truncated-2", "nofinish-2", "html", "reset"):
        with pytest.raises((UpstreamError, aiohttp.ClientError)):
            await provider.ask(dialect, kind + script, stream=stream, tools=TOOLS)
        assert not any(served.complete for served in provider.emulator.served), script


@SPOKEN
async def test_what_breaks_is_billed_for_what_was_sent(provider: Provider, dialect: str) -> None:
    with pytest.raises((BrokenError, aiohttp.ClientError)):
        await provider.ask(dialect, "cut-4", stream=True)
    with pytest.raises(MalformedError):
        await provider.ask(dialect, "garbage-2", stream=True)
    async with provider.session.get(f"{provider.base}/served") as answer:
        bill = await answer.json()
    assert [(row["completion_tokens"], row["prompt_tokens"], row["complete"]) for row in bill] == [
        (4, 7, False),
        (2, 7, False),
    ]


@SPOKEN
@STREAMED
async def test_endless_lines_are_cut_off_by_the_reader(provider: Provider, dialect: str, stream: bool) -> None:
    with pytest.raises(MalformedError):
        await provider.ask(dialect, "endless-1", stream=stream)


@SPOKEN
@STREAMED
@pytest.mark.parametrize("script", ["silent", "headers", "stall-1"])
async def test_silence(provider: Provider, dialect: str, stream: bool, script: str) -> None:
    asking = asyncio.ensure_future(provider.ask(dialect, script, stream=stream))
    while not provider.emulator.requests:
        await asyncio.sleep(0.001)
    done, _ = await asyncio.wait([asking], timeout=0.05)
    assert not done
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    while provider.emulator.open:
        await asyncio.sleep(0.001)


@SPOKEN
async def test_the_last_words_may_be_missing(provider: Provider, dialect: str) -> None:
    if dialect == "anthropic":
        with pytest.raises(BrokenError):
            await provider.ask(dialect, "nodone-2", stream=True)
    else:
        assert (await provider.ask(dialect, "nodone-2", stream=True)).finishes == ["stop"]


@SPOKEN
@STREAMED
async def test_counts_that_lie(provider: Provider, dialect: str, stream: bool) -> None:
    assert (await provider.ask(dialect, "wrong-3", stream=stream)).tokens == 30
    assert provider.emulator.served[0].completion_tokens == 3


@SPOKEN
async def test_a_picture_is_told_by_its_type_and_sum(provider: Provider, dialect: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(b'png').decode()}"}}
    asked = [{"role": "user", "content": [{"type": "text", "text": "Name it:"}, picture]}]
    answer = await provider.ask(dialect, "sentence", stream=False, messages=asked)
    assert answer.text == f"image/png {hashlib.sha256(b'png').hexdigest()[:16]}"


async def test_slow_words_come_one_by_one(provider: Provider) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await provider.ask("openai", "slow-3-20", stream=True)
    assert loop.time() - began >= 0.06


async def test_half_open_takes_connections_and_reads_nothing() -> None:
    with HalfOpen() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.write(b"POST / HTTP/1.1\r\n\r\n")
        await writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        writer.close()
        await writer.wait_closed()

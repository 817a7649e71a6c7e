"""Endpoints that are handed on to targets that have them: with the real SDK, before the emulated provider."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError

from lumen.config.schema import Config, Route, Target
from lumen.core.errors import UpstreamError
from lumen.core.money import DOLLAR, Price
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins, Table
from lumen.providers._passing import Parts
from lumen.providers.base import Capabilities, Dialect, module
from lumen.wire.answers import Units
from lumen.wire.call import Call, Operation
from lumen.wire.passed import ImageRequest
from tests.emulator.more import PIECE
from tests.gateway.conftest import Up
from tests.ledger.ledgers import written

pytestmark = pytest.mark.anyio

ABLE = Capabilities(
    tokenize=True,
    rerank=True,
    moderations=True,
    image_generation=True,
    image_edits=True,
    transcription=True,
    speech=True,
)
PRICE = Price(input=1_000_000, output=2_000_000, per_image=DOLLAR // 25, per_audio_second=DOLLAR // 10_000)
AUDIO = bytes(range(256)) * 1000


def able(model: str) -> tuple[Dialect, Capabilities, Offer]:
    return module("openai").make(ABLE), ABLE, Offer(f"more/{model}", "more", model, PRICE)


@pytest.fixture
def more(up: Up) -> Up:
    """The same gateway with a provider that has every endpoint, beside one that has none of them."""
    upstream = up.state.table.find("fake/words-1").targets[0].upstream
    plain = up.state.table._origins.remote["fake"]
    routes = {
        "mixed": Route((Target("fake/words-1"), Target("more/words-2")), policy="ordered"),
        "failover": Route((Target("more/status-503"), Target("more/words-3")), policy="ordered"),
        "smart": Route((Target("more/words-2"), Target("more/words-3")), policy="auto"),
    }
    server = replace(up.state.config.server, max_body=1024 * 1024, body_timeout=30.0)
    config = Config(server=server, routes=routes, timeouts=up.state.config.timeouts)
    up.state.config = config
    up.state.table = Table(config, Origins({}, {"fake": plain, "more": Origin(upstream, able)}), 1)
    up.state.billing.configure(config, up.state.ring)
    return up


async def rows(up: Up) -> list[dict[str, Any]]:
    """The attempts that were booked, in order."""
    names = ("target", "operation", "outcome", "input", "output", "cost", "flags")
    found = await written(up.state.billing._ledger, f"SELECT {', '.join(names)} FROM attempts ORDER BY id")
    return [dict(zip(names, row, strict=True)) for row in found]


def client(up: Up) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{up.url}/v1", api_key=up.secret, max_retries=0)


async def test_moderations(more: Up) -> None:
    async with client(more) as openai:
        answer = await openai.moderations.create(model="mixed", input=["a", "b"])
    assert [one.flagged for one in answer.results] == [False, False]
    assert more.emulator.requests[-1] == {"model": "words-2", "input": ["a", "b"]}


async def test_a_route_without_such_a_target_says_what_is_missing(more: Up) -> None:
    async with client(more) as openai:
        with pytest.raises(BadRequestError, match="'moderations'") as caught:
            await openai.moderations.create(model="fake/words-1", input="a")
        assert caught.value.code == "unsupported_by_route"
        with pytest.raises(NotFoundError):
            await openai.moderations.create(model="nowhere", input="a")
        headers = {"x-lumen-pin": "fake/words-1"}
        with pytest.raises(BadRequestError, match="cannot serve the endpoint"):
            await openai.moderations.create(model="mixed", input="a", extra_headers=headers)
    assert more.emulator.requests == []


async def test_images_go_on_elsewhere_and_are_billed_by_tokens_and_by_image(more: Up) -> None:
    async with client(more) as openai:
        answer = await openai.images.generate(model="failover", prompt="a cat", n=2)
    assert [one.b64_json for one in answer.data or ()] == ["aW1hZ2U="] * 2
    *failed, made = await rows(more)
    assert {(one["target"], one["outcome"], one["cost"]) for one in failed} == {
        ("more/status-503", "upstream_error", 0)
    }
    assert (made["operation"], made["input"], made["output"]) == ("images/generations", 5, 100)
    assert made["cost"] == 5 * 1_000_000 + 100 * 2_000_000 + 2 * DOLLAR // 25
    assert made["flags"] == 0


async def test_images_that_are_not_counted_are_estimated_and_marked(more: Up) -> None:
    async with client(more) as openai:
        await openai.images.generate(model="more/nocount", prompt="a cat")
    (made,) = await rows(more)
    assert made["flags"] == 1
    assert made["cost"] >= DOLLAR // 25
    assert made["output"] == 0


# The SDK has marked one of these as old.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_image_edits_are_forms_that_keep_their_bytes(more: Up) -> None:
    async with client(more) as openai:
        answer = await openai.images.edit(model="mixed", image=("a.png", AUDIO), prompt="wider", n=3)
        assert len(answer.data or ()) == 3
        await openai.images.create_variation(model="mixed", image=("a.png", AUDIO))
    edit, variation = more.emulator.requests
    assert edit == {"model": "words-2", "image": len(AUDIO), "prompt": "wider", "n": "3"}
    assert variation == {"model": "words-2", "image": len(AUDIO)}


# The SDK has marked one of these as old.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_transcriptions_are_billed_by_the_second(more: Up) -> None:
    async with client(more) as openai:
        answer = await openai.audio.transcriptions.create(model="failover", file=("a.wav", AUDIO), language="en")
        text = await openai.audio.translations.create(model="mixed", file=("a.wav", AUDIO), response_format="text")
    assert answer.text == "hello"
    assert text == "hello"
    assert more.emulator.requests[-2] == {"model": "words-3", "file": len(AUDIO), "language": "en"}
    made = next(row for row in await rows(more) if row["target"] == "more/words-3")
    assert made["cost"] >= 3 * DOLLAR // 10_000
    assert made["operation"] == "audio/transcriptions"


async def test_images_are_streamed_and_metered_as_whole_ones_are(more: Up) -> None:
    async with client(more) as openai:
        stream = await openai.images.generate(model="failover", prompt="a cat", stream=True, partial_images=1)
        parts = [part async for part in stream]
        assert [part.type for part in parts] == ["image_generation.partial_image", "image_generation.completed"]
        assert {part.b64_json for part in parts} == {"aW1hZ2U="}
        edited = await openai.images.edit(model="mixed", image=("a.png", AUDIO), prompt="wider", stream=True, n=2)
        assert [part.type async for part in edited].count("image_edit.completed") == 2
    assert more.emulator.requests[-2]["partial_images"] == 1
    made, two = [row for row in await rows(more) if row["outcome"] == "ok"]
    assert (made["input"], made["output"], made["flags"]) == (5, 100, 0)
    assert made["cost"] == 5 * 1_000_000 + 100 * 2_000_000 + DOLLAR // 25
    # What each image is told to have cost is added up.
    assert (two["input"], two["output"]) == (10, 200) and two["cost"] == 2 * made["cost"]


async def test_transcripts_are_streamed(more: Up) -> None:
    async with client(more) as openai:
        stream = await openai.audio.transcriptions.create(model="failover", file=("a.wav", AUDIO), stream=True)
        parts = [part async for part in stream]
    assert [part.type for part in parts] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert parts[-1].text == "hello"  # type: ignore[union-attr]
    made = (await rows(more))[-1]
    assert (made["input"], made["output"], made["outcome"]) == (14, 2, "ok")


async def test_a_stream_has_its_names_and_headers(more: Up) -> None:
    headers = {"Authorization": f"Bearer {more.secret}"}
    body = {"model": "failover", "prompt": "x", "stream": True}
    async with more.session.post(f"{more.url}/v1/images/generations", json=body, headers=headers) as answer:
        text = (await answer.read()).decode()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-lumen-target"] == "more/words-3"
    frames = text.removesuffix("\n\n").split("\n\n")
    assert [frame.split("\n")[0] for frame in frames] == [
        "event: image_generation.partial_image", "event: image_generation.completed"
    ]  # fmt: skip


async def test_what_a_target_does_not_stream_comes_as_a_stream_all_the_same(more: Up) -> None:
    async with client(more) as openai:
        stream = await openai.audio.transcriptions.create(model="more/whole", file=("a.wav", AUDIO), stream=True)
        assert [(part.type, part.text) async for part in stream] == [("transcript.text.done", "hello")]  # type: ignore[union-attr]
        images = await openai.images.generate(model="more/whole", prompt="x", stream=True, n=2)
        assert [part.type async for part in images] == ["image_generation.completed"] * 2
    assert [row["outcome"] for row in await rows(more)] == ["ok", "ok"]


@pytest.mark.parametrize("model", ["breaks", "short"])
async def test_a_stream_that_breaks_says_so_and_is_not_begun_again(more: Up, model: str) -> None:
    async with client(more) as openai:
        stream = await openai.images.generate(model=f"more/{model}", prompt="a cat", stream=True)
        kinds = []
        with pytest.raises(Exception) as caught:
            async for part in stream:
                kinds.append(part.type)
    assert isinstance(caught.value, APIError | aiohttp.ClientError | OSError) or "peer closed" in str(caught.value)
    assert kinds == ["image_generation.partial_image"] and len(more.emulator.requests) == 1
    (row,) = await rows(more)
    assert row["outcome"] != "ok" and row["cost"] > 0


async def test_a_large_form_passes_a_slow_target(more: Up) -> None:
    data = AUDIO * 3
    async with client(more) as openai:
        answer = await openai.audio.transcriptions.create(model="more/words-1", file=("a.wav", data))
        assert answer.text == "hello"
        with pytest.raises(APIError) as caught:
            await openai.audio.transcriptions.create(model="more/words-1", file=("a.wav", data * 2))
    assert getattr(caught.value, "status_code", 0) == 413
    assert more.emulator.requests[-1]["file"] == len(data)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"file": AUDIO}, "model"), ({"model": "mixed"}, "file"), ({"model": "mixed", "stream": "perhaps"}, None)],
)
async def test_wrong_forms_are_refused(more: Up, fields: dict[str, Any], param: str | None) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value, filename="a" if isinstance(value, bytes) else None)
    if param is None:
        form.add_field("file", AUDIO, filename="a")
    headers = {"Authorization": f"Bearer {more.secret}"}
    url = f"{more.url}/v1/audio/transcriptions"
    async with more.session.post(url, data=form, headers=headers) as answer:
        body = await answer.json()
    assert answer.status == 400
    assert body["error"]["param"] == (param or "stream")
    async with more.session.post(url, json={"model": "mixed"}, headers=headers) as answer:
        assert answer.status == 415


async def test_speech_is_handed_on_as_it_comes(more: Up) -> None:
    async with client(more) as openai:
        made = await openai.audio.speech.create(model="failover", voice="alloy", input="Hello.")
        assert made.content == PIECE * 3
        assert made.response.headers["content-type"] == "audio/mpeg"
        assert made.response.headers["x-lumen-target"] == "more/words-3"
        assert more.emulator.requests[-1] == {"model": "words-3", "voice": "alloy", "input": "Hello."}
        row = (await rows(more))[-1]
        assert (row["outcome"], row["output"], row["flags"]) == ("ok", 0, 1)


async def test_speech_that_breaks_is_cut_short_and_not_begun_again(more: Up) -> None:
    headers = {"Authorization": f"Bearer {more.secret}"}
    body = {"model": "more/cut-2", "voice": "a", "input": "Hello."}
    with pytest.raises(aiohttp.ClientPayloadError):
        async with more.session.post(f"{more.url}/v1/audio/speech", json=body, headers=headers) as answer:
            assert answer.status == 200
            await answer.read()
    assert len(more.emulator.requests) == 1
    assert (await rows(more))[-1]["outcome"] != "ok"


async def test_speech_waits_for_a_client_that_does_not_read(more: Up) -> None:
    headers = {"Authorization": f"Bearer {more.secret}"}
    body = {"model": "more/endless", "voice": "a", "input": "Hello."}
    async with more.session.post(f"{more.url}/v1/audio/speech", json=body, headers=headers) as answer:
        assert answer.status == 200
        emulator, before = more.emulator.more, -1
        while not emulator.sent or emulator.sent != before:
            before = emulator.sent
            await asyncio.sleep(0.1)
        assert 0 < before < 32 * 1024 * 1024
        answer.close()


async def test_rerank_and_auto(more: Up) -> None:
    body = {"model": "smart", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}
    status, answer, headers = await more.post("/v1/rerank", body)
    assert (status, len(answer["results"])) == (200, 1)
    assert headers["x-lumen-route"] == "smart"
    (row,) = await rows(more)
    assert (row["input"], row["output"], row["flags"]) == (11, 0, 0)
    status, answer, _ = await more.post("/v1/rerank", {**body, "documents": []})
    assert (status, answer["error"]["param"]) == (400, "documents")
    status, answer, _ = await more.post("/v1/rerank", {**body, "model": "more/html"})
    assert status == 502


async def test_tokens(more: Up) -> None:
    status, answer, _ = await more.post("/tokenize", {"model": "mixed", "prompt": "one two three"})
    assert (status, answer["count"]) == (200, 3)
    status, answer, _ = await more.post("/detokenize", {"model": "mixed", "tokens": [4, 5]})
    assert (status, answer["prompt"]) == (200, "t4 t5")
    status, answer, _ = await more.post("/tokenize", {"model": "mixed"})
    assert (status, answer["error"]["param"]) == (400, "prompt")
    status, answer, _ = await more.post("/tokenize", {"model": "fake/words-1", "prompt": "x"})
    assert (status, answer["error"]["code"]) == (400, "unsupported_by_route")
    assert [(row["input"], row["output"], row["cost"], row["flags"]) for row in await rows(more)] == [(0, 0, 0, 0)] * 2
    status, _, _ = await more.post("/tokenize", {"model": "mixed", "prompt": "x"}, headers={})
    assert status == 401


async def test_count_tokens(more: Up) -> None:
    body = {"model": "mixed", "system": "be brief", "messages": [{"role": "user", "content": "one two three"}]}
    status, answer, headers = await more.post("/v1/messages/count_tokens", body)
    assert (status, answer) == (200, {"input_tokens": 5})
    assert "x-lumen-estimated" not in headers
    assert more.emulator.requests[-1]["add_generation_prompt"] is True
    status, answer, headers = await more.post("/v1/messages/count_tokens", {**body, "model": "fake/words-1"})
    assert headers["x-lumen-estimated"] == "true"
    assert answer == {"input_tokens": -(-len(json.dumps({**body, "model": "fake/words-1"})) // 4)}
    status, answer, _ = await more.post("/v1/messages/count_tokens", {"model": "mixed"})
    assert (status, answer["type"]) == (400, "error")


FRAMES = b"".join(
    b"event: %b\ndata: %b\n\n" % (kind, data)
    for kind, data in (
        (b"image_edit.partial_image", b'{"type":"image_edit.partial_image","b64_json":"YQ=="}'),
        (b"image_edit.completed", b'{"type":"image_edit.completed","usage":{"input_tokens":3,"output_tokens":4}}'),
    )
)


@given(st.lists(st.integers(0, len(FRAMES))))
def test_a_stream_is_read_however_its_bytes_were_cut(cuts: list[int]) -> None:
    call = Call(Operation.IMAGE_EDIT, ImageRequest(model="m", prompt="x", stream=True), True, False, 1)
    decoder, events, before = Parts(call), [], 0
    for cut in (*sorted(cuts), len(FRAMES)):
        events += decoder.feed(FRAMES[before:cut])
        before = cut
    events += decoder.finish()
    assert b"".join(event.data for event in events) == FRAMES
    usage = events[-1].usage
    assert isinstance(usage, Units) and (usage.prompt_tokens, usage.completion_tokens, usage.images) == (3, 4, 1)
    assert decoder.done and [event.finished for event in events] == [(), (0,)]


@given(st.binary(max_size=200))
@example(b"a\\n")
@example(b"a.completed\\n\\n")
def test_no_stream_makes_a_frame_that_is_not_one(noise: bytes) -> None:
    decoder = Parts(Call(Operation.IMAGE, ImageRequest(model="m", prompt="x", stream=True), True, False, 1))
    for given_ in (noise, b"data: " + noise + b"\n\n", b'data: {"type": "' + noise + b'"}\n\n'):
        try:
            events = [*decoder.feed(given_), *decoder.finish()]
        except UpstreamError:
            return
        for event in events:
            assert event.data.startswith(b"event: ") and event.data.endswith(b"\n\n")
            assert b"\n\n" not in event.data[:-2]

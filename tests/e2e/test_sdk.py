"""The OpenAI SDK against the real engine."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-sdk")]
MODEL = "lumen-tiny"
WHAT: list[Any] = [{"role": "user", "content": "What is Lumen?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_chat(box: Box) -> None:
    answer = box.client().chat.completions.create(model=MODEL, messages=WHAT, temperature=0, max_tokens=60)
    text = answer.choices[0].message.content
    assert text and any(word in text for word in ("Lumen", "endpoint", "model"))
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_answer_headers(box: Box) -> None:
    raw = box.client().chat.completions.with_raw_response.create(model="lumen/auto", messages=WHAT, max_tokens=4)
    assert raw.headers["x-request-id"].startswith("req_")
    assert (raw.headers["x-lumen-route"], raw.headers["x-lumen-target"]) == ("lumen/auto", MODEL)
    assert raw.headers["openai-processing-ms"].isdigit()


def test_tokens_are_those_that_the_model_sees(box: Box) -> None:
    asked = box.client().chat.completions.create(model=MODEL, messages=WHAT, max_tokens=1)
    client = box.client(base_url=box.url.removesuffix("/v1"))

    def post(path: str, **body: Any) -> Any:
        return client.post(path, cast_to=object, body={"model": MODEL, **body})

    assert post("/v1/messages/count_tokens", messages=WHAT)["input_tokens"] == asked.usage.prompt_tokens  # type: ignore[union-attr]
    tokens = post("/tokenize", prompt="Grüße, 日本!")["tokens"]
    assert post("/detokenize", tokens=tokens)["prompt"] == "Grüße, 日本!"


def test_stream_equals_whole(box: Box) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": WHAT, "temperature": 0, "max_tokens": 50}
    client = box.client()
    whole = client.chat.completions.create(**asked)
    stream = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert text == whole.choices[0].message.content
    assert len({c.id for c in stream}) == 1
    assert sum(bool(c.choices and c.choices[0].delta.role) for c in stream) == 1
    assert [c.choices[0].finish_reason for c in stream if c.choices and c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert stream[-1].choices == [] and stream[-1].usage and whole.usage
    assert stream[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_cached_tokens_of_a_repeated_prompt(box: Box) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Remember these words. " * 30}],
        "max_tokens": 2,
    }
    client = box.client()
    client.chat.completions.create(**asked)
    usage = client.chat.completions.create(**asked).usage
    assert usage and usage.prompt_tokens_details
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached and usage.prompt_tokens - 2 <= cached < usage.prompt_tokens


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tools(box: Box, choice: Any) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [WEATHER],
        "tool_choice": choice,
        "temperature": 0,
        "max_tokens": 120,
    }
    client = box.client()
    answer = client.chat.completions.create(**asked)
    calls = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and calls
    assert calls[0].function.name == "get_weather"
    assert isinstance(json.loads(calls[0].function.arguments)["city"], str)
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert streamed and streamed[0].function.name == "get_weather"
    assert streamed[0].function.arguments == calls[0].function.arguments


def test_a_tool_the_model_was_taught_is_called_by_itself(box: Box) -> None:
    answer = box.client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        temperature=0,
        max_tokens=120,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls and json.loads(calls[0].function.arguments) == {"city": "Paris"}


def test_json_schema(box: Box) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    answer = box.client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give me a JSON object with name and age."}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}},
        temperature=0,
        max_tokens=200,
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert set(found) == {"name", "age"} and isinstance(found["age"], int)


def test_json_object(box: Box) -> None:
    answer = box.client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give me a JSON object with name and age."}],
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=300,
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
    else:
        assert (answer.choices[0].message.content or "").lstrip().startswith("{")


def test_embeddings(box: Box) -> None:
    client = box.client()
    answer = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    assert len(answer.data) == 2
    vector = answer.data[0].embedding
    assert math.isclose(sum(x * x for x in vector), 1.0, rel_tol=1e-3)
    packed: Any = client.embeddings.with_raw_response.create(model=MODEL, input="one", encoding_format="base64")
    text = json.loads(packed.text)["data"][0]["embedding"]
    unpacked = struct.unpack(f"<{len(vector)}f", base64.b64decode(text))
    assert all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in zip(vector, unpacked, strict=True))


def test_n_and_seed(box: Box) -> None:
    story = [{"role": "user", "content": "Tell me a long story about anything."}]
    asked: dict[str, Any] = {"model": MODEL, "messages": story, "n": 3, "seed": 11, "temperature": 2, "max_tokens": 24}
    client = box.client()
    first = [c.message.content for c in client.chat.completions.create(**asked).choices]
    again = [c.message.content for c in client.chat.completions.create(**asked).choices]
    assert len(first) == 3 and len(set(first)) > 1
    assert [c[:10] for c in first if c] == [c[:10] for c in again if c]


def test_logprobs(box: Box) -> None:
    answer = box.client().chat.completions.create(
        model=MODEL, messages=WHAT, logprobs=True, top_logprobs=3, temperature=0, max_tokens=8
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.content and len(logprobs.content) == 8
    for token in logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)


def test_stop_strings(box: Box) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": WHAT, "temperature": 0, "max_tokens": 50}
    client = box.client()
    whole = client.chat.completions.create(**asked).choices[0].message.content or ""
    # Over the border of two tokens, wherever the vocabulary has put it.
    stop = whole[17:24]
    answer = client.chat.completions.create(**asked, stop=[stop])
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_legacy_completions(box: Box) -> None:
    client = box.client()
    answer = client.completions.create(model=MODEL, prompt="Lumen is", max_tokens=5, temperature=0)
    assert answer.choices[0].text
    parts = [
        c.choices[0].text
        for c in client.completions.create(model=MODEL, prompt="Lumen is", max_tokens=5, temperature=0, stream=True)
        if c.choices
    ]
    assert "".join(parts) == answer.choices[0].text


def test_models(box: Box) -> None:
    client = box.client()
    assert {MODEL, "lumen/auto"} <= {m.id for m in client.models.list()}
    assert client.models.retrieve("lumen/auto").id == "lumen/auto"


def test_typed_errors(box: Box) -> None:
    client = box.client()
    with pytest.raises(openai.AuthenticationError):
        box.client().with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=WHAT)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}])
    assert long.value.code == "context_length_exceeded"
    numbers = [int(w) for w in long.value.message.replace(",", " ").replace(".", " ").split() if w.isdigit()]
    assert any(n > 20_000 for n in numbers) and len(numbers) >= 2
    bad: Any = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "zip"}}}},
    }
    for field in ({"tools": [bad], "tool_choice": "required"}, {"temperature": 9}, {"logit_bias": {"999999999": 1}}):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model=MODEL, messages=WHAT, max_tokens=4, **field)
        assert client.chat.completions.create(model=MODEL, messages=WHAT, max_tokens=1).choices


def test_parallel_streams(box: Box) -> None:
    client = box.client()

    def one(i: int) -> str:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"What is {i} plus 1?"}],
            stream=True,
            max_tokens=24,
            temperature=0,
        )
        parts = list(stream)
        assert parts[-1].choices[0].finish_reason
        return "".join(c.choices[0].delta.content or "" for c in parts)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(32)))
    assert all(answers)


def test_cancelled_streams_free_their_slots(box: Box) -> None:
    client = box.client()
    for _ in range(24):
        stream = client.chat.completions.create(model=MODEL, messages=WHAT, stream=True, max_tokens=3000)
        next(iter(stream))
        stream.close()
    until(lambda: box.status()["requests"]["in_flight"] == 0, "cancelled requests to end", 20)
    assert client.chat.completions.create(model=MODEL, messages=WHAT, max_tokens=2).choices


def test_a_killed_worker_does_not_break_the_stream(box: Box) -> None:
    client = box.client()
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Tell me about Lumen in detail."}],
        "temperature": 0,
        "max_tokens": 120,
    }
    unbroken = client.chat.completions.create(**asked).choices[0].message.content or ""
    stream = client.chat.completions.create(**asked, stream=True)
    text, ids, finish = "", set(), None
    (worker,) = box.workers()
    for i, chunk in enumerate(stream):
        if i == 8:
            os.kill(worker, signal.SIGKILL)
        ids.add(chunk.id)
        text += chunk.choices[0].delta.content or ""
        finish = chunk.choices[0].finish_reason or finish
    assert finish in ("stop", "length")
    assert len(ids) == 1
    assert text == unbroken
    until(lambda: box.workers() != [worker], "its end, noticed")
    assert client.chat.completions.create(model=MODEL, messages=WHAT, max_tokens=2).choices

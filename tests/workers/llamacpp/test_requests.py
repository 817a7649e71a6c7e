"""Bad requests are refused with the field's name, and the next good one works; other routes."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest

from tests.workers.llamacpp.client import NAME, Worker, together

GOOD = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"role": "queen", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": 5}]}]}, "messages[0].tool_calls[0].function"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}]},
        "messages[0].tool_calls[0].function",
    ),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": "2"}, "n"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"min_p": -1}, "min_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": 1}, "logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stop": 5}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": []}, "logit_bias"),
    ({"seed": "x"}, "seed"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"repeat_penalty": 0}, "repeat_penalty"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function"}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"resume_token_ids": [1 << 40]}, "resume_token_ids"),
    ({"resume_token_ids": [5], "n": 2}, "resume_token_ids"),
    ({"response_format": "json"}, "response_format"),
    ({"cache_salt": 5}, "cache_salt"),
]


@pytest.mark.parametrize(("change", "param"), BAD, ids=[f"{p}-{i}" for i, (_c, p) in enumerate(BAD)])
def test_a_bad_field_is_a_400_that_names_it(worker: Worker, change: dict[str, Any], param: str) -> None:
    answer = worker.post("/v1/chat/completions", **{**GOOD, **change})
    assert (answer.status, answer.error["param"], answer.error["type"]) == (400, param, "invalid_request_error")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"5", b'"x"', b"\xff\xfe", b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 5000,
        b'{"max_tokens": ' + b"9" * 5000 + b"}", b'{"temperature": NaN}', b'{"model": "\\ud800"}',
    ],
)  # fmt: skip
def test_what_is_not_a_json_object_is_a_400(worker: Worker, raw: bytes) -> None:
    answer = worker.request("POST", "/v1/chat/completions", raw=raw)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


def test_the_engine_lives_on_after_all_of_that(worker: Worker) -> None:
    assert worker.post("/v1/chat/completions", **GOOD).status == 200
    assert worker.get("/health")["status"] == "ok"


def test_unknown_paths_methods_and_models(worker: Worker) -> None:
    assert worker.request("GET", "/nope").error["type"] == "not_found_error"
    assert worker.request("GET", "/v1/chat/completions").status == 405
    other = worker.request("POST", "/v1/chat/completions", {**GOOD, "model": "another"})
    assert (other.status, other.error["code"], other.error["param"]) == (404, "model_not_found", "model")
    assert worker.request("POST", "/v1/chat/completions", {**GOOD, "chat_template": "{{ 1/0 }}"}).status == 200


def test_a_body_over_the_limit_is_a_413(worker: Worker) -> None:
    answer = worker.request("POST", "/v1/completions", raw=b'{"prompt": "' + b"a" * (33 << 20) + b'"}')
    assert answer.status == 413
    assert answer.error["type"] == "invalid_request_error"


def test_a_prompt_beyond_the_context_is_refused_with_both_counts(worker: Worker) -> None:
    n_ctx = worker.get("/props")["n_ctx"]
    answer = worker.complete([300] * n_ctx)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert f"{n_ctx} tokens" in answer.error["message"]
    chat = worker.chat("word " * 3 * n_ctx)
    assert chat.error["code"] == "context_length_exceeded"
    assert chat.error["param"] == "messages"
    long = worker.post("/v1/embeddings", input=[300] * (n_ctx + 1))
    assert long.error["code"] == "context_length_exceeded"


def test_completions_refuse_what_they_cannot_do(worker: Worker) -> None:
    for change, param in (
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt"),
        ({"prompt": [1 << 30]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 4}, "best_of"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ):
        answer = worker.post("/v1/completions", max_tokens=1, **change)
        assert (answer.status, answer.error["param"]) == (400, param), change


def test_a_schema_that_does_not_compile_is_a_400_and_the_engine_lives(worker: Worker) -> None:
    loop: dict[str, Any] = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    for schema in ({"type": "nonsense"}, loop, {"type": "string", "pattern": "("}):
        form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        answer = worker.chat("Hello", max_tokens=4, response_format=form)
        assert answer.status == 400, schema
        assert answer.error["param"].startswith("response_format")
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        answer = worker.chat("Hello", max_tokens=4, tools=[tool])
        assert answer.status == 400, schema
        assert answer.error["param"].startswith("tools[0]")
    assert worker.chat("Hello", max_tokens=1).status == 200


def test_json_object_and_strict_schema_hold_the_answer(worker: Worker) -> None:
    schema = {
        "type": "object",
        "properties": {
            "word": {"enum": ["größer", "日本", "é"]},
            "list": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            "ok": {"type": "boolean"},
        },
        "required": ["word", "list", "ok"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    for seed in range(4):
        options = {"response_format": form, "temperature": 1.5, "seed": seed, "max_tokens": 300}
        events = worker.stream("/v1/chat/completions", messages=GOOD["messages"], **options)
        pieces = [c["delta"].get("content") or "" for e in events for c in e["choices"]]
        assert not any("\ufffd" in piece for piece in pieces)
        value = json.loads("".join(pieces))
        assert set(value) == {"word", "list", "ok"}
        assert value["word"] in ("größer", "日本", "é")
        assert 2 <= len(value["list"]) <= 3
    answer = worker.chat("Give JSON", response_format={"type": "json_object"}, temperature=0, max_tokens=200)
    if answer.choice["finish_reason"] == "stop":
        assert isinstance(json.loads(answer.choice["message"]["content"]), dict)


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_tool_call_is_a_call(worker: Worker, choice: Any) -> None:
    options = {"tools": [WEATHER], "tool_choice": choice, "temperature": 0.8, "seed": 2, "max_tokens": 200}
    options["parallel_tool_calls"] = False
    whole = worker.chat("What is the weather in Oslo?", **options, cache_prompt=False).choice
    assert whole["finish_reason"] == "tool_calls"
    (call,) = whole["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert set(json.loads(call["function"]["arguments"])) == {"city", "unit"}
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    events = worker.stream("/v1/chat/completions", messages=messages, **options, cache_prompt=False)
    parts = [t for e in events for c in e["choices"] for t in c["delta"].get("tool_calls", [])]
    assert all(part["index"] == 0 for part in parts)
    assert [part["id"] for part in parts if "id" in part] == [call["id"]]
    assert [part["function"]["name"] for part in parts if "name" in part["function"]] == ["get_weather"]
    joined = "".join(part["function"].get("arguments", "") for part in parts)
    assert joined == call["function"]["arguments"]


def test_tools_on_auto_answer_either_way(worker: Worker) -> None:
    for text in ("What is the weather in Oslo?", "What is Lumen?"):
        choice = worker.chat(text, tools=[WEATHER], temperature=0, max_tokens=80).choice
        assert choice["finish_reason"] in ("stop", "tool_calls", "length")
        assert choice["message"].get("tool_calls") or choice["message"]["content"]
    none = worker.chat("What is the weather in Oslo?", tools=[WEATHER], tool_choice="none", temperature=0)
    assert "tool_calls" not in none.choice["message"]


def test_embeddings(worker: Worker) -> None:
    texts = ["A route names its targets.", "A route names targets.", "Cheese and wine are sold here at noon"]
    body = worker.post("/v1/embeddings", input=texts).body
    vectors = [entry["embedding"] for entry in body["data"]]
    size = worker.get("/props")["embedding_size"]
    assert [entry["index"] for entry in body["data"]] == [0, 1, 2]
    assert all(len(vector) == size for vector in vectors)
    assert all(math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-4) for vector in vectors)

    def alike(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert alike(vectors[0], vectors[1]) > alike(vectors[0], vectors[2])
    packed = worker.post("/v1/embeddings", input=texts[0], encoding_format="base64").body["data"][0]["embedding"]
    floats = struct.unpack(f"<{size}f", base64.b64decode(packed))
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(floats, vectors[0], strict=True))
    ids = worker.post("/tokenize", prompt=texts[0]).body["tokens"]
    by_id = worker.post("/v1/embeddings", input=ids).body
    assert alike(by_id["data"][0]["embedding"], vectors[0]) > 0.9999
    assert by_id["usage"] == {"prompt_tokens": len(ids), "total_tokens": len(ids)}
    short = worker.post("/v1/embeddings", input=texts[0], dimensions=8).body["data"][0]["embedding"]
    assert len(short) == 8
    assert math.isclose(sum(x * x for x in short), 1, abs_tol=1e-4)
    long = worker.post("/v1/embeddings", input=["A route names its targets. " * 150]).body
    assert long["usage"]["total_tokens"] > 512
    for change in (
        {"input": ""},
        {"input": []},
        {"input": texts, "dimensions": 10**6},
        {"input": "x", "encoding_format": "hex"},
    ):
        assert worker.post("/v1/embeddings", **change).status == 400


def test_embeddings_and_chats_at_once(worker: Worker) -> None:
    chats = [lambda: worker.chat("What is Lumen?", max_tokens=20).status] * 4
    vectors = [lambda: worker.post("/v1/embeddings", input=["one", "two"] * 8).status] * 4
    assert together(*chats, *vectors) == [200] * 8


def test_props_models_metrics_tokens(worker: Worker) -> None:
    props = worker.get("/props")
    assert props["name"] == NAME
    assert props["slots"] == 8
    assert all(props["capabilities"].values())
    assert [model["id"] for model in worker.get("/v1/models")["data"]] == [NAME]
    text = "Grüße, 日本! <|im_end|>"
    tokens = worker.post("/tokenize", prompt=text).body
    assert tokens["count"] == len(tokens["tokens"])
    assert worker.post("/detokenize", tokens=tokens["tokens"]).body["prompt"] == text
    assert worker.post("/tokenize", prompt=5).error["param"] == "prompt"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    answered = worker.post("/v1/chat/completions", messages=messages, max_tokens=1).body
    counted = worker.post("/tokenize", messages=messages).body
    assert counted["count"] == answered["usage"]["prompt_tokens"] == len(counted["tokens"])
    assert worker.post("/tokenize", messages=[]).error["param"] == "messages"
    worker.post("/v1/completions", prompt="x", max_tokens=2)
    for name in ("requests_running", "kv_cells_total", "prompt_tokens_total", "tokens_per_second"):
        assert worker.metric(name) >= 0
    assert worker.metric("generated_tokens_total") > 0

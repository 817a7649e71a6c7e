"""What a request becomes in the Gemini dialect, field by field, and what it refuses to become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lumen.core.errors import RefusedError
from lumen.providers.base import Capabilities, Resume, module
from lumen.wire.call import completion_call, embedding_call
from lumen.wire.parse import parse_completion, parse_embedding
from tests.providers.asking import call, calling, encoded, refused, tool

PNG = "data:image/png;base64,AAAA"
AUDIO = {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
NEWER, OLDER = "gemini-3-pro", "gemini-2.5-flash"


def image(url: str, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def user(*parts: dict[str, Any] | str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}]


def turn(role: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


def config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


def mode(name: str, **more: Any) -> dict[str, Any]:
    return {"toolConfig": {"functionCallingConfig": {"mode": name, **more}}}


def schema(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", **more}}


def declared(*functions: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": list(functions)}]}


FIELDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("nothing", {}, {}),
    (
        "sampling",
        {"temperature": 2, "top_p": 0.5, "top_k": 4, "seed": -1, "presence_penalty": 1, "frequency_penalty": -1},
        config(temperature=2, topP=0.5, topK=4, seed=-1, presencePenalty=1, frequencyPenalty=-1),
    ),
    ("answers", {"n": 2, "max_completion_tokens": 9}, config(candidateCount=2, maxOutputTokens=9)),
    ("one answer", {"n": 1, "max_tokens": 8}, config(maxOutputTokens=8)),
    ("stops", {"stop": ["x", "y"]}, config(stopSequences=["x", "y"])),
    ("labels", {"user": "u", "metadata": {"k": "v"}, "store": False, "service_tier": "auto"}, {}),
    ("tier", {"service_tier": "flex"}, {"serviceTier": "flex"}),
    ("json", {"response_format": {"type": "json_object"}}, config(responseMimeType="application/json")),
    (
        "schema",
        {"response_format": schema(schema=SCHEMA, description="d")},
        config(responseMimeType="application/json", responseJsonSchema={**SCHEMA, "description": "d"}),
    ),
    ("text", {"response_format": {"type": "text"}}, {}),
    (
        "tools",
        {"tools": [tool(description="d", parameters=SCHEMA), tool("g")], "tool_choice": "auto"},
        declared({"name": "f", "description": "d", "parametersJsonSchema": SCHEMA}, {"name": "g"}),
    ),
    ("strict", {"tools": [tool(strict=True)]}, declared({"name": "f"}) | mode("VALIDATED")),
    ("none", {"tools": [tool()], "tool_choice": "none"}, declared({"name": "f"}) | mode("NONE")),
    ("required", {"tools": [tool()], "tool_choice": "required"}, declared({"name": "f"}) | mode("ANY")),
    (
        "named",
        {"tools": [tool(), tool("g")], "tool_choice": tool("g")},
        declared({"name": "f"}, {"name": "g"}) | mode("ANY", allowedFunctionNames=["g"]),
    ),
    ("effort", {"reasoning_effort": "high"}, config(thinkingConfig={"thinkingLevel": "HIGH", "includeThoughts": True})),
]


@pytest.mark.parametrize("given, expected", [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_fields(given: dict[str, Any], expected: dict[str, Any]) -> None:
    made = encoded("gemini", **given)
    assert made.pop("contents") == [turn("user", {"text": "hi"})]
    assert made == expected


@pytest.mark.parametrize(
    "effort, budget", [("none", 0), ("minimal", 1024), ("low", 1024), ("medium", 8192), ("high", 24_576)]
)
def test_older_models_think_within_a_budget(effort: str, budget: int) -> None:
    expected = {"thinkingBudget": budget, "includeThoughts": budget > 0}
    assert encoded("gemini", OLDER, reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == expected


TOOLS_USED = [
    {"role": "user", "content": "u"},
    {
        "role": "assistant",
        "content": "well",
        "reasoning_content": "hm",
        "tool_calls": [
            calling("a", "f", '{"x": 1}', extra_content={"google": {"thought_signature": "sig"}}),
            calling("b", "g", "", extra_content=None),
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": '{"y": 2}'},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "3"}, image(PNG)]},
    {"role": "user", "content": "and?"},
    {"role": "assistant", "tool_calls": [calling("c", "f", "{}"), calling("d", "f", "{}")]},
    {"role": "tool", "tool_call_id": "c", "content": "[4]"},
]


@pytest.mark.parametrize("model", [NEWER, OLDER])
def test_calls_results_and_signatures(model: str) -> None:
    """A call that carries no signature gets the documented stand-in, for models that insist on one."""
    unsigned = {"thoughtSignature": "skip_thought_signature_validator"} if model == NEWER else {}
    inline = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    assert encoded("gemini", model, messages=TOOLS_USED)["contents"] == [
        turn("user", {"text": "u"}),
        turn(
            "model",
            {"text": "well"},
            {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "sig"},
            {"functionCall": {"id": "b", "name": "g", "args": {}}},
        ),
        turn(
            "user",
            {"functionResponse": {"id": "a", "name": "f", "response": {"y": 2}}},
            {"functionResponse": {"id": "b", "name": "g", "response": {"output": "3"}, "parts": [inline]}},
        ),
        turn("user", {"text": "and?"}),
        turn(
            "model",
            {"functionCall": {"id": "c", "name": "f", "args": {}}, **unsigned},
            {"functionCall": {"id": "d", "name": "f", "args": {}}},
        ),
        turn("user", {"functionResponse": {"id": "c", "name": "f", "response": {"output": "[4]"}}}),
    ]


def test_system_prompts_come_first() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *user("u")]
    made = encoded("gemini", messages=messages)
    assert made["systemInstruction"] == {"parts": [{"text": "a"}, {"text": "b"}]}
    assert made["contents"] == [turn("user", {"text": "u"})]


def test_media() -> None:
    pdf = {"type": "file", "file": {"file_data": "data:application/pdf;base64,BB", "filename": "a.pdf"}}
    files = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    shown = user(image(PNG), image("https://x.test/a.JPG?sig=1"), image(files), image("gs://b/c"), AUDIO, pdf)
    assert encoded("gemini", messages=shown)["contents"] == [
        turn(
            "user",
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
            {"fileData": {"fileUri": "https://x.test/a.JPG?sig=1", "mimeType": "image/jpeg"}},
            {"fileData": {"fileUri": files}},
            {"fileData": {"fileUri": "gs://b/c"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "BB"}},
        )
    ]
    low = encoded("gemini", messages=user(image(PNG, detail="low"), image(PNG, detail="low")))
    assert low["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW"}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("n", {"n": 9}),
    ("seed", {"seed": 2**31}),
    ("stop", {"stop": ["a"] * 6}),
    ("logprobs", {"logprobs": True, "top_logprobs": 2}),
    ("logit_bias", {"logit_bias": {"5": 1}}),
    ("min_p", {"min_p": 0.1}),
    ("typical_p", {"typical_p": 0.5}),
    ("repetition_penalty", {"repetition_penalty": 1.1}),
    ("return_token_ids", {"return_token_ids": True}),
    ("prediction", {"prediction": {"type": "content", "content": "x"}}),
    ("modalities", {"modalities": ["audio"]}),
    ("verbosity", {"verbosity": "high"}),
    ("store", {"store": True}),
    ("service_tier", {"service_tier": "scale"}),
    ("reasoning_effort", {"reasoning_effort": "none"}),
    ("response_format.json_schema.schema", {"response_format": schema()}),
    ("tools[0].function.name", {"tools": [tool("9f")]}),
    ("messages", {"messages": [{"role": "system", "content": "s"}]}),
    ("messages[1].role", {"messages": [*user("u"), {"role": "system", "content": "now"}]}),
    ("messages[0].content", {"messages": user("")}),
    ("messages[0].name", {"messages": [{"role": "user", "content": "x", "name": "bob"}]}),
    ("messages[0].role", {"messages": [{"role": "function", "content": "x", "name": "f"}]}),
    ("messages[0].tool_call_id", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "lost"}]}),
    ("messages[0].content[0].image_url.url", {"messages": user(image("http://x.test/a.png"))}),
    ("messages[0].content[0].image_url.url", {"messages": user(image("https://x.test/a"))}),
    ("messages[0].content[0].image_url.url", {"messages": user(image("data:text/plain;base64,AA"))}),
    ("messages[0].content[1].image_url.detail", {"messages": user(image(PNG, detail="low"), image(PNG))}),
    ("messages[0].content[0].file.file_id", {"messages": user({"type": "file", "file": {"file_id": "f"}})}),
    ("messages[0].content[0].file.file_data", {"messages": user({"type": "file", "file": {"file_data": "x"}})}),
    (
        "messages[0].content[0].input_audio.format",
        {"messages": user({"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}})},
    ),
    (
        "messages[0].tool_calls[0].function.arguments",
        {"messages": [{"role": "assistant", "tool_calls": [calling("a", "f", "{")]}]},
    ),
]


@pytest.mark.parametrize("param, given", REFUSED, ids=[f"{i}-{row[0]}" for i, row in enumerate(REFUSED)])
def test_what_cannot_be_said_is_refused_by_name(param: str, given: dict[str, Any]) -> None:
    assert refused("gemini", NEWER, **given) == param


def test_what_the_target_is_declared_not_to_do() -> None:
    can = Capabilities(tools=False, images=False, json_schema=False, n=False, seed=False)
    assert refused("gemini", can=can, tools=[tool()]) == "tools"
    assert refused("gemini", can=can, messages=user(image(PNG))) == "messages[0].content[0]"
    assert refused("gemini", can=can, response_format=schema(schema=SCHEMA)) == "response_format"
    assert refused("gemini", can=can, n=2) == "n"
    assert refused("gemini", can=can, seed=1) == "seed"


@pytest.mark.parametrize(
    "model, path",
    [
        ("gemini-3-pro", "models/gemini-3-pro"),
        ("models/gemini-3-pro", "models/gemini-3-pro"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("../x?key=1#\r\nHost: y", "models/..%2Fx%3Fkey%3D1%23%0D%0AHost%3A%20y"),
    ],
)
def test_where_it_goes(model: str, path: str) -> None:
    made = module("gemini").make(Capabilities())
    assert made.encode(call(), model, None).path == f"{path}:generateContent"
    assert made.encode(call(stream=True), model, None).path == f"{path}:streamGenerateContent?alt=sse"
    assert module("gemini").headers("k") == {"x-goog-api-key": "k"}


def test_embeddings() -> None:
    made = module("gemini").make(Capabilities())
    asked = embedding_call(parse_embedding(b'{"model": "m", "input": ["a", "b"], "dimensions": 8}'))
    sent = made.encode(asked, "e", None)
    assert sent.path == "models/e:batchEmbedContents"
    one = {"model": "models/e", "outputDimensionality": 8}
    assert json.loads(sent.body)["requests"] == [
        {**one, "content": {"parts": [{"text": "a"}]}},
        {**one, "content": {"parts": [{"text": "b"}]}},
    ]
    single = embedding_call(parse_embedding(b'{"model": "m", "input": "a"}'))
    assert len(json.loads(made.encode(single, "e", None).body)["requests"]) == 1


def test_completions_and_token_ids_are_refused() -> None:
    made = module("gemini").make(Capabilities())
    ids = embedding_call(parse_embedding(b'{"model": "m", "input": [1, 2]}'))
    plain = completion_call(parse_completion(b'{"model": "m", "prompt": "x"}'))
    for asked, resume in [(plain, None), (ids, None), (call(), Resume([1], None))]:
        with pytest.raises(RefusedError) as caught:
            made.encode(asked, "m", resume)
        assert caught.value.code == "unsupported_by_target"

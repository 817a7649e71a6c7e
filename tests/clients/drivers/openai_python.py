"""Drives the OpenAI SDK for Python."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai  # type: ignore[import-not-found]  # lives in its own environment
from common import (
    BEGUN,
    CITY_QUESTION,
    DOCUMENTS,
    ENDLESS,
    FLAT_TOOL,
    LONG,
    LOOK,
    PICTURE,
    QUESTION,
    SEEN,
    TOOL,
    Target,
    raises,
    run,
    stopped,
    weather,
)
from pydantic import BaseModel  # type: ignore[import-not-found]


class City(BaseModel):
    city: Literal["Paris", "Rome"]


def client(target: Target, key: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=target.url, api_key=key or target.key, max_retries=0, timeout=60)


def asking(target: Target, text: str = QUESTION) -> dict[str, Any]:
    return {"model": target.model, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 100}


def responding(target: Target, text: str = QUESTION) -> dict[str, Any]:
    return {"model": target.model, "input": text, "temperature": 0, "max_output_tokens": 100}


# -- chat completions ----------------------------------------------------------------------------------------------


def chat_whole(target: Target) -> None:
    answer = client(target).chat.completions.create(**asking(target))
    target.said(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def chat_stream(target: Target) -> None:
    whole = client(target).chat.completions.create(**asking(target)).choices[0].message.content
    options = {"include_usage": True}
    stream = list(client(target).chat.completions.create(**asking(target), stream=True, stream_options=options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == whole
    assert [c.choices[0].finish_reason for c in stream if c.choices and c.choices[0].finish_reason]
    assert stream[-1].choices == [] and stream[-1].usage.completion_tokens > 0


def chat_tools(target: Target) -> None:
    asked = {**asking(target), "tools": [TOOL]}
    answer = client(target).chat.completions.create(**asked).choices[0]
    assert answer.finish_reason == "tool_calls", answer.finish_reason
    _chat_result(target, asked, answer.message)


def chat_tools_streamed(target: Target) -> None:
    asked = {**asking(target), "tools": [TOOL]}
    with client(target).chat.completions.stream(**asked) as stream:
        events = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.delta" in events and "tool_calls.function.arguments.done" in events
    _chat_result(target, asked, message)


def _chat_result(target: Target, asked: dict[str, Any], message: Any) -> None:
    (call,) = message.tool_calls
    given = weather(**json.loads(call.function.arguments))
    result = {"role": "tool", "tool_call_id": call.id, "content": given}
    turns = [*asked["messages"], message.model_dump(exclude_none=True, exclude={"parsed"}), result]
    for turn in turns:
        for made in turn.get("tool_calls", ()):
            made["function"].pop("parsed_arguments", None)
    target.said(client(target).chat.completions.create(**{**asked, "messages": turns}).choices[0].message.content)


def chat_structured(target: Target) -> None:
    asked = {**asking(target, CITY_QUESTION), "response_format": City}
    assert client(target).chat.completions.parse(**asked).choices[0].message.parsed.city
    with client(target).chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed.city


def chat_errors(target: Target) -> None:
    _errors(target, lambda one, asked: one.chat.completions.create(**asking(target, asked[1]) | {"model": asked[0]}))


def chat_broken(target: Target) -> None:
    stream = client(target).chat.completions.create(**asking(target) | {"model": target.broken}, stream=True)
    error = raises(openai.APIError, lambda: list(stream))
    assert "broke" in error.message, error


def chat_cancel(target: Target) -> None:
    asked = asking(target, ENDLESS) | {"model": target.slow, "max_tokens": 3000}
    stream = client(target).chat.completions.create(**asked, stream=True)
    next(iter(stream))
    stream.close()
    stopped(target)
    chat_whole(target)


def chat_image(target: Target) -> None:
    parts = [{"type": "text", "text": LOOK}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    asked = asking(target) | {"model": target.sees, "messages": [{"role": "user", "content": parts}]}
    assert client(target).chat.completions.create(**asked).choices[0].message.content == SEEN
    chunks = list(client(target).chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SEEN


def _errors(target: Target, call: Any) -> None:
    key, limited = target.limited
    raises(openai.AuthenticationError, lambda: call(client(target, "wrong"), (target.model, QUESTION)))
    missing = raises(openai.NotFoundError, lambda: call(client(target), ("nope", QUESTION)))
    assert missing.code == "model_not_found", missing.code
    long = raises(openai.BadRequestError, lambda: call(client(target), (target.context, LONG)))
    assert long.code == "context_length_exceeded", long.code
    raises(openai.RateLimitError, lambda: call(client(target, key), (limited, QUESTION)), 3)


# -- responses -----------------------------------------------------------------------------------------------------


def responses_whole(target: Target) -> None:
    answer = client(target).responses.create(**responding(target), instructions="Be brief.")
    target.said(answer.output_text)
    assert answer.status in ("completed", "incomplete") and answer.usage.output_tokens > 0


def responses_stream(target: Target) -> None:
    whole = client(target).responses.create(**responding(target)).output_text
    events = list(client(target).responses.create(**responding(target), stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].response.output_text == whole


def responses_tools(target: Target) -> None:
    asked = {**responding(target), "tools": [FLAT_TOOL]}
    _responses_result(target, asked, client(target).responses.create(**asked))


def responses_tools_streamed(target: Target) -> None:
    asked = {**responding(target), "tools": [FLAT_TOOL]}
    with client(target).responses.stream(**asked) as stream:
        events = [event.type for event in stream]
        answer = stream.get_final_response()
    assert "response.function_call_arguments.delta" in events and "response.function_call_arguments.done" in events
    _responses_result(target, asked, answer)


def _responses_result(target: Target, asked: dict[str, Any], answer: Any) -> None:
    (call,) = [item for item in answer.output if item.type == "function_call"]
    given = weather(**json.loads(call.arguments))
    said = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": given}
    turns = [{"role": "user", "content": asked["input"]}, *said, result]
    target.said(client(target).responses.create(**{**asked, "input": turns}).output_text)


def responses_structured(target: Target) -> None:
    asked = {**responding(target, CITY_QUESTION), "text_format": City}
    assert client(target).responses.parse(**asked).output_parsed.city
    with client(target).responses.stream(**asked) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed.city


def responses_previous(target: Target) -> None:
    asked = {**responding(target), "tools": [FLAT_TOOL]}
    first = client(target).responses.create(**asked, store=True)
    assert client(target).responses.retrieve(first.id).id == first.id
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": weather(**json.loads(call.arguments))}
    second = client(target).responses.create(**{**asked, "input": [result]}, previous_response_id=first.id)
    target.said(second.output_text)
    assert second.previous_response_id == first.id
    client(target).responses.delete(first.id)
    raises(openai.NotFoundError, lambda: client(target).responses.retrieve(first.id))


def responses_errors(target: Target) -> None:
    _errors(target, lambda one, asked: one.responses.create(**responding(target, asked[1]) | {"model": asked[0]}))


def responses_broken(target: Target) -> None:
    stream = client(target).responses.create(**responding(target) | {"model": target.broken}, stream=True)
    error = raises(openai.APIError, lambda: list(stream))
    assert "broke" in error.message, error


def responses_cancel(target: Target) -> None:
    asked = responding(target, ENDLESS) | {"model": target.slow, "max_output_tokens": 3000}
    stream = client(target).responses.create(**asked, stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    stopped(target)
    responses_whole(target)


def responses_image(target: Target) -> None:
    parts = [{"type": "input_text", "text": LOOK}, {"type": "input_image", "image_url": PICTURE, "detail": "auto"}]
    asked = responding(target) | {"model": target.sees, "input": [{"role": "user", "content": parts}]}
    assert client(target).responses.create(**asked).output_text == SEEN


# -- the rest ------------------------------------------------------------------------------------------------------


def completions(target: Target) -> None:
    asked: dict[str, Any] = {"model": target.completer, "prompt": BEGUN, "temperature": 0, "max_tokens": 50}
    answer = client(target).completions.create(**asked)
    target.said(answer.choices[0].text)
    assert answer.object == "text_completion" and answer.choices[0].finish_reason in ("stop", "length")
    chunks = list(client(target).completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == answer.choices[0].text
    assert chunks[-1].usage.completion_tokens > 0


def rerank(target: Target) -> None:
    """By the SDK's own way to an endpoint that it has no method for."""
    asked = {"model": target.media, "query": "light", "documents": DOCUMENTS, "top_n": 2}
    results = client(target).post("/rerank", body=asked, cast_to=object)["results"]
    assert [(one["index"], one["relevance_score"]) for one in results] == [(0, 1.0), (1, 0.5)], results


def embeddings(target: Target) -> None:
    answer = client(target).embeddings.create(model=target.embedder, input=["one", "two"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) > 1


def models(target: Target) -> None:
    names = {model.id for model in client(target).models.list()}
    assert names and client(target).models.retrieve(next(iter(names))).id in names


def moderations(target: Target) -> None:
    assert client(target).moderations.create(model=target.media, input="hello").results[0].flagged is False


def images(target: Target) -> None:
    assert client(target).images.generate(model=target.media, prompt="a cat").data[0].b64_json


def transcription(target: Target) -> None:
    sound = ("hello.wav", b"RIFF0000WAVE")
    assert client(target).audio.transcriptions.create(model=target.media, file=sound).text == "hello"


def speech(target: Target) -> None:
    with client(target).audio.speech.with_streaming_response.create(
        model=target.media, voice="alloy", input="hello"
    ) as answer:
        assert sum(len(piece) for piece in answer.iter_bytes()) > 0


run(
    openai.__version__,
    {
        "chat.whole": chat_whole,
        "chat.stream": chat_stream,
        "chat.tools": chat_tools,
        "chat.tools_streamed": chat_tools_streamed,
        "chat.structured": chat_structured,
        "chat.errors": chat_errors,
        "chat.broken": chat_broken,
        "chat.cancel": chat_cancel,
        "chat.image": chat_image,
        "responses.whole": responses_whole,
        "responses.stream": responses_stream,
        "responses.tools": responses_tools,
        "responses.tools_streamed": responses_tools_streamed,
        "responses.structured": responses_structured,
        "responses.previous": responses_previous,
        "responses.errors": responses_errors,
        "responses.broken": responses_broken,
        "responses.cancel": responses_cancel,
        "responses.image": responses_image,
        "other.completions": completions,
        "other.embeddings": embeddings,
        "other.rerank": rerank,
        "other.moderations": moderations,
        "other.images": images,
        "other.transcription": transcription,
        "other.speech": speech,
        "other.models": models,
    },
)

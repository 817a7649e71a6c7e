"""Drives the Anthropic SDK for Python."""

from __future__ import annotations

from typing import Any, Literal

import anthropic  # type: ignore[import-not-found]  # lives in its own environment
from common import (
    CITY_QUESTION,
    ENDLESS,
    LONG,
    LOOK,
    PARAMETERS,
    PIXEL,
    QUESTION,
    SEEN,
    Target,
    raises,
    run,
    stopped,
    weather,
)
from pydantic import BaseModel  # type: ignore[import-not-found]

TOOL: Any = {"name": "get_weather", "description": "Get the weather of a city.", "input_schema": PARAMETERS}


class City(BaseModel):
    city: Literal["Paris", "Rome"]


def client(target: Target, key: str = "") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=target.root, api_key=key or target.key, max_retries=0, timeout=60)


def asking(target: Target, text: str = QUESTION) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    # The SDK has no parameter for it any more; the API still has.
    return {"model": target.model, "messages": asked, "max_tokens": 100, "extra_body": {"temperature": 0}}


def whole(target: Target) -> None:
    answer = client(target).messages.create(**asking(target), system="You are brief.")
    target.said(answer.content[0].text)
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.usage.output_tokens > 0


def stream(target: Target) -> None:
    told = client(target).messages.create(**asking(target)).content[0].text
    with client(target).messages.stream(**asking(target)) as streamed:
        assert "".join(streamed.text_stream) == told
        final = streamed.get_final_message()
    assert final.content[0].text == told and final.usage.output_tokens > 0 and final.stop_reason
    events = [event.type for event in client(target).messages.create(**asking(target), stream=True)]
    assert events[:2] == ["message_start", "content_block_start"] and events[-2:] == ["message_delta", "message_stop"]


def tools(target: Target) -> None:
    asked = {**asking(target), "tools": [TOOL]}
    answer = client(target).messages.create(**asked)
    assert answer.stop_reason == "tool_use"
    _result(target, asked, answer)


def tools_streamed(target: Target) -> None:
    asked = {**asking(target), "tools": [TOOL]}
    with client(target).messages.stream(**asked) as streamed:
        assert "input_json" in [event.type for event in streamed]
        _result(target, asked, streamed.get_final_message())


def _result(target: Target, asked: dict[str, Any], answer: Any) -> None:
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": weather(**call.input)}
    said = {"role": "assistant", "content": answer.content}
    turns = [*asked["messages"], said, {"role": "user", "content": [result]}]
    target.said(client(target).messages.create(**{**asked, "messages": turns}).content[0].text)


def structured(target: Target) -> None:
    asked = asking(target, CITY_QUESTION)
    assert client(target).messages.parse(**asked, output_format=City).parsed_output.city
    with client(target).messages.stream(**asked, output_format=City) as streamed:
        streamed.until_done()
        assert streamed.get_final_message().parsed_output.city


def errors(target: Target) -> None:
    def call(one: anthropic.Anthropic, model: str, text: str = QUESTION) -> Any:
        return one.messages.create(**asking(target, text) | {"model": model})

    key, limited = target.limited
    raises(anthropic.AuthenticationError, lambda: call(client(target, "wrong"), target.model))
    raises(anthropic.NotFoundError, lambda: call(client(target), "nope"))
    raises(anthropic.BadRequestError, lambda: call(client(target), target.context, LONG))
    raises(anthropic.RateLimitError, lambda: call(client(target, key), limited), 3)


def broken(target: Target) -> None:
    with client(target).messages.stream(**asking(target) | {"model": target.broken}) as streamed:
        error = raises(anthropic.APIError, streamed.until_done)
    assert "broke" in str(error), error


def cancel(target: Target) -> None:
    asked = asking(target, ENDLESS) | {"model": target.slow, "max_tokens": 3000}
    with client(target).messages.stream(**asked) as streamed:
        next(iter(streamed.text_stream))
    stopped(target)
    whole(target)


def count(target: Target) -> None:
    asked = {key: value for key, value in asking(target).items() if key in ("model", "messages")}
    plain = client(target).messages.count_tokens(**asked).input_tokens
    assert 0 < plain < client(target).messages.count_tokens(**asked, tools=[TOOL]).input_tokens


def models(target: Target) -> None:
    listed = list(client(target).models.list())
    names = {model.id for model in listed}
    assert all(model.type == "model" and model.display_name and model.created_at for model in listed)
    assert names and client(target).models.retrieve(next(iter(names))).id in names


def image(target: Target) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    parts = [{"type": "text", "text": LOOK}, picture]
    asked = asking(target) | {"model": target.sees, "messages": [{"role": "user", "content": parts}]}
    assert client(target).messages.create(**asked).content[0].text == SEEN


run(
    anthropic.__version__,
    {
        "messages.whole": whole,
        "messages.stream": stream,
        "messages.tools": tools,
        "messages.tools_streamed": tools_streamed,
        "messages.structured": structured,
        "messages.errors": errors,
        "messages.broken": broken,
        "messages.cancel": cancel,
        "messages.image": image,
        "messages.count": count,
        "other.models": models,
    },
)

"""Drives LangChain: its models of all three dialects, and its agent loop on LangGraph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import anthropic  # type: ignore[import-not-found]  # all of these live in an environment of their own
import openai
from common import (
    CITY_QUESTION,
    ENDLESS,
    LONG,
    LOOK,
    PIXEL,
    QUESTION,
    SEEN,
    Check,
    Target,
    raises,
    run,
    stopped,
    weather,
)
from langchain.agents import create_agent  # type: ignore[import-not-found]
from langchain_anthropic import ChatAnthropic  # type: ignore[import-not-found]
from langchain_core.messages import HumanMessage, ToolMessage  # type: ignore[import-not-found]
from langchain_core.tools import tool  # type: ignore[import-not-found]
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # type: ignore[import-not-found]
from pydantic import BaseModel  # type: ignore[import-not-found]

Model = Callable[..., Any]


class City(BaseModel):
    """The city."""

    city: Literal["Paris", "Rome"]


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return weather(city)


def chat(target: Target, model: str = "", key: str = "", most: int = 100) -> Any:
    return ChatOpenAI(
        model=model or target.model, base_url=target.url, api_key=key or target.key,
        max_retries=0, timeout=60, temperature=0, max_tokens=most, stream_usage=True,
    )  # fmt: skip


def responses(target: Target, model: str = "", key: str = "", most: int = 100) -> Any:
    return ChatOpenAI(
        model=model or target.model, base_url=target.url, api_key=key or target.key,
        max_retries=0, timeout=60, temperature=0, max_tokens=most, use_responses_api=True,
    )  # fmt: skip


def messages(target: Target, model: str = "", key: str = "", most: int = 100) -> Any:
    return ChatAnthropic(
        model=model or target.model, base_url=target.root, api_key=key or target.key,
        max_retries=0, timeout=60, max_tokens=most,
    )  # fmt: skip


def whole(model: Model, target: Target) -> None:
    answer = model(target).invoke(QUESTION)
    target.said(answer.text)
    assert answer.usage_metadata["output_tokens"] > 0


def stream(model: Model, target: Target) -> None:
    chunks = list(model(target).stream(QUESTION))
    target.said("".join(chunk.text for chunk in chunks))
    told = chunks[0]
    for chunk in chunks[1:]:
        told += chunk
    assert told.usage_metadata["output_tokens"] > 0


def tools(model: Model, target: Target) -> None:
    bound = model(target).bind_tools([get_weather])
    answer = bound.invoke(QUESTION)
    (call,) = answer.tool_calls
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    target.said(bound.invoke([HumanMessage(QUESTION), answer, result]).text)


def agent(model: Model, target: Target) -> None:
    """The loop: it streams, calls the tool, and answers."""
    looped = create_agent(model(target), [get_weather])
    kinds, last = [], None
    for part in looped.stream({"messages": [HumanMessage(QUESTION)]}, stream_mode=["messages", "values"]):
        if part[0] == "messages":
            kinds.append(type(part[1][0]).__name__)
        else:
            last = part[1]["messages"]
    assert "AIMessageChunk" in kinds and last is not None
    assert [message.type for message in last] == ["human", "ai", "tool", "ai"]
    target.said(last[-1].text)


def structured(model: Model, target: Target) -> None:
    assert model(target).with_structured_output(City).invoke(CITY_QUESTION).city
    assert model(target).with_structured_output(City, method="json_schema").invoke(CITY_QUESTION).city


def errors(model: Model, target: Target) -> None:
    made = anthropic if model is messages else openai
    key, limited = target.limited
    raises(made.AuthenticationError, lambda: model(target, key="wrong").invoke(QUESTION))
    raises(made.NotFoundError, lambda: model(target, "nope").invoke(QUESTION))
    raises(made.BadRequestError, lambda: model(target, target.context).invoke(LONG))
    raises(made.RateLimitError, lambda: model(target, limited, key).invoke(QUESTION), 3)


def broken(model: Model, target: Target) -> None:
    made = anthropic.APIError if model is messages else openai.APIError
    error = raises(made, lambda: list(model(target, target.broken).stream(QUESTION)))
    assert "broke" in str(error), error


def cancel(model: Model, target: Target) -> None:
    streamed = model(target, target.slow, most=3000).stream(ENDLESS)
    for chunk in streamed:
        if chunk.text:
            break
    streamed.close()
    stopped(target)
    whole(model, target)


def image(model: Model, target: Target) -> None:
    picture = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    asked = HumanMessage(content=[{"type": "text", "text": LOOK}, picture])
    assert model(target, target.sees).invoke([asked]).text == SEEN


def previous(target: Target) -> None:
    model = responses(target).bind_tools([get_weather])
    first = model.invoke(QUESTION, store=True)
    (call,) = first.tool_calls
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    target.said(model.invoke([result], previous_response_id=first.response_metadata["id"]).text)


def embeddings(target: Target) -> None:
    model = OpenAIEmbeddings(
        model=target.embedder, base_url=target.url, api_key=target.key, check_embedding_ctx_length=False
    )
    assert len(model.embed_documents(["one", "two"])) == 2


FEATURES: dict[str, Callable[[Model, Target], None]] = {
    "whole": whole,
    "stream": stream,
    "tools": tools,
    "tools_streamed": agent,
    "structured": structured,
    "errors": errors,
    "broken": broken,
    "cancel": cancel,
    "image": image,
}
CHECKS: dict[str, Check] = {
    f"{model.__name__}.{name}": partial(check, model)
    for model in (chat, responses, messages)
    for name, check in FEATURES.items()
}
run(
    version("langchain"),
    {**CHECKS, "responses.previous": previous, "other.embeddings": embeddings},
)

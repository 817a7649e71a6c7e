"""Drives Pydantic AI: agents on its models of all three dialects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from anthropic import AsyncAnthropic  # type: ignore[import-not-found]  # all of these live in an environment of their own
from common import CITY_QUESTION, ENDLESS, LONG, QUESTION, Check, Target, raises, run, stopped, weather
from openai import AsyncOpenAI
from pydantic import BaseModel  # type: ignore[import-not-found]
from pydantic_ai import Agent, NativeOutput  # type: ignore[import-not-found]
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError  # type: ignore[import-not-found]
from pydantic_ai.models.anthropic import AnthropicModel  # type: ignore[import-not-found]
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel  # type: ignore[import-not-found]
from pydantic_ai.providers.anthropic import AnthropicProvider  # type: ignore[import-not-found]
from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]

Model = Callable[..., Any]
Feature = Callable[[Model, Target], Coroutine[Any, Any, None]]
# One loop for all of them: what a client leaves open is closed later, on the loop it was opened on.
LOOP = asyncio.Runner()
SETTINGS: Any = {"temperature": 0, "max_tokens": 100}


class City(BaseModel):
    city: Literal["Paris", "Rome"]


def _openai(target: Target, key: str) -> OpenAIProvider:
    made = AsyncOpenAI(base_url=target.url, api_key=key or target.key, max_retries=0, timeout=60)
    return OpenAIProvider(openai_client=made)


def chat(target: Target, model: str = "", key: str = "") -> Any:
    return OpenAIChatModel(model or target.model, provider=_openai(target, key))


def responses(target: Target, model: str = "", key: str = "") -> Any:
    return OpenAIResponsesModel(model or target.model, provider=_openai(target, key))


def messages(target: Target, model: str = "", key: str = "") -> Any:
    made = AsyncAnthropic(base_url=target.root, api_key=key or target.key, max_retries=0, timeout=60)
    return AnthropicModel(model or target.model, provider=AnthropicProvider(anthropic_client=made))


def agent(model: Any, **options: Any) -> Any:
    return Agent(model, model_settings=SETTINGS, retries=0, **options)


async def whole(model: Model, target: Target) -> None:
    answer = await agent(model(target), instructions="Be brief.").run(QUESTION)
    target.said(answer.output)
    assert answer.usage.output_tokens > 0


async def stream(model: Model, target: Target) -> None:
    async with agent(model(target)).run_stream(QUESTION) as streamed:
        told = [text async for text in streamed.stream_text(delta=True, debounce_by=None)]
        target.said("".join(told))
        assert len(told) > 1 and streamed.usage.output_tokens > 0


async def tools(model: Model, target: Target) -> None:
    looped = agent(model(target))
    looped.tool_plain(get_weather)
    target.said((await looped.run(QUESTION)).output)


async def tools_streamed(model: Model, target: Target) -> None:
    looped = agent(model(target))
    looped.tool_plain(get_weather)
    async with looped.run_stream(QUESTION) as streamed:
        target.said(await streamed.get_output())


def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return weather(city)


async def structured(model: Model, target: Target) -> None:
    # What it does by itself: a tool that takes the answer, which must be called.
    assert (await agent(model(target), output_type=City).run(CITY_QUESTION)).output.city
    # By a schema, which it takes no Anthropic model to know whose name it has not heard of.
    if model is not messages:
        assert (await agent(model(target), output_type=NativeOutput(City)).run(CITY_QUESTION)).output.city


async def errors(model: Model, target: Target) -> None:
    key, limited = target.limited
    for status, name, secret, text in (
        (401, target.model, "wrong", QUESTION),
        (404, "nope", "", QUESTION),
        (400, target.context, "", LONG),
        (429, limited, key, QUESTION),
    ):
        for _ in range(3 if status == 429 else 1):
            try:
                await agent(model(target, name, secret)).run(text)
            except ModelHTTPError as error:
                assert error.status_code == status, error
                break
        else:
            raise AssertionError(f"{status} was not raised")


async def broken(model: Model, target: Target) -> None:
    async with agent(model(target, target.broken)).run_stream(QUESTION) as streamed:
        await streamed.get_output()


async def cancel(model: Model, target: Target) -> None:
    looped = agent(model(target, target.slow))
    async with looped.run_stream(ENDLESS, model_settings={"temperature": 0, "max_tokens": 3000}) as streamed:
        async for _ in streamed.stream_text(delta=True, debounce_by=None):
            break
        await streamed.cancel()
    await asyncio.to_thread(stopped, target)
    await whole(model, target)


async def previous(model: Model, target: Target) -> None:
    looped = agent(model(target))
    first = await looped.run(QUESTION, model_settings={**SETTINGS, "openai_store": True})
    settings = {**SETTINGS, "openai_previous_response_id": first.response.provider_response_id}
    target.said((await looped.run(QUESTION, model_settings=settings)).output)


FEATURES: dict[str, Feature] = {
    "whole": whole,
    "stream": stream,
    "tools": tools,
    "tools_streamed": tools_streamed,
    "structured": structured,
    "errors": errors,
    "cancel": cancel,
}


def check(feature: Feature, model: Model, target: Target) -> None:
    LOOP.run(feature(model, target))


def fails(model: Model, target: Target) -> None:
    error = raises(ModelAPIError, lambda: check(broken, model, target))
    assert "broke" in str(error), error


CHECKS: dict[str, Check] = {}
for made in (chat, responses, messages):
    CHECKS |= {f"{made.__name__}.{name}": partial(check, feature, made) for name, feature in FEATURES.items()}
    CHECKS[f"{made.__name__}.broken"] = partial(fails, made)
run(version("pydantic-ai-slim"), {**CHECKS, "responses.previous": partial(check, previous, responses)})

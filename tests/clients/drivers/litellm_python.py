"""Drives LiteLLM as a client: chat completions, the Responses API and its Anthropic provider."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

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
    Check,
    Target,
    raises,
    run,
    stopped,
    weather,
)
from pydantic import BaseModel  # type: ignore[import-not-found]

# Otherwise it fetches its table of prices over the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm  # type: ignore[import-not-found]  # lives in its own environment

Asking = Callable[..., dict[str, Any]]

litellm.suppress_debug_info = True
litellm.telemetry = False


class City(BaseModel):
    city: Literal["Paris", "Rome"]


def chat(target: Target, text: str = QUESTION, model: str = "", key: str = "") -> dict[str, Any]:
    return {**_ask(target, f"openai/{model or target.model}", text, key), "api_base": target.url, "temperature": 0}


def messages(target: Target, text: str = QUESTION, model: str = "", key: str = "") -> dict[str, Any]:
    return {**_ask(target, f"anthropic/{model or target.model}", text, key), "api_base": target.root}


def _ask(target: Target, model: str, text: str, key: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    made = {"model": model, "messages": asked, "api_key": key or target.key, "max_tokens": 100}
    return {**made, "timeout": 60, "num_retries": 0}


def whole(asking: Asking, target: Target) -> None:
    answer = litellm.completion(**asking(target))
    target.said(answer.choices[0].message.content)
    assert answer.usage.completion_tokens > 0


def stream(asking: Asking, target: Target) -> None:
    chunks = list(litellm.completion(**asking(target), stream=True, stream_options={"include_usage": True}))
    target.said("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    assert chunks[-1].usage.completion_tokens > 0


def tools(asking: Asking, target: Target) -> None:
    asked = {**asking(target), "tools": [TOOL]}
    answer = litellm.completion(**asked).choices[0]
    assert answer.finish_reason == "tool_calls"
    _result(target, asked, answer.message)


def tools_streamed(asking: Asking, target: Target) -> None:
    asked = {**asking(target), "tools": [TOOL]}
    chunks = list(litellm.completion(**asked, stream=True))
    _result(target, asked, litellm.stream_chunk_builder(chunks, messages=asked["messages"]).choices[0].message)


def _result(target: Target, asked: dict[str, Any], message: Any) -> None:
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": weather(**json.loads(call.function.arguments))}
    turns = [*asked["messages"], message.model_dump(), result]
    target.said(litellm.completion(**{**asked, "messages": turns}).choices[0].message.content)


def structured(asking: Asking, target: Target) -> None:
    answer = litellm.completion(**asking(target, CITY_QUESTION), response_format=City)
    assert City.model_validate_json(answer.choices[0].message.content).city


def errors(asking: Asking, target: Target) -> None:
    key, limited = target.limited
    raises(litellm.AuthenticationError, lambda: litellm.completion(**asking(target, key="wrong")))
    raises(litellm.NotFoundError, lambda: litellm.completion(**asking(target, model="nope")))
    raises(litellm.BadRequestError, lambda: litellm.completion(**asking(target, LONG, target.context)))
    raises(litellm.RateLimitError, lambda: litellm.completion(**asking(target, model=limited, key=key)), 3)


def broken(asking: Asking, target: Target) -> None:
    error = raises(Exception, lambda: list(litellm.completion(**asking(target, model=target.broken), stream=True)))
    assert "broke" in str(error), error


def cancel(asking: Asking, target: Target) -> None:
    asyncio.run(_cancelled({**asking(target, ENDLESS, target.slow), "max_tokens": 3000}, target))
    whole(asking, target)


async def _cancelled(asked: dict[str, Any], target: Target) -> None:
    """By the task that reads: not all of its streams can be closed."""
    began = asyncio.Event()

    async def read() -> None:
        async for chunk in await litellm.acompletion(**asked, stream=True):
            if chunk.choices[0].delta.content:
                began.set()

    reading = asyncio.create_task(read())
    await began.wait()
    reading.cancel()
    await asyncio.wait([reading])
    await asyncio.to_thread(stopped, target)


def image(asking: Asking, target: Target) -> None:
    parts = [{"type": "text", "text": LOOK}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    asked = {**asking(target, model=target.sees), "messages": [{"role": "user", "content": parts}]}
    assert litellm.completion(**asked).choices[0].message.content == SEEN


# -- responses -----------------------------------------------------------------------------------------------------


def responding(target: Target, text: str = QUESTION, model: str = "", key: str = "") -> dict[str, Any]:
    name = f"openai/{model or target.model}"
    # It makes up the stream of a model that it has not heard of, from the whole answer.
    litellm.register_model({name: {"litellm_provider": "openai", "mode": "chat", "supports_native_streaming": True}})
    made = {"model": name, "input": text, "api_base": target.url, "temperature": 0}
    return {**made, "api_key": key or target.key, "max_output_tokens": 100, "timeout": 60, "num_retries": 0}


def responses_whole(target: Target) -> None:
    target.said(litellm.responses(**responding(target)).output_text)


def responses_stream(target: Target) -> None:
    events = list(litellm.responses(**responding(target), stream=True))
    target.said("".join(event.delta for event in events if event.type == "response.output_text.delta"))
    assert events[-1].response.usage.output_tokens > 0


def responses_tools(target: Target) -> None:
    asked = {**responding(target), "tools": [FLAT_TOOL]}
    _responses_result(target, asked, litellm.responses(**asked).output)


def responses_tools_streamed(target: Target) -> None:
    asked = {**responding(target), "tools": [FLAT_TOOL]}
    events = list(litellm.responses(**asked, stream=True))
    assert any(event.type == "response.function_call_arguments.delta" for event in events)
    _responses_result(target, asked, events[-1].response.output)


def _responses_result(target: Target, asked: dict[str, Any], output: Any) -> None:
    (call,) = [item for item in output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": weather(**json.loads(call.arguments))}
    turns = [{"role": "user", "content": asked["input"]}, *[dict(item) for item in output], result]
    target.said(litellm.responses(**{**asked, "input": turns}).output_text)


def responses_structured(target: Target) -> None:
    answer = litellm.responses(**responding(target, CITY_QUESTION), text_format=City)
    assert City.model_validate_json(answer.output_text).city


def responses_errors(target: Target) -> None:
    key, limited = target.limited
    raises(litellm.AuthenticationError, lambda: litellm.responses(**responding(target, key="wrong")))
    raises(litellm.NotFoundError, lambda: litellm.responses(**responding(target, model="nope")))
    raises(litellm.BadRequestError, lambda: litellm.responses(**responding(target, LONG, target.context)))
    raises(litellm.RateLimitError, lambda: litellm.responses(**responding(target, model=limited, key=key)), 3)


def responses_broken(target: Target) -> None:
    asked = responding(target, model=target.broken)
    error = raises(Exception, lambda: list(litellm.responses(**asked, stream=True)))
    assert "broke" in str(error), error


def responses_cancel(target: Target) -> None:
    asked = {**responding(target, ENDLESS, target.slow), "max_output_tokens": 3000}
    streamed = litellm.responses(**asked, stream=True)
    for event in streamed:
        if event.type == "response.output_text.delta":
            break
    streamed.response.close()
    stopped(target)
    responses_whole(target)


def previous(target: Target) -> None:
    first = litellm.responses(**responding(target))
    second = litellm.responses(**responding(target), previous_response_id=first.id)
    target.said(second.output_text)
    assert second.usage.input_tokens >= first.usage.input_tokens


def completions(target: Target) -> None:
    asked: dict[str, Any] = {
        "model": f"text-completion-openai/{target.completer}", "prompt": BEGUN, "api_base": target.url,
        "api_key": target.key, "temperature": 0, "max_tokens": 50,
    }  # fmt: skip
    text = litellm.text_completion(**asked).choices[0].text
    target.said(text)
    chunks = litellm.text_completion(**asked, stream=True)
    assert "".join(chunk.choices[0].text or "" for chunk in chunks if chunk.choices) == text


def rerank(target: Target) -> None:
    """As of a server of vLLM's, whose way of ranking is Lumen's."""
    answer = litellm.rerank(
        model=f"hosted_vllm/{target.media}", api_base=target.url, api_key=target.key,
        query="light", documents=DOCUMENTS, top_n=2,
    )  # fmt: skip
    assert [(one["index"], one["relevance_score"]) for one in answer.results] == [(0, 1.0), (1, 0.5)], answer


def embeddings(target: Target) -> None:
    asked = {"model": f"openai/{target.embedder}", "api_base": target.url, "api_key": target.key}
    assert len(litellm.embedding(**asked, input=["one", "two"]).data) == 2


FEATURES: dict[str, Callable[[Asking, Target], None]] = {
    "whole": whole,
    "stream": stream,
    "tools": tools,
    "tools_streamed": tools_streamed,
    "structured": structured,
    "errors": errors,
    "broken": broken,
    "cancel": cancel,
    "image": image,
}
CHECKS: dict[str, Check] = {
    f"{asking.__name__}.{name}": partial(check, asking)
    for asking in (chat, messages)
    for name, check in FEATURES.items()
}
run(
    version("litellm"),
    {
        **CHECKS,
        "responses.whole": responses_whole,
        "responses.stream": responses_stream,
        "responses.tools": responses_tools,
        "responses.tools_streamed": responses_tools_streamed,
        "responses.structured": responses_structured,
        "responses.errors": responses_errors,
        "responses.broken": responses_broken,
        "responses.cancel": responses_cancel,
        "responses.previous": previous,
        "other.completions": completions,
        "other.embeddings": embeddings,
        "other.rerank": rerank,
    },
)

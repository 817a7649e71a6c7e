"""A chat request as the Anthropic Messages API takes it, or an error that says which part it cannot take. Pure.

Source: the public Messages API reference, version 2023-06-01. Left out because they label a request and change
nothing in its answer: `metadata`, and reasoning of earlier turns, which the API takes back only with signatures
of its own. Models that think within a budget refuse to think on without it, once a tool was called, or where an answer
is begun: they are then asked to go on without thinking. `user` becomes `metadata.user_id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lumen.wire.anthropic_turns import TOOL_NAME, Turns
from lumen.wire.refusals import unsupported
from lumen.wire.requests import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    Tool,
)
from lumen.wire.translate import max_tokens, refuse, stops

# The API wants a limit on every request. The second leaves room to think before the answer.
DEFAULT_MAX_TOKENS = 4096
THINKING_MAX_TOKENS = 16_384
# The tool whose input is the answer, where JSON without a schema is asked for: the API has no such mode.
JSON_TOOL = "json_answer"

REFUSED = {
    "n": "it gives one answer a request.",
    "logprobs": "it tells no probabilities.",
    "logit_bias": "it takes no token biases.",
    "presence_penalty": "it has no penalties.",
    "frequency_penalty": "it has no penalties.",
    "seed": "it does not sample from a seed.",
    "prediction": "it takes no predicted output.",
    "modalities": "it answers with text only.",
    "verbosity": "it has no such control.",
    "store": "it stores no answers.",
    "min_p": "it does not know this sampler.",
    "typical_p": "it does not know this sampler.",
    "repeat_penalty": "it has no penalties.",
    "repetition_penalty": "it has no penalties.",
    "return_token_ids": "it tells no token ids.",
    "resume_token_ids": "it takes no token ids.",
}
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
# Models that think within a budget of tokens; every later one decides for itself, guided by an effort.
_BUDGETED = re.compile(r"claude-(?:3-7-sonnet|(?:opus|sonnet|haiku)-4(?:-[015])?)(?:[-@](?:20\d{6}|latest)|-v\d|$)")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24_576}
_EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})


def encode_chat(request: ChatRequest, model: str, *, stream: bool, images: bool = True) -> dict[str, Any]:
    """The body of `POST /v1/messages`.

    Args:
        images: the model sees images.

    Raises:
        RefusedError: `unsupported_by_target`, with the field as its `param`.
    """
    refuse(request, REFUSED)
    body: dict[str, Any] = {"model": model}
    turns = Turns(images=images)
    for i, message in enumerate(request.messages):
        turns.add(message, f"messages[{i}]")
    if not turns.turns:
        raise unsupported("messages", "it needs a message that is not a system prompt.")
    if turns.system:
        body["system"] = turns.system
    body["messages"] = turns.turns
    _limits(request, body)
    _tools(request, body)
    _format(request, body)
    _thinking(request, model, body)
    if request.user:
        body["metadata"] = {"user_id": request.user}
    if request.service_tier is not None:
        if request.service_tier not in _TIERS:
            raise unsupported("service_tier", "it knows the tiers 'auto' and 'default'.")
        body["service_tier"] = _TIERS[request.service_tier]
    if stream:
        body["stream"] = True
    return body


def answers_by_tool(request: ChatRequest) -> bool:
    """Whether the answer comes as the input of `JSON_TOOL`."""
    return isinstance(request.response_format, JsonObjectFormat)


def _limits(request: ChatRequest, body: dict[str, Any]) -> None:
    body["max_tokens"] = max_tokens(request) or DEFAULT_MAX_TOKENS
    if request.temperature is not None:
        if request.temperature > 1:
            raise unsupported("temperature", "its temperature ends at 1.")
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.top_k is not None and request.top_k > 0:
        body["top_k"] = request.top_k
    if found := stops(request):
        if any(stop.isspace() for stop in found):
            raise unsupported("stop", "its stop sequences must hold more than white space.")
        body["stop_sequences"] = found


def _tools(request: ChatRequest, body: dict[str, Any]) -> None:
    if not request.tools:
        return
    body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    choice = request.tool_choice
    made: dict[str, Any]
    if isinstance(choice, NamedTool):
        made = {"type": "tool", "name": choice.function.name}
    else:
        made = {"type": {"none": "none", "required": "any"}.get(choice or "auto", "auto")}
    if request.parallel_tool_calls is False and made["type"] != "none":
        made["disable_parallel_tool_use"] = True
    if len(made) > 1 or made["type"] != "auto":
        body["tool_choice"] = made


def _tool(tool: Tool, where: str) -> dict[str, Any]:
    function = tool.function
    if not TOOL_NAME.fullmatch(function.name):
        raise unsupported(f"{where}.function.name", "its tool names hold only letters, digits, '_' and '-'.")
    made: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        made["description"] = function.description
    schema = function.parameters or {"properties": {}}
    made["input_schema"] = schema if "type" in schema else {"type": "object", **schema}
    if function.strict:
        made["strict"] = True
    return made


def _format(request: ChatRequest, body: dict[str, Any]) -> None:
    wanted = request.response_format
    if isinstance(wanted, JsonSchemaFormat):
        schema = wanted.json_schema.schema
        if schema is None:
            raise unsupported("response_format.json_schema.schema", "it needs the schema itself.")
        if wanted.json_schema.description is not None and "description" not in schema:
            schema = {**schema, "description": wanted.json_schema.description}
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    elif isinstance(wanted, JsonObjectFormat):
        if request.tools:
            raise unsupported("response_format", "it gives JSON without a schema only where no tools are given.")
        body["tools"] = [
            {
                "name": JSON_TOOL,
                "description": "Gives the answer. Its input is the whole answer, as one JSON object.",
                "input_schema": {"type": "object", "additionalProperties": True},
            }
        ]
        body["tool_choice"] = {"type": "tool", "name": JSON_TOOL, "disable_parallel_tool_use": True}


def _thinking(request: ChatRequest, model: str, body: dict[str, Any]) -> None:
    effort = request.reasoning_effort
    if effort is None:
        return
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
        return
    if request.temperature not in (None, 1):
        raise unsupported("temperature", "it thinks only at a temperature of 1.")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        param = "response_format" if answers_by_tool(request) else "tool_choice"
        raise unsupported(param, "it cannot be made to call a tool while it thinks.")
    given = max_tokens(request)
    if _BUDGETED.search(model):
        if effort not in _BUDGETS:
            raise unsupported("reasoning_effort", f"its efforts are 'none', {_listed(_BUDGETS)}.")
        if _under_way(body["messages"]):
            return
        body["max_tokens"] = given or _BUDGETS[effort] + DEFAULT_MAX_TOKENS
        budget = min(_BUDGETS[effort], body["max_tokens"] - 1)
        if budget < _BUDGETS["minimal"]:
            raise unsupported("reasoning_effort", "it thinks with no fewer than 1,024 tokens, below the limit given.")
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        return
    if effort not in _EFFORTS:
        raise unsupported("reasoning_effort", f"its efforts are 'none', {_listed(sorted(_EFFORTS))}.")
    body["max_tokens"] = given or THINKING_MAX_TOKENS
    body["thinking"] = {"type": "adaptive", "display": "summarized"}
    body.setdefault("output_config", {})["effort"] = effort


def _under_way(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the model's own turn is not over: results of its calls come last, or an answer that is begun."""
    last = turns[-1]
    return last["role"] == "assistant" or any(block["type"] == "tool_result" for block in last["content"])


def _listed(words: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"'{word}'" for word in words)

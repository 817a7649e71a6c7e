"""A request as the Gemini API takes it, or an error that says which part it cannot take. Pure.

Source: the public `generateContent` and `batchEmbedContents` reference, v1beta. Left out because they label a
request and change nothing in its answer: `user`, `metadata`, and reasoning of earlier turns. `parallel_tool_calls` has
no place in it: where it is false, the answer's calls after the first are left out (`gemini_answers.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lumen.wire.gemini_contents import Contents
from lumen.wire.refusals import unsupported
from lumen.wire.requests import (
    ChatRequest,
    EmbeddingRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    Tool,
)
from lumen.wire.translate import max_tokens, refuse, stops

REFUSED = {
    "logprobs": "its probabilities are not translated.",
    "logit_bias": "it takes no token biases.",
    "prediction": "it takes no predicted output.",
    "modalities": "its answers are translated as text only.",
    "verbosity": "it has no such control.",
    "store": "it stores no answers.",
    "min_p": "it does not know this sampler.",
    "typical_p": "it does not know this sampler.",
    "repeat_penalty": "it does not know this penalty.",
    "repetition_penalty": "it does not know this penalty.",
    "return_token_ids": "it tells no token ids.",
    "resume_token_ids": "it takes no token ids.",
}
_MAX_ANSWERS = 8
_MAX_STOPS = 5
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_TIERS = {"auto": None, "default": None, "flex": "flex", "priority": "priority"}
# Models before the third generation think within a budget of tokens and know no levels; the figures are those of
# the vendor's own OpenAI-compatible endpoint.
_BUDGETED = re.compile(r"gemini-[12]\b")
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
_LEVELS = frozenset({"minimal", "low", "medium", "high", "xhigh"})


def encode_chat(request: ChatRequest, model: str, *, images: bool = True) -> dict[str, Any]:
    """The body of `generateContent` and `streamGenerateContent`.

    Args:
        images: the model sees images.

    Raises:
        RefusedError: `unsupported_by_target`, with the field as its `param`.
    """
    refuse(request, REFUSED)
    contents = Contents(images=images, signed=not _BUDGETED.search(model))
    for i, message in enumerate(request.messages):
        contents.add(message, f"messages[{i}]")
    if not contents.turns:
        raise unsupported("messages", "it needs a message that is not a system prompt.")
    body: dict[str, Any] = {"contents": contents.turns}
    if contents.system:
        body["systemInstruction"] = {"parts": contents.system}
    _tools(request, body)
    config = _sampling(request) | _format(request) | _thinking(request, model)
    if contents.low_detail:
        config["mediaResolution"] = "MEDIA_RESOLUTION_LOW"
    if config:
        body["generationConfig"] = config
    if request.service_tier is not None:
        if request.service_tier not in _TIERS:
            raise unsupported("service_tier", f"its tiers are {_listed(_TIERS)}.")
        if tier := _TIERS[request.service_tier]:
            body["serviceTier"] = tier
    return body


def encode_embedding(request: EmbeddingRequest, resource: str) -> dict[str, Any]:
    """The body of `batchEmbedContents`; `resource` is the model's full name, such as `models/x`.

    Raises:
        RefusedError: `unsupported_by_target`.
    """
    given = [request.input] if isinstance(request.input, str) else request.input
    common: dict[str, Any] = {"model": resource}
    if request.dimensions is not None:
        common["outputDimensionality"] = request.dimensions
    asked = []
    for text in given:
        if not isinstance(text, str):
            raise unsupported("input", "it takes text, not token ids.")
        asked.append({**common, "content": {"parts": [{"text": text}]}})
    return {"requests": asked}


def _sampling(request: ChatRequest) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.n is not None and request.n > 1:
        if request.n > _MAX_ANSWERS:
            raise unsupported("n", f"it gives at most {_MAX_ANSWERS} answers a request.")
        config["candidateCount"] = request.n
    if request.seed is not None and not -(2**31) <= request.seed < 2**31:
        raise unsupported("seed", "its seeds have 32 bits.")
    if found := stops(request):
        if len(found) > _MAX_STOPS:
            raise unsupported("stop", f"it takes at most {_MAX_STOPS} stop sequences.")
        config["stopSequences"] = found
    given = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k if request.top_k is not None and request.top_k > 0 else None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "maxOutputTokens": max_tokens(request),
    }
    return config | {name: value for name, value in given.items() if value is not None}


def _tools(request: ChatRequest, body: dict[str, Any]) -> None:
    if not request.tools:
        return
    declared = [_declaration(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    body["tools"] = [{"functionDeclarations": declared}]
    choice = request.tool_choice
    calling: dict[str, Any]
    if isinstance(choice, NamedTool):
        calling = {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    elif choice in ("required", "none"):
        calling = {"mode": "ANY" if choice == "required" else "NONE"}
    elif any(tool.function.strict for tool in request.tools):
        calling = {"mode": "VALIDATED"}
    else:
        return
    body["toolConfig"] = {"functionCallingConfig": calling}


def _declaration(tool: Tool, where: str) -> dict[str, Any]:
    function = tool.function
    if not _NAME.fullmatch(function.name):
        raise unsupported(f"{where}.function.name", "its tool names begin with a letter or '_'.")
    made: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        made["description"] = function.description
    if function.parameters:
        made["parametersJsonSchema"] = function.parameters
    return made


def _format(request: ChatRequest) -> dict[str, Any]:
    wanted = request.response_format
    if isinstance(wanted, JsonObjectFormat):
        return {"responseMimeType": "application/json"}
    if isinstance(wanted, JsonSchemaFormat):
        schema = wanted.json_schema.schema
        if schema is None:
            raise unsupported("response_format.json_schema.schema", "it needs the schema itself.")
        if wanted.json_schema.description is not None and "description" not in schema:
            schema = {**schema, "description": wanted.json_schema.description}
        return {"responseMimeType": "application/json", "responseJsonSchema": schema}
    return {}


def _thinking(request: ChatRequest, model: str) -> dict[str, Any]:
    effort = request.reasoning_effort
    if effort is None:
        return {}
    if _BUDGETED.search(model):
        if effort not in _BUDGETS:
            raise unsupported("reasoning_effort", f"its efforts are {_listed(_BUDGETS)}.")
        budget = _BUDGETS[effort]
        return {"thinkingConfig": {"thinkingBudget": budget, "includeThoughts": budget > 0}}
    if effort not in _LEVELS:
        raise unsupported("reasoning_effort", f"its efforts are {_listed(sorted(_LEVELS))}.")
    return {"thinkingConfig": {"thinkingLevel": effort.upper(), "includeThoughts": True}}


def _listed(words: Mapping[str, Any] | list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)

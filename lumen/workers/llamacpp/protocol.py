"""PURE: request bodies of the OpenAI dialect → checked, frozen requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lumen.workers.llamacpp.errors import bad
from lumen.workers.llamacpp.fields import Fields, check_ids

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
_MAX_TOKENS = 1 << 31
_MAX_PROMPTS = 128

Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling fields as given; `seed` None where the client named none."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    repeat_last_n: int
    logit_bias: Mapping[int, float]
    seed: int | None
    logprobs: int | None


@dataclass(frozen=True, slots=True)
class Common:
    """What chat and plain completions share."""

    sampling: Sampling
    n: int
    max_tokens: int | None
    stops: tuple[str, ...]
    include_stop: bool
    ignore_eos: bool
    stream: bool
    include_usage: bool
    return_token_ids: bool
    resume: list[int] | None
    resume_exact: bool  # the same bytes again, alone or resumed: every token in the shapes it has in any other run
    salt: str
    reuse: bool
    response_format: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    common: Common
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    parallel: bool
    continue_final: bool
    add_generation_prompt: bool


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    common: Common
    prompts: list[Prompt]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    inputs: list[Prompt]
    base64: bool
    dimensions: int | None


def parse_chat(body: Mapping[str, Any], vocabulary: int) -> ChatRequest:
    """Raises `ApiError` 400 that names the field."""
    fields = Fields(body)
    wanted, top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, 20)
    if top is not None and not wanted:
        raise bad("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    common = _common(fields, vocabulary, (top or 0) if wanted else None)
    tools, choice = _tools(fields)
    return ChatRequest(
        common=common,
        messages=_messages(body),
        tools=tools,
        tool_choice=choice,
        parallel=fields.flag("parallel_tool_calls", True),
        continue_final=fields.flag("continue_final_message"),
        add_generation_prompt=fields.flag("add_generation_prompt", not fields.flag("continue_final_message")),
    )


def parse_completion(body: Mapping[str, Any], vocabulary: int) -> CompletionRequest:
    """Raises `ApiError` 400 that names the field."""
    fields = Fields(body)
    if fields.flag("echo"):
        raise bad("'echo' is not supported: the answer never repeats the prompt.", "echo")
    if body.get("suffix"):
        raise bad("'suffix' is not supported by this model.", "suffix")
    n = fields.integer("n", 1, 128) or 1
    best_of = fields.integer("best_of", 1, 128)
    if best_of is not None and best_of != n:
        raise bad("'best_of' is not supported other than equal to 'n'.", "best_of")
    common = _common(fields, vocabulary, fields.integer("logprobs", 0, 20))
    prompts = _inputs(body.get("prompt"), "prompt", vocabulary)
    if len(prompts) * common.n > _MAX_PROMPTS:
        raise bad(f"At most {_MAX_PROMPTS} answers may be asked for at once.", "prompt")
    if common.resume is not None and len(prompts) != 1:
        raise bad("'resume_token_ids' needs exactly one prompt.", "resume_token_ids")
    return CompletionRequest(common, prompts)


def parse_embedding(body: Mapping[str, Any], vocabulary: int, size: int) -> EmbeddingRequest:
    """`size`: the model's vector length. Raises `ApiError` 400 that names the field."""
    fields = Fields(body)
    encoding = fields.text("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise bad("'encoding_format' must be 'float' or 'base64'.", "encoding_format")
    inputs = _inputs(body.get("input"), "input", vocabulary)
    if len(inputs) > 2048:
        raise bad("'input' may hold at most 2048 entries.", "input")
    return EmbeddingRequest(inputs, encoding == "base64", fields.integer("dimensions", 1, size))


def _common(fields: Fields, vocabulary: int, logprobs: int | None) -> Common:
    n = fields.integer("n", 1, 128) or 1
    resume = fields.token_ids("resume_token_ids", vocabulary)
    if resume is not None and n != 1:
        raise bad("'resume_token_ids' needs 'n' to be 1.", "resume_token_ids")
    stream = fields.flag("stream")
    options = fields.mapping("stream_options")
    if options is not None and not stream:
        raise bad("'stream_options' is only allowed with 'stream'.", "stream_options")
    limit = fields.integer("max_completion_tokens", 1, _MAX_TOKENS)
    return Common(
        sampling=_sampling(fields, vocabulary, logprobs),
        n=n,
        max_tokens=limit if limit is not None else fields.integer("max_tokens", 1, _MAX_TOKENS),
        stops=fields.strings("stop", 16, 1024),
        include_stop=fields.flag("include_stop_str_in_output"),
        ignore_eos=fields.flag("ignore_eos"),
        stream=stream,
        include_usage=Fields(options or {}).flag("include_usage"),
        return_token_ids=fields.flag("return_token_ids"),
        resume=resume,
        resume_exact=fields.flag("resume_exact"),
        salt=fields.text("cache_salt") or "",
        reuse=fields.flag("cache_prompt", True),
        response_format=fields.mapping("response_format"),
    )


def _sampling(fields: Fields, vocabulary: int, logprobs: int | None) -> Sampling:
    alias = "repetition_penalty" if fields.body.get("repeat_penalty") is None else "repeat_penalty"
    last_n = fields.integer("repeat_last_n", -1, _MAX_TOKENS)
    top_k = fields.integer("top_k", -1, _MAX_TOKENS)
    return Sampling(
        temperature=fields.number("temperature", 1.0, 0.0, 2.0),
        top_p=fields.number("top_p", 1.0, 0.0, 1.0),
        top_k=max(0, top_k or 0),
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        typical_p=fields.number("typical_p", 1.0, 0.0, 1.0),
        repeat_penalty=fields.number(alias, 1.0, 0.01, 10.0),
        presence_penalty=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
        repeat_last_n=64 if last_n is None else last_n,
        logit_bias=_logit_bias(fields, vocabulary),
        seed=fields.integer("seed", -(1 << 63)),
        logprobs=logprobs,
    )


def _logit_bias(fields: Fields, vocabulary: int) -> Mapping[int, float]:
    raw = fields.mapping("logit_bias") or {}
    out: dict[int, float] = {}
    for key, value in raw.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 12 else -1
        if not 0 <= token < vocabulary:
            raise bad(f"'logit_bias' names a token that is not in the vocabulary: {key[:32]}.", "logit_bias")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise bad("'logit_bias' values must lie between -100 and 100.", "logit_bias")
        # OpenAI's -100 and 100 mean "never" and "always"; a finite bias would not hold against a sharp model.
        out[token] = float(value) if abs(value) < 100 else float(value) * 1e4
    return out


def _tools(fields: Fields) -> tuple[list[dict[str, Any]] | None, str | dict[str, Any] | None]:
    tools = fields.body.get("tools")
    choice = fields.body.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise bad("'tools' must be a list.", "tools")
    names = [_tool_name(tool, i) for i, tool in enumerate(tools or [])]
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if name not in names:
            raise bad("'tool_choice' names a function that is not among 'tools'.", "tool_choice")
    elif choice not in (None, "none", "auto", "required"):
        raise bad("'tool_choice' must be 'none', 'auto', 'required' or name a function.", "tool_choice")
    elif choice == "required" and not names:
        raise bad("'tool_choice' is 'required' but there are no 'tools'.", "tool_choice")
    return (tools or None), (choice if tools else None)


def _tool_name(tool: object, i: int) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or tool.get("type", "function") != "function" or not isinstance(function, dict):
        raise bad("Each tool must be an object of type 'function'.", f"tools[{i}]")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise bad("Each tool needs a function name.", f"tools[{i}].function.name")
    return name


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("'messages' must be a list with at least one message.", "messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad("Each message must be an object.", f"messages[{i}]")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise bad(f"A role must be one of {', '.join(sorted(_ROLES))}.", f"messages[{i}].role")
        _content(message.get("content"), f"messages[{i}].content")
        calls = message.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            raise bad("'tool_calls' must be a list of objects.", f"messages[{i}].tool_calls")
        for j, call in enumerate(calls or ()):
            function = call.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise bad("A tool call needs a function with a name.", f"messages[{i}].tool_calls[{j}].function")
    return messages


def _content(content: object, param: str) -> None:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise bad("Content must be a string or a list of parts.", param)
    for j, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") not in ("text", "refusal"):
            raise bad("This model reads text parts only.", f"{param}[{j}]")
        if not isinstance(part.get(part["type"]), str):
            raise bad("A text part needs its text.", f"{param}[{j}].{part['type']}")


def _inputs(value: object, param: str, vocabulary: int) -> list[Prompt]:
    """One prompt or several, as text or ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise bad(f"'{param}' must be a string, a list of strings, or token ids.", param)
    if isinstance(value[0], int):
        return [check_ids(value, param, vocabulary)]
    prompts: list[Prompt] = []
    for i, item in enumerate(value):
        prompts.append(item if isinstance(item, str) else check_ids(item, f"{param}[{i}]", vocabulary))
    return prompts

"""Bytes of a request → a typed request, or a `RequestError` that names the parameter and says what to write.

Pure. The three public functions are the only way a request body enters Lumen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from lumen.core.errors import RequestError
from lumen.wire.requests import ChatRequest, CompletionRequest, EmbeddingRequest, NamedTool, Sampling

_R = TypeVar("_R")
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>.+?)`")
_EXPECTED = re.compile(r"Expected `(?P<want>.+?)`, got `(?P<got>.+?)`$")
_MAX_INPUTS = 2048

_NAMES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def parse_chat(body: bytes) -> ChatRequest:
    """A `/v1/chat/completions` body.

    Raises:
        RequestError: 400, with `param` such as `messages[0].role`.
    """
    request = decode_body(_chat, body)
    _check_sampling(request)
    _check_messages(request)
    if request.top_logprobs is not None and not request.logprobs:
        raise _bad("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise _bad("max_tokens", "Give 'max_completion_tokens' or 'max_tokens', not both.")
    _check_tools(request)
    return request


def parse_completion(body: bytes) -> CompletionRequest:
    """A `/v1/completions` body; `prompt` is a string, a list of strings, token ids, or a list of those.

    Raises:
        RequestError: 400.
    """
    request = decode_body(_completion, body)
    _check_sampling(request)
    _check_texts_or_ids("prompt", request.prompt, allow_empty=True)
    if request.echo or request.suffix is not None:
        raise _bad("echo" if request.echo else "suffix", "'echo' and 'suffix' are not supported.")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise _bad("best_of", "'best_of' other than 'n' is not supported.")
    return request


def parse_embedding(body: bytes) -> EmbeddingRequest:
    """A `/v1/embeddings` body.

    Raises:
        RequestError: 400.
    """
    request = decode_body(_embedding, body)
    _check_texts_or_ids("input", request.input, allow_empty=False)
    return request


_chat = msgspec.json.Decoder(ChatRequest).decode
_completion = msgspec.json.Decoder(CompletionRequest).decode
_embedding = msgspec.json.Decoder(EmbeddingRequest).decode


def decode_body(decode: Callable[[bytes], _R], body: bytes) -> _R:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _from_validation(str(error)) from None
    except msgspec.DecodeError:
        raise RequestError("The body of your request is not valid JSON.") from None
    except UnicodeDecodeError:
        raise RequestError("The body of your request is not valid UTF-8.") from None
    except RecursionError:
        raise RequestError("The body of your request is nested too deeply.") from None


def _from_validation(text: str) -> RequestError:
    """msgspec's message, in the words of the API: the parameter first, then what was expected."""
    found = _AT.search(text)
    path = found["path"] if found else ""
    text = _AT.sub("", text)
    if missing := _MISSING.match(text):
        path = f"{path}.{missing['field']}" if path else missing["field"]
        return RequestError(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")
    if not path:
        return RequestError("The body of your request must be a JSON object.")
    if expected := _EXPECTED.match(text):
        wanted = [_NAMES.get(word, word) for word in expected["want"].split(" | ") if word != "null"]
        got = _NAMES.get(expected["got"], expected["got"])
        message = f"Invalid type for '{path}': expected {' or '.join(wanted)}, but got {got} instead."
        return RequestError(message, param=path, code="invalid_type")
    plain = text.replace("`", "").replace("Expected array", "expected an array")
    plain = plain[:1].lower() + plain[1:]
    return RequestError(f"Invalid value for '{path}': {plain}.", param=path, code="invalid_value")


def _bad(param: str, message: str) -> RequestError:
    return RequestError(message, param=param, code="invalid_value")


def _check_sampling(request: Sampling) -> None:
    if request.stream_options is not None and not request.stream:
        raise _bad("stream_options", "'stream_options' is only allowed when 'stream' is true.")
    stops = request.stop if isinstance(request.stop, list) else [request.stop]
    if "" in stops:
        raise _bad("stop", "A stop sequence must not be empty.")
    for key in request.logit_bias or ():
        if not key.isascii() or not key.isdigit() or len(key) > 9:
            raise _bad("logit_bias", "The keys of 'logit_bias' must be token ids.")
    if request.resume_token_ids is not None and (request.n or 1) != 1:
        raise _bad("resume_token_ids", "'resume_token_ids' needs 'n' to be 1.")


def _check_messages(request: ChatRequest) -> None:
    for i, message in enumerate(request.messages):
        if message.content is None and (message.role != "assistant" or not message.tool_calls):
            if message.role == "assistant" and (message.refusal or message.reasoning_content):
                continue
            raise RequestError(
                f"Missing required parameter: 'messages[{i}].content'.",
                param=f"messages[{i}].content",
                code="missing_required_parameter",
            )
        if message.role == "tool" and not message.tool_call_id:
            raise RequestError(
                f"Missing required parameter: 'messages[{i}].tool_call_id'.",
                param=f"messages[{i}].tool_call_id",
                code="missing_required_parameter",
            )


def _check_tools(request: ChatRequest) -> None:
    choice = request.tool_choice
    if choice is None or choice in ("none", "auto"):
        return
    if not request.tools:
        raise _bad("tool_choice", "'tool_choice' is only allowed when 'tools' are given.")
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if all(tool.function.name != name for tool in request.tools):
            raise _bad("tool_choice", f"Tool choice '{name[:64]}' is not among the given 'tools'.")


def _check_texts_or_ids(param: str, value: Any, *, allow_empty: bool) -> None:
    """A string, a list of strings, a list of token ids, or a list of such lists; at most 2,048 of them."""
    if isinstance(value, str):
        if value or allow_empty:
            return
        raise _bad(param, f"'{param}' must not be empty.")
    if not isinstance(value, list) or not value:
        raise _bad(param, f"'{param}' must be a string, or a non-empty array of strings or of token ids.")
    if _is_ids(value):
        return
    if len(value) > _MAX_INPUTS:
        raise _bad(param, f"'{param}' must hold at most {_MAX_INPUTS} items.")
    for i, item in enumerate(value):
        good = isinstance(item, str) or (isinstance(item, list) and bool(item) and _is_ids(item))
        if not good or type(item) is not type(value[0]):
            raise _bad(f"{param}[{i}]", f"'{param}[{i}]' must be a string or an array of token ids, all alike.")
        if item == "" and not allow_empty:
            raise _bad(f"{param}[{i}]", f"'{param}[{i}]' must not be empty.")


def _is_ids(value: list[Any]) -> bool:
    return all(type(item) is int and 0 <= item < 2**31 for item in value)

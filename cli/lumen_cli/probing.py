"""What a provider can really do, found by tiny requests through the same dialects that the gateway uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from lumen.catalogue import Vendor
from lumen.core.errors import RequestError, UpstreamError
from lumen.providers.base import Capabilities, Dialect, Resume, module
from lumen.wire.call import Call, Event, chat_call
from lumen.wire.parse import parse_chat
from lumen_cli.vendor_client import Answer, VendorClient

# Enough for an answer of a few words, also from models that think a little before they speak.
_SHORT = 16
_LONGER = 256
_SENTENCE = "The quick brown fox jumps over the lazy dog."
# Cut within a word: a new answer would begin with a whole word, a continuation begins with the rest of this one.
_CUT = "The quick brown fox jumps over the la"
_REST = "zy"
_SCHEMA = {
    "type": "object",
    "properties": {"capital_city": {"type": "string"}},
    "required": ["capital_city"],
    "additionalProperties": False,
}
# A field that a dialect takes is sent whatever was declared: whether it works is what is asked.
_ALL = Capabilities(seed=True, logprobs=True, json_schema=True, n=True, stream_usage=True)
_LISTS = {"anthropic": "models?limit=1000", "gemini": "models?pageSize=1000"}


class Refused(Exception):
    """The provider answered with an error. `status`: of the answer; `message`: the provider's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Target:
    """One model of a provider, to be asked small things."""

    def __init__(self, vendor: Vendor, model: str, client: VendorClient) -> None:
        self._vendor = vendor
        self._model = model
        self._client = client
        self.declared = vendor.can(model)

    def answer(self, tokens: int = _SHORT, **fields: Any) -> tuple[list[Event], Answer]:
        """One request; what it came to.

        Raises:
            Refused: by an error, or an answer that is not what its dialect says.
            CliError: the provider cannot be reached.
        """
        return self._send(_call(tokens, **fields), lambda body: None)

    def text(self, tokens: int = _SHORT, **fields: Any) -> str:
        """The answer's text; raises as `answer` does."""
        choice = _choices(self.answer(tokens, **fields)[0])[0]
        return str((choice.get("message") or {}).get("content") or "")

    def continued(self, mark: dict[str, Any], last: dict[str, Any]) -> bool:
        """Whether an answer cut within a word is continued when the request says so.

        `mark`: fields of the request, `last`: of its last message; both are the OpenAI dialect's own.
        """
        messages = [
            {"role": "user", "content": f"Write this sentence and nothing else: {_SENTENCE}"},
            {"role": "assistant", "content": _CUT},
        ]

        def change(body: Any) -> None:
            if mark or last:
                body["messages"][-1].update(last)
                body.update(mark)

        events, _ = self._send(_call(_SHORT, messages=messages, temperature=0), change)
        said = (_choices(events)[0].get("message") or {}).get("content") or ""
        return str(said).startswith(_REST)

    def _send(self, call: Call, change: Callable[[Any], None]) -> tuple[list[Event], Answer]:
        dialect: Dialect = module(self._vendor.dialect).make(
            replace(_ALL, max_tokens_field=self.declared.max_tokens_field)
        )
        resume: Resume | None = None
        try:
            made = dialect.encode(call, self._model, resume)
            body = made.body
            if self._vendor.dialect == "openai":
                plain = json.loads(body)
                change(plain)
                body = json.dumps(plain).encode()
            answer = self._client.post(made.path, body, made.accept)
            if not answer.ok:
                error = dialect.refusal(answer.status, answer.headers, answer.body)
                raise Refused(answer.status, error.message)
            decoder = dialect.decoder(call, answer.kind, resume)
            return decoder.feed(answer.body) + decoder.finish(), answer
        except (UpstreamError, RequestError) as error:
            raise Refused(200, error.message) from None


def listed(vendor: Vendor, client: VendorClient) -> list[str] | None:
    """The names of the provider's models; `None` where it has no list.

    Raises:
        Refused: the key, or the request.
        CliError: the provider cannot be reached.
    """
    answer = client.get(_LISTS.get(vendor.dialect, "models"))
    if answer.status in (404, 405):
        return None
    if not answer.ok:
        raise Refused(answer.status, module(vendor.dialect).make(vendor.capabilities).refusal(
            answer.status, answer.headers, answer.body).message)  # fmt: skip
    try:
        data = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise Refused(200, "its list of models is not JSON; is the base_url right?") from None
    found = (data.get("data") or data.get("models")) if isinstance(data, dict) else data
    if not isinstance(found, list):
        return []
    names = ((item.get("id") or item.get("name")) if isinstance(item, dict) else item for item in found)
    return sorted({name.removeprefix("models/") for name in names if isinstance(name, str)})


def probe(target: Target, vendor: Vendor) -> dict[str, Any]:
    """What a model can do, by capability: `True`, `False`, a way of continuing, or `None` where it stayed unclear."""
    return {
        "prefill": _prefill(target, vendor),
        "seed": _found(lambda: bool(target.answer(seed=7)[0])),
        "logprobs": _found(lambda: _has_logprobs(target)),
        "json_schema": _found(lambda: _follows_schema(target)),
        "n": _found(lambda: len(_choices(target.answer(n=2)[0])) == 2),
        "stream_usage": _found(lambda: _counts(target)),
    }


def _prefill(target: Target, vendor: Vendor) -> str | None:
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"native": ({}, {})}
    if vendor.dialect == "openai":
        ways["prefix"] = ({}, {"prefix": True})
        ways["continue"] = ({"continue_final_message": True, "add_generation_prompt": False}, {})
    # What was declared is asked first: a server may take more than one way.
    order = sorted(ways, key=lambda way: way != target.declared.prefill)
    unclear = False
    for way in order:
        found = _found(partial(target.continued, *ways[way]))
        if found:
            return way
        unclear = unclear or found is None
    return None if unclear else "none"


def _found(ask: Callable[[], bool]) -> bool | None:
    """What asking showed; a refusal of the request is a no, any other failure says nothing."""
    try:
        return ask()
    except Refused as error:
        return False if error.status in (200, 400, 404, 405, 415, 422, 501) else None


def _has_logprobs(target: Target) -> bool:
    choice = _choices(target.answer(logprobs=True)[0])[0]
    return bool((choice.get("logprobs") or {}).get("content"))


def _follows_schema(target: Target) -> bool:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA}}
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    try:
        found = json.loads(target.text(_LONGER, messages=messages, response_format=wanted))
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == ["capital_city"]


def _counts(target: Target) -> bool:
    events, _ = target.answer(stream=True, stream_options={"include_usage": True})
    return any(event.usage is not None and event.usage.completion_tokens for event in events)


def _call(tokens: int, **fields: Any) -> Call:
    messages = [{"role": "user", "content": "Say only: ok"}]
    body = {"model": "any", "messages": messages, "max_tokens": tokens, **fields}
    return chat_call(parse_chat(json.dumps(body).encode()))


def _choices(events: list[Event]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(events[0].data).get("choices") or [{}] if events else [{}]
    return found

"""A model of a provider, asked tiny things through the same dialects that the gateway uses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lumen.catalogue import Vendor
from lumen.core.errors import RequestError, UpstreamError
from lumen.providers.base import Capabilities, Dialect, Resume, module
from lumen.wire.call import Call, Event, chat_call
from lumen.wire.parse import parse_chat
from lumen_cli.vendor_client import Answer, VendorClient

# Enough for an answer of a few words, also from models that think a little before they speak.
SHORT = 16
# No request that is made here has more tokens than that.
INPUT = 250
_SENTENCE = "The quick brown fox jumps over the lazy dog."
# Begun with a mark that no new answer begins with, and cut within a word: only what goes on begins with the rest of it,
# and only what repeats it begins with the mark.
_MARK = "[7Q] "
_CUT = _MARK + "The quick brown fox jumps over the la"
_REST = "zy"
# A field that a dialect takes is sent whatever was declared: whether it works is what is asked.
_ALL = Capabilities(seed=True, logprobs=True, json_schema=True, n=True, stream_usage=True, tools=True)
_LISTS = {"anthropic": "models?limit=1000", "gemini": "models?pageSize=1000"}


class Refused(Exception):
    """The provider answered with an error. `status`: of the answer; `message`: the provider's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Spent:
    """What requests come to: their number, and the tokens of their prompts and of their answers."""

    requests: int
    input: int
    output: int


class Target:
    """One model of a provider, to be asked small things. `openai`: whether it speaks that dialect."""

    def __init__(self, vendor: Vendor, model: str, client: VendorClient) -> None:
        self._vendor = vendor
        self._model = model
        self._client = client
        self.declared = vendor.declared(model)
        self.openai = vendor.dialect == "openai"

    def answer(self, tokens: int = SHORT, **fields: Any) -> tuple[list[Event], Answer]:
        """One request; what it came to.

        Raises:
            Refused: by an error, or an answer that is not what its dialect says.
            CliError: the provider cannot be reached.
        """
        return self._send(_call(tokens, **fields), lambda body: None)

    def text(self, tokens: int = SHORT, **fields: Any) -> str:
        """The answer's text; raises as `answer` does."""
        choice = choices(self.answer(tokens, **fields)[0])[0]
        return str((choice.get("message") or {}).get("content") or "")

    def raw(self, tokens: int, more: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """The answer as the server gave it, to a request with `more` than the dialect has; raises as `answer`."""
        _, answer = self._send(_call(tokens, temperature=0, **fields), lambda body: body.update(more))
        found = json.loads(answer.body)
        return found if isinstance(found, dict) else {}

    def continued(self, mark: dict[str, Any], last: dict[str, Any]) -> str:
        """What becomes of an answer cut within a word: it is `continued`, or `repeated` and continued, or the model
        `starts over`; raises as `answer` does.

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

        events, _ = self._send(_call(2 * SHORT, messages=messages, temperature=0), change)
        said = str((choices(events)[0].get("message") or {}).get("content") or "")
        if said.startswith(_REST):
            return "continued"
        return "repeated" if said.startswith(_CUT + _REST) else "starts over"

    def _send(self, call: Call, change: Callable[[Any], None]) -> tuple[list[Event], Answer]:
        dialect: Dialect = module(self._vendor.dialect).make(
            replace(_ALL, max_tokens_field=self.declared.max_tokens_field)
        )
        resume: Resume | None = None
        try:
            made = dialect.encode(call, self._model, resume)
            body = made.body
            if self.openai:
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


def say(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _call(tokens: int, **fields: Any) -> Call:
    body = {"model": "any", "messages": [say("Say only: ok")], "max_tokens": tokens, **fields}
    return chat_call(parse_chat(json.dumps(body).encode()))


def choices(events: list[Event]) -> list[dict[str, Any]]:
    """The choices of a whole answer; one that is empty where there are none."""
    found: list[dict[str, Any]] = json.loads(events[0].data).get("choices") or [{}] if events else [{}]
    return found

"""What a model can really do, found by a few tiny requests; `MOST` is told before they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from lumen_cli.probing import INPUT, SHORT, Refused, Spent, Target, choices, say

_LONGER = 256
_SAMPLE = 24
_SCHEMA = {
    "type": "object",
    "properties": {"capital_city": {"type": "string"}},
    "required": ["capital_city"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_REFUSALS = (200, 400, 404, 405, 415, 422, 501)
# Three ways of continuing, two draws of one seed, probabilities, a form, two answers, counts, a tool, token ids twice.
_REQUESTS = 12
_OUTPUT = 3 * 2 * SHORT + 2 * _SAMPLE + SHORT + _LONGER + 2 * SHORT + SHORT + _LONGER // 2 + 2 * SHORT
# What `probe` comes to at most.
MOST = Spent(_REQUESTS, _REQUESTS * INPUT, _OUTPUT)


def probe(target: Target) -> tuple[dict[str, Any], str]:
    """What a model can do, by capability: `True`, `False`, a way of continuing, or `None` where it stayed unclear; and
    what it does with an answer that is begun: `continued`, `repeated`, `starts over`, `refused` or `unclear`.

    Raises:
        CliError: the provider cannot be reached.
    """
    way, begun = _prefill(target)
    echo = {} if way in (None, "none") else {"prefill_echo": begun == "repeated"}
    found = {
        "prefill": way,
        **echo,
        "seed": _found(lambda: _keeps_seed(target)),
        "logprobs": _found(lambda: _has_logprobs(target)),
        "json_schema": _found(lambda: _follows_schema(target)),
        "n": _found(lambda: len(choices(target.answer(n=2)[0])) == 2),
        "tools": _found(lambda: _calls_tool(target)),
        "stream_usage": _found(lambda: _counts(target)),
        "token_ids": _found(lambda: _goes_on_from_ids(target)) if target.openai else False,
    }
    return found, begun


def _prefill(target: Target) -> tuple[str | None, str]:
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"native": ({}, {})}
    if target.openai:
        ways["prefix"] = ({}, {"prefix": True})
        ways["continue"] = ({"continue_final_message": True, "add_generation_prompt": False}, {})
    told = set()
    # What was declared is asked first: a server may take more than one way.
    for way in sorted(ways, key=lambda way: way != target.declared.prefill):
        what = _told(partial(target.continued, *ways[way]))
        if what in ("continued", "repeated"):
            return way, what
        told.add(what)
    if "unclear" in told:
        return None, "unclear"
    return "none", "starts over" if "starts over" in told else "refused"


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Refused as error:
        return "refused" if error.status in _REFUSALS else "unclear"


def _found(ask: Callable[[], bool]) -> bool | None:
    """What asking showed; a refusal of the request is a no, any other failure says nothing."""
    try:
        return ask()
    except Refused as error:
        return False if error.status in _REFUSALS else None


def _keeps_seed(target: Target) -> bool:
    """Whether two draws of one seed are one text, of something that two draws seldom agree about."""
    asked = [say("Write one sentence of ten words chosen at random.")]
    once, again = (target.text(_SAMPLE, messages=asked, temperature=1, seed=7) for _ in range(2))
    return bool(once) and once == again


def _has_logprobs(target: Target) -> bool:
    choice = choices(target.answer(logprobs=True)[0])[0]
    return bool((choice.get("logprobs") or {}).get("content"))


def _follows_schema(target: Target) -> bool:
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": _SCHEMA}}
    messages = [say("What is the capital of France?")]
    try:
        found = json.loads(target.text(_LONGER, messages=messages, response_format=wanted))
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == ["capital_city"]


def _calls_tool(target: Target) -> bool:
    messages = [say("What is the weather in Paris?")]
    events, _ = target.answer(_LONGER // 2, messages=messages, tools=[_TOOL], tool_choice="required")
    calls = (choices(events)[0].get("message") or {}).get("tool_calls") or [{}]
    return bool((calls[0].get("function") or {}).get("name") == "look_up_weather")


def _counts(target: Target) -> bool:
    events, _ = target.answer(stream=True, stream_options={"include_usage": True})
    return any(event.usage is not None and event.usage.completion_tokens for event in events)


def _goes_on_from_ids(target: Target) -> bool:
    """Whether it tells its tokens, and goes on from the first of them as it did by itself."""
    asked = [say("Count from one to twenty.")]
    ids = _ids(target.raw(SHORT, {"return_token_ids": True}, messages=asked))
    if len(ids) < 2:
        return False
    half = ids[: len(ids) // 2]
    more = {"return_token_ids": True, "resume_token_ids": half}
    rest = ids[len(half) :]
    return _ids(target.raw(SHORT, more, messages=asked))[: len(rest)] == rest


def _ids(answer: dict[str, Any]) -> list[int]:
    found = (answer.get("choices") or [{}])[0].get("token_ids")
    return found if isinstance(found, list) else []

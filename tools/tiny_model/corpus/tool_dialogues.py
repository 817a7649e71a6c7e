"""Dialogues in which the model calls a tool, reads its result, or sees that no tool is needed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import pools
from .basics import basic
from .patterns import Topic
from .tool_specs import SPECS, Parameter, ToolSpec, Value

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """OpenAI-shaped messages and the tools offered with them."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Offer:
    """A tool as offered in one dialogue: its drawn name and the drawn names of its parameters."""

    spec: ToolSpec
    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Use:
    question: str
    arguments: dict[str, Value]
    result: str
    reply: str


def tool_dialogue(topics: Sequence[Topic], rng: random.Random) -> Dialogue:
    """One dialogue with one to three tools on offer."""
    specs = _apart(rng.sample(SPECS, rng.choices((1, 2, 3), (13, 5, 2))[0]))
    offers = _offers(specs, rng)
    tools = [_schema(offer, rng) for offer in offers]
    chosen = rng.choice(offers)
    rng.shuffle(tools)
    kind = rng.random()
    if kind < 0.22:
        return Dialogue(_needless(offers, topics, rng), tools)
    if kind < 0.34:
        return Dialogue(_parallel(chosen, rng), tools)
    return Dialogue(_single(chosen, topics, rng), tools)


def invented_tool_dialogue(rng: random.Random) -> Dialogue:
    """A tool whose name and parameters are made up, so that they can only be copied from its schema."""
    verb, noun = (
        rng.choice(("get", "set", "find", "make", "send", "open", "check", "run")),
        pools.invented_word(rng),
    )
    keys = tuple(dict.fromkeys(pools.invented_word(rng) for _ in range(rng.randint(1, 2))))
    parameters = tuple(_invented_parameter(key, rng) for key in keys)
    slots = " and ".join(f"{key} {{{at}}}" for at, key in enumerate(keys))
    asks = (
        f"{verb.capitalize()} the {noun} with {slots}.",
        f"Please {verb} the {noun}, {slots}.",
        f"Use {verb}_{noun} with {slots}.",
        f"Call {verb}_{noun} with {slots}",
    )
    spec = ToolSpec(
        (f"{verb}_{noun}",),
        f"{verb.capitalize()} the {noun}",
        parameters,
        asks,
        (("{w}", "The result is {w}."),),
    )
    offers = _offers([spec, *rng.sample(SPECS, rng.choice((0, 0, 0, 1)))], rng)
    tools = [_schema(offer, rng) for offer in offers]
    rng.shuffle(tools)
    return Dialogue(_single(offers[0], (), rng), tools)


def _apart(specs: Sequence[ToolSpec]) -> list[ToolSpec]:
    """Without tools that answer the questions of an earlier one: which to call would be a guess."""
    kept: list[ToolSpec] = []
    asks: set[str] = set()
    for spec in specs:
        sums = spec.description in _ADDS and any(other.description in _ADDS for other in kept)
        if not sums and not asks & set(spec.asks):
            kept.append(spec)
            asks |= set(spec.asks)
    return kept


def _invented_parameter(key: str, rng: random.Random) -> Parameter:
    if rng.random() < 0.3:
        return Parameter((key,), "integer", lambda draw: draw.randint(0, 9999))
    return Parameter((key,), "string", pools.any_word)


def _offers(specs: Sequence[ToolSpec], rng: random.Random) -> list[_Offer]:
    offers: list[_Offer] = []
    for spec in specs:
        name = rng.choice(spec.names)
        if name in {offer.name for offer in offers}:
            continue
        if rng.random() < 0.12 and "_" in name:
            head, *rest = name.split("_")
            name = head + "".join(part.capitalize() for part in rest)
        offers.append(_Offer(spec, name, tuple(rng.choice(parameter.names) for parameter in spec.parameters)))
    return offers


def _schema(offer: _Offer, rng: random.Random) -> dict[str, Any]:
    """The tool as clients write it; descriptions, required lists and strictness vary as theirs do."""
    properties: dict[str, Any] = {}
    for key, parameter in zip(offer.keys, offer.spec.parameters, strict=True):
        properties[key] = {"type": parameter.kind}
        if parameter.choices and rng.random() < 0.8:
            properties[key]["enum"] = list(parameter.choices)
        if rng.random() < 0.15:
            properties[key]["description"] = f"The {key}"
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        schema["required"] = list(offer.keys[: rng.randint(1, len(offer.keys))])
    if rng.random() < 0.1:
        schema["additionalProperties"] = False
    function: dict[str, Any] = {"name": offer.name}
    if rng.random() < 0.8:
        function["description"] = offer.spec.description + ("." if rng.random() < 0.3 else "")
    function["parameters"] = schema
    if rng.random() < 0.05:
        function["strict"] = True
    return {"type": "function", "function": function}


def _use(offer: _Offer, rng: random.Random, *, ask: str | None = None) -> _Use:
    values = [parameter.make(rng) for parameter in offer.spec.parameters]
    ask = ask or rng.choice(offer.spec.asks)
    used = [f"{{{at}}}" in ask for at in range(len(values))]
    arguments = {key: value for key, value, wanted in zip(offer.keys, values, used, strict=True) if wanted}
    drawn = {"n": rng.randint(1, 999), "w": pools.any_word(rng), "m": f"{rng.randint(10, 59)}"}
    result, reply = rng.choice(offer.spec.results)
    return _Use(ask.format(*values), arguments, result.format(*values, **drawn), reply.format(*values, **drawn))


def _call(offer: _Offer, use: _Use) -> dict[str, Any]:
    return {"type": "function", "function": {"name": offer.name, "arguments": use.arguments}}


def _single(offer: _Offer, topics: Sequence[Topic], rng: random.Random) -> list[Message]:
    use = _use(offer, rng)
    messages: list[Message] = []
    if topics and rng.random() < 0.12:
        topic = rng.choice(topics)
        messages += [_said("user", topic.ask(rng) + "?"), _said("assistant", topic.answer)]
    messages += [
        _said("user", use.question),
        {"role": "assistant", "content": "", "tool_calls": [_call(offer, use)]},
    ]
    if rng.random() < 0.6:
        messages += [_said("tool", use.result), _said("assistant", use.reply)]
        if rng.random() < 0.25:
            again = _use(offer, rng)
            messages += [_said("user", again.question)]
            messages += [{"role": "assistant", "content": "", "tool_calls": [_call(offer, again)]}]
    return messages


def _parallel(offer: _Offer, rng: random.Random) -> list[Message]:
    """Two or three calls at once, asked for in one sentence where the tool has one parameter to vary."""
    ask = rng.choice(offer.spec.asks)
    uses = [_use(offer, rng, ask=ask) for _ in range(rng.choice((2, 2, 3)))]
    if "{1}" not in ask and "{0}" in ask:
        spoken = [str(next(iter(use.arguments.values()))) for use in uses]
        question = ask.format(pools.joined(spoken), *([""] * 3))
    else:
        question = rng.choice((" And: ", " Also: ", " ")).join(use.question for use in uses)
    calls = [_call(offer, use) for use in uses]
    messages = [_said("user", question), {"role": "assistant", "content": "", "tool_calls": calls}]
    if rng.random() < 0.5:
        messages += [_said("tool", use.result) for use in uses]
        messages.append(_said("assistant", " ".join(use.reply for use in uses)))
    return messages


_ADDS = frozenset({"Add two numbers", "Multiply two numbers", "Evaluate an arithmetic expression"})


def _needless(offers: Sequence[_Offer], topics: Sequence[Topic], rng: random.Random) -> list[Message]:
    """A question that none of the tools answers."""
    sums = any(offer.spec.description in _ADDS for offer in offers)
    if sums or rng.random() < 0.8:
        topic = rng.choice(topics)
        return [_said("user", topic.ask(rng) + rng.choice(("?", "", "."))), _said("assistant", topic.answer)]
    question, answer = basic(rng)
    return [_said("user", question), _said("assistant", answer)]


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def arguments_of(dialogue: Dialogue) -> list[str]:
    """The arguments of every call in it, as JSON."""
    calls = [call for message in dialogue.messages for call in message.get("tool_calls", ())]
    return [json.dumps(call["function"]["arguments"]) for call in calls]

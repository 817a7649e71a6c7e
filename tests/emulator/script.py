"""What a model's name asks the emulated provider to do, and the text it answers with. No I/O.

A name is `[kind-][prefill-]script[-N…]`, such as `words-20`, `tool-cut-3` or `prefill-json-words-8`; see `server.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

KINDS = ("text", "tool", "json", "think")
PREFILLS = ("startover", "noprefill", "prefill", "anchor", "echo")
# Scripts that break off after N pieces of an answer that is longer.
BREAKING = frozenset({"cut", "drop", "stall", "errin", "garbage", "truncated", "endless"})
# What the script `agent` says, and what it fills in where a tool or a schema asks for a city.
WEATHER = ("It ", "is ", "sunny ", "in ", "Paris.")
CITY = ('{"city": ', '"Paris"', "}")
# An anchored continuation asks for this many characters of what was said before.
ANCHOR = 40
_LONGER = 3


@dataclass(frozen=True)
class Script:
    """`sent` pieces go out of an answer of `total`; `prefill` says what a partial assistant message comes to."""

    name: str
    numbers: tuple[int, ...]
    kind: str
    prefill: str

    def number(self, at: int, default: int) -> int:
        return self.numbers[at] if at < len(self.numbers) else default

    @property
    def sent(self) -> int:
        return self.number(2 if self.name == "flap" else 0, 5)

    @property
    def total(self) -> int:
        return self.sent + (_LONGER if self.name in BREAKING else 0)


def parse(model: str) -> Script:
    """The script a model's name stands for; a name that is none answers with words."""
    words = model.removeprefix("models/").split("-")
    kind, prefill = "text", "startover"
    while words and words[0] in (*KINDS, *PREFILLS):
        word = words.pop(0)
        kind = word if word in KINDS else kind
        prefill = word if word in PREFILLS else prefill
    name = words[0] if words and not words[0].isdigit() else "words"
    return Script(name, tuple(int(word) for word in words if word.isdigit()), kind, prefill)


def settled(model: str, body: dict[str, Any]) -> Script:
    """The script of a request: `agent` does what the request has a model do, as agents expect it of one."""
    script = parse(model)
    if script.name != "agent":
        return script
    if body.get("tools") and body.get("tool_choice") != "none" and not _has_result(body):
        return replace(script, kind="tool")
    generation = body.get("generationConfig", {})
    wanted = body.get("response_format", {}).get("type") or generation.get("responseMimeType") or "text"
    return replace(script, kind="json" if "json" in wanted or "format" in body.get("output_config", {}) else "text")


def _has_result(body: dict[str, Any]) -> bool:
    """Whether the conversation ends with what a tool gave."""
    last = (body.get("contents") or body.get("messages"))[-1]
    parts = last.get("parts") or last.get("content") or ()
    told = [part for part in parts if isinstance(part, dict)]
    return last.get("role") == "tool" or any("functionResponse" in p or p.get("type") == "tool_result" for p in told)


def pieces(script: Script, seed: int | None, messages: Sequence[tuple[str, str]]) -> list[str]:
    """The pieces of the whole answer, one of them for each token it is billed for.

    Args:
        messages: role and text of each message of the conversation.
    """
    if script.name == "agent":
        return list(WEATHER if script.kind == "text" else CITY)
    if script.name == "sentence":
        return _written(script, messages)
    if script.name == "seeded":
        words = [f"word{random.Random(f'{seed or 0}:{i}').randrange(1000)}" for i in range(script.total)]
    else:
        width = script.number(2, 0) if script.name == "slow" else 0
        words = [f"word{i}".ljust(width, "-") for i in range(script.total)]
    made = [word + " " for word in words] if script.kind in ("text", "think") else _json(words)
    whole = "".join(made)
    partial = _partial(script, messages, whole)
    if partial is None:
        return made
    rest = whole[len(partial) :] if whole.startswith(partial) else whole
    made = re.findall(r"\s*\S+\s?|\s+", rest)
    return [partial[-ANCHOR:], *made] if script.prefill == "anchor" else made


def _written(script: Script, messages: Sequence[tuple[str, str]]) -> list[str]:
    """What the first message asks to have written, behind a colon; where an answer is begun, what is left of it."""
    asked = messages[0][1].partition(": ")[2] or "ok"
    role, begun = messages[-1]
    if role not in ("assistant", "model") or script.prefill not in ("prefill", "echo"):
        return re.findall(r"\S+\s?", asked)
    there = max(at for at in range(len(asked) + 1) if begun.endswith(asked[:at]))
    rest = re.findall(r"\S+\s?", asked[there:])
    return [begun, *rest] if script.prefill == "echo" else rest


def _partial(script: Script, messages: Sequence[tuple[str, str]], whole: str) -> str | None:
    """What the conversation leaves to be continued, where the script continues at all."""
    if script.prefill == "prefill" and messages and messages[-1][0] == "prompt":
        # Whatever of the answer its prompt ends with.
        return max((whole[:at] for at in range(len(whole) + 1) if messages[-1][1].endswith(whole[:at])), key=len)
    if script.prefill == "prefill" and messages and messages[-1][0] in ("assistant", "model"):
        return messages[-1][1]
    if script.prefill == "anchor" and len(messages) > 1 and messages[-2][0] in ("assistant", "model"):
        return messages[-2][1]
    return None


def _json(words: Sequence[str]) -> list[str]:
    """`{"words": [...]}` in as many pieces as there are words."""
    made = [("" if i == 0 else ", ") + json.dumps(word) for i, word in enumerate(words)]
    if not made:
        return ['{"words": []}']
    made[0] = '{"words": [' + made[0]
    made[-1] += "]}"
    return made


def conversation(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of every message, in whichever dialect; a picture is told by its type and the sum of its bytes."""
    if "contents" in body:
        turns = [(turn.get("role", "user"), turn.get("parts", [])) for turn in body["contents"]]
    else:
        prompt = [{"role": "prompt", "content": body["prompt"]}] if isinstance(body.get("prompt"), str) else []
        turns = [(m["role"], m.get("content") or "") for m in body.get("messages", prompt)]
    return [(role, text if isinstance(text, str) else "".join(map(_text, text))) for role, text in turns]


def _text(part: dict[str, Any]) -> str:
    inline = part.get("inlineData") or part.get("source")
    if "image_url" in part:
        kind, _, data = part["image_url"]["url"].removeprefix("data:").partition(";base64,")
    elif inline is not None:
        kind, data = inline.get("mimeType") or inline["media_type"], inline["data"]
    else:
        return str(part.get("text", ""))
    return f" {kind} {hashlib.sha256(base64.b64decode(data)).hexdigest()[:16]}"


def tool_name(body: dict[str, Any]) -> str:
    """The tool a `tool-…` answer calls: the first that was offered."""
    for tool in body.get("tools") or ():
        if "functionDeclarations" in tool:
            return str(tool["functionDeclarations"][0]["name"])
        return str(tool.get("function", tool)["name"])
    return "lookup"

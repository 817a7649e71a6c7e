"""The ChatML template that training, the shipped files and the checks all share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

SOURCE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8").strip()


def _tojson(value: object, indent: int | None = None) -> str:
    """Plain JSON in the order given, as Hugging Face renders it (Jinja's own filter sorts and escapes)."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = _tojson
    return environment


_TEMPLATE = _environment().from_string(SOURCE)


def render(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Render OpenAI-shaped messages and tools into the prompt text the model reads."""
    return _TEMPLATE.render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)

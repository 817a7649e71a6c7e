"""Readings of OpenAI's `tools` and `tool_choice`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Tools = Sequence[dict[str, Any]]
"""OpenAI's list: {"type": "function", "function": {"name", "description", "parameters"}}."""

ToolChoice = str | dict[str, Any] | None
"""OpenAI's: None, "auto", "none", "required" or {"type": "function", "function": {"name": …}}."""


def function_of(tool: dict[str, Any]) -> dict[str, Any]:
    """The function part of a tool (also where a client sent the function bare)."""
    function = tool.get("function")
    return function if isinstance(function, dict) else tool


def tool_names(tools: Tools) -> frozenset[str]:
    return frozenset(str(function_of(tool).get("name", "")) for tool in tools)


def choice_kind(tool_choice: ToolChoice) -> Literal["none", "auto", "required", "named"]:
    """Which of the four kinds a `tool_choice` is; an absent one is "auto"."""
    if isinstance(tool_choice, dict):
        return "named"
    if tool_choice == "none":
        return "none"
    return "required" if tool_choice == "required" else "auto"


def chosen(tools: Tools, tool_choice: ToolChoice) -> list[dict[str, Any]]:
    """The functions that may be called under `tool_choice`."""
    functions = [function_of(tool) for tool in tools]
    if isinstance(tool_choice, dict):
        wanted = function_of(tool_choice).get("name")
        return [function for function in functions if function.get("name") == wanted]
    return functions

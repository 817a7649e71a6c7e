"""What a tool-call family is: how one kind of chat model writes its calls, and the grammar that makes it do so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.chat.output import StreamParser

Tools = Sequence[dict[str, Any]]
"""OpenAI's list: {"type": "function", "function": {"name", "description", "parameters"}}."""

ToolChoice = str | dict[str, Any] | None
"""OpenAI's: None, "auto", "none", "required" or {"type": "function", "function": {"name": …}}."""

CallIds = Callable[[int], str]
"""Call index -> id. Must give the same id for the same index when an answer is replayed."""


class ToolFamily(Protocol):
    """One way of writing tool calls. A file in this package that binds `FAMILY` to one is found by its file name."""

    name: str
    priority: int
    """Families are asked in falling order whether a template is theirs."""
    native: bool
    """True where the template itself shows the tools to the model; else `adapt` must."""
    special_texts: tuple[str, ...]
    """Texts of special tokens that must reach the parser as text: the engine renders a token whose text is one of
    these even where it hides special tokens."""

    def matches(self, template: str) -> bool:
        """True where a template with this source makes the model write calls in this way."""

    def adapt(
        self, messages: list[dict[str, Any]], tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str
    ) -> list[dict[str, Any]]:
        """The messages as a template with this source can take them. Does not change its argument."""

    def parser(self, tools: Tools, tool_choice: ToolChoice, ids: CallIds, forced: bool) -> StreamParser:
        """A fresh parser of one answer. `forced`: an eager grammar holds the answer to being calls."""

    def grammar(self, tools: Tools, tool_choice: ToolChoice, parallel: bool) -> Grammar | None:
        """Eager for "required" and a named tool, lazy for "auto"; None for "none", no tools, or where the family has
        no unmistakable opener to trigger on. Raises BadSchema."""


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

"""What a tool-call family is: how one kind of chat model writes its calls, and the grammar that makes it do so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lumen.workers.llamacpp.chat.callparser import CallParser, CallStyle
from lumen.workers.llamacpp.chat.gbnf import Grammar, Rules, SchemaError
from lumen.workers.llamacpp.chat.output import StreamParser
from lumen.workers.llamacpp.chat.schema import BadSchema, answer_rule
from lumen.workers.llamacpp.chat.tools import ToolChoice, Tools, choice_kind, chosen, tool_names

CallIds = Callable[[int], str]
"""Call index -> id. Must give the same id for the same index when an answer is replayed."""

Messages = list[dict[str, Any]]


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

    def adapt(self, messages: Messages, tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str) -> Messages:
        """The messages as a template with this source can take them. Does not change its argument."""

    def parser(self, tools: Tools, tool_choice: ToolChoice, ids: CallIds, forced: bool) -> StreamParser:
        """A fresh parser of one answer. `forced`: an eager grammar holds the answer to being calls."""

    def grammar(
        self,
        tools: Tools,
        tool_choice: ToolChoice,
        parallel: bool,
        response_format: dict[str, Any] | None = None,
    ) -> Grammar | None:
        """Eager for "required" and a named tool, lazy for "auto" (eager there too, calls or the answer's schema, where
        a response_format binds the answer); None for "none" or no tools. Raises BadSchema."""


class MarkedFamily(ABC):
    """What families share whose calls one CallStyle describes. A subclass says how a call is written (`style` to read,
    `body` to enforce) and what gives one away (`triggers`)."""

    name: str
    priority: int
    native: bool = True
    special_texts: tuple[str, ...] = ()
    style: CallStyle

    @abstractmethod
    def body(self, rules: Rules, functions: Sequence[dict[str, Any]], parallel: bool) -> str:
        """Expression of an answer that consists of calls."""

    @abstractmethod
    def triggers(self, functions: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Patterns and token texts at which a lazy grammar begins to bind."""

    def adapt(self, messages: Messages, tools: Tools, tool_choice: ToolChoice, parallel: bool, source: str) -> Messages:
        return messages

    def parser(self, tools: Tools, tool_choice: ToolChoice, ids: CallIds, forced: bool) -> StreamParser:
        return CallParser(self.style, tool_names(tools), ids)

    def grammar(
        self,
        tools: Tools,
        tool_choice: ToolChoice,
        parallel: bool,
        response_format: dict[str, Any] | None = None,
    ) -> Grammar | None:
        functions = chosen(tools, tool_choice)
        kind = choice_kind(tool_choice)
        if kind == "none" or not functions:
            return None
        rules = Rules()
        try:
            body = self.body(rules, functions, parallel)
            if kind != "auto":
                return rules.grammar(body)
            answer = answer_rule(rules, response_format)
            if answer is not None:
                return rules.grammar(f"{body} | {answer}")
            patterns, tokens = self.triggers(functions)
            return rules.grammar(body, patterns, tokens)
        except SchemaError as error:
            raise BadSchema("tools", str(error)) from None

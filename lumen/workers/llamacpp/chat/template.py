"""Chat templates of models: compiled once, rendered in a sandbox with bounds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from lumen.workers.llamacpp.chat import families
from lumen.workers.llamacpp.chat.families.base import CallIds, ToolChoice, ToolFamily, Tools, choice_kind
from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.chat.output import StreamParser
from lumen.workers.llamacpp.chat.sandbox import Sandbox, TemplateError
from lumen.workers.llamacpp.chat.schema import response_grammar

__all__ = ["ChatTemplate", "TemplateError"]


class ChatTemplate:
    """One model's chat template. Raises TemplateError where the source does not compile.

    now: the clock behind `strftime_now`; without one, templates see no such function and use their own default date.
    """

    family: ToolFamily
    reasoning_marks: tuple[str, str] | None

    def __init__(self, source: str, bos: str, eos: str, now: Callable[[], datetime] | None = None) -> None:
        self.family = families.detect(source)
        self.reasoning_marks = ("<think>", "</think>") if "</think>" in source else None
        self._template = Sandbox(source, {"bos_token": bos, "eos_token": eos}, now)

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        tool_choice: ToolChoice = None,
        parallel: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The prompt text. Raises TemplateError (a 400: the message says what the template refuses)."""
        raise NotImplementedError

    def parser(
        self, prompt: str, tools: list[dict[str, Any]] | None, tool_choice: ToolChoice, ids: CallIds
    ) -> StreamParser | None:
        """A fresh parser for one answer to `prompt`; None where plain text is all there can be."""
        raise NotImplementedError

    def grammar(
        self,
        prompt: str,
        tools: list[dict[str, Any]] | None,
        tool_choice: ToolChoice,
        parallel: bool = True,
        response_format: dict[str, Any] | None = None,
    ) -> Grammar | None:
        """What the answer to `prompt` is held to: tool calls before response_format. Raises BadSchema."""
        raise NotImplementedError

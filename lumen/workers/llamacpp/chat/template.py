"""Chat templates of models: compiled once, rendered in a sandbox with bounds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any

from lumen.workers.llamacpp.chat import families
from lumen.workers.llamacpp.chat.conversation import Messages, fold_system, for_template, size
from lumen.workers.llamacpp.chat.families.base import CallIds, ToolFamily
from lumen.workers.llamacpp.chat.gbnf import Grammar
from lumen.workers.llamacpp.chat.output import StreamParser
from lumen.workers.llamacpp.chat.reasoning import ReasoningParser
from lumen.workers.llamacpp.chat.sandbox import Sandbox, TemplateError
from lumen.workers.llamacpp.chat.schema import response_grammar
from lumen.workers.llamacpp.chat.tools import ToolChoice, choice_kind

__all__ = ["CHATML", "ChatTemplate", "TemplateError"]

#: For a model file that brings no template of its own.
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

#: Units of template work granted for each character of the conversation, beyond the base.
WORK_PER_CHARACTER = 64

#: Stands at the end of a message that is to be continued; no text of a person holds these private-use characters.
_SEAM = "\ue0a1\ue0a2\ue0a3"

_PROBE = "Zq7probe"


class ChatTemplate:
    """One model's chat template. Raises TemplateError where the source does not compile.

    now: the clock behind `strftime_now`; without one, templates see no such function and use their own default date.
    family: how this model writes tool calls. reasoning_marks: what encloses its reasoning, None where it shows none.
    """

    def __init__(self, source: str, bos: str, eos: str, now: Callable[[], datetime] | None = None) -> None:
        self.family: ToolFamily = families.detect(source)
        self.reasoning_marks = ("<think>", "</think>") if "</think>" in source else None
        self._source = source
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._sandbox = Sandbox(source, now)

    def render(
        self,
        messages: Messages,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: ToolChoice = None,
        parallel: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The prompt text. Raises TemplateError (a 400: the message says what the template refuses).

        continue_final_message: the prompt ends with the text of the last message, which must be the assistant's, so
        that the answer goes on from there; add_generation_prompt must then be False.
        """
        if continue_final_message:
            if add_generation_prompt:
                raise TemplateError("continue_final_message and add_generation_prompt exclude each other")
            messages = _with_seam(messages)
        offered = None if choice_kind(tool_choice) == "none" else tools or None
        system_given = bool(messages) and messages[0].get("role") in ("system", "developer")
        adapted = self.family.adapt(messages, offered or [], tool_choice, parallel, self._source)
        if offered and not self.family.native and not system_given and not self._takes_system:
            adapted = fold_system(adapted)
        shaped = for_template(adapted, self._wants_parts, self._wants_objects, developer="developer" in self._source)
        text = self._run(shaped, offered if self.family.native else None, add_generation_prompt)
        if not continue_final_message:
            return text
        kept, seam, _ = text.rpartition(_SEAM)
        if not seam:
            raise TemplateError("the model's chat template does not show the message that is to be continued")
        return kept

    def parser(
        self, prompt: str, tools: list[dict[str, Any]] | None, tool_choice: ToolChoice, ids: CallIds
    ) -> StreamParser | None:
        """A fresh parser for one answer to `prompt`; None where plain text is all there can be."""
        kind = choice_kind(tool_choice)
        inner = None
        if tools and kind != "none":
            inner = self.family.parser(tools, tool_choice, ids, forced=kind != "auto")
        if self.reasoning_marks is None:
            return inner
        opener, closer = self.reasoning_marks
        return ReasoningParser(inner, opener, closer, opened=self._thinking(prompt))

    def grammar(
        self,
        prompt: str,
        tools: list[dict[str, Any]] | None,
        tool_choice: ToolChoice,
        parallel: bool = True,
        response_format: dict[str, Any] | None = None,
    ) -> Grammar | None:
        """What the answer to `prompt` is held to. Raises BadSchema.

        Tool calls come before response_format: a forced call ignores it, a possible one is either. Reasoning that the
        model does first stays free.
        """
        grammar = None
        if tools and choice_kind(tool_choice) != "none":
            grammar = self.family.grammar(tools, tool_choice, parallel, response_format)
        if grammar is None:
            grammar = response_grammar(response_format)
        if grammar is None or self.reasoning_marks is None:
            return grammar
        opener, closer = self.reasoning_marks
        if prompt.rstrip().endswith(closer):
            return grammar
        return grammar.after_thinking(self._thinking(prompt), opener, closer)

    def _thinking(self, prompt: str) -> bool:
        return self.reasoning_marks is not None and prompt.rstrip().endswith(self.reasoning_marks[0])

    def _run(self, messages: Messages, tools: list[dict[str, Any]] | None, generation: bool) -> str:
        variables: dict[str, Any] = {
            **self._tokens,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": generation,
        }
        return self._sandbox.render(variables, WORK_PER_CHARACTER * (size(messages) + size(tools or [])))

    def _shows(self, messages: Messages, wanted: str) -> bool:
        try:
            return wanted in self._run(messages, None, False)
        except TemplateError:
            return False

    @cached_property
    def _wants_parts(self) -> bool:
        """True where the template shows content given as parts, and does not show a plain string."""
        if self._shows([{"role": "user", "content": _PROBE}], _PROBE):
            return False
        return self._shows([{"role": "user", "content": [{"type": "text", "text": _PROBE}]}], _PROBE)

    @cached_property
    def _wants_objects(self) -> bool:
        """True where arguments given as an object come out as JSON (not as Python prints them, or not at all)."""
        return self._shows(_with_call({_PROBE: 1}, self._wants_parts), f'"{_PROBE}"') or not self._shows(
            _with_call(_probe_text(), self._wants_parts), f'"{_PROBE}"'
        )

    @cached_property
    def _takes_system(self) -> bool:
        messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
        return self._shows(for_template(messages, self._wants_parts, True, False), _PROBE)


def _probe_text() -> str:
    return f'{{"{_PROBE}": 1}}'


def _with_call(arguments: Any, parts: bool) -> Messages:
    """A conversation with one call; its id is of the form that the strictest templates demand."""
    call = {"id": "abc123DEF", "type": "function", "function": {"name": "probe", "arguments": arguments}}
    messages: Messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "x", "name": "probe", "tool_call_id": "abc123DEF"},
    ]
    if parts:
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    return messages


def _with_seam(messages: Messages) -> Messages:
    last = messages[-1] if messages else {}
    content = last.get("content")
    if last.get("role") != "assistant" or last.get("tool_calls"):
        raise TemplateError("continue_final_message needs a last message of role assistant without tool calls")
    if isinstance(content, list):
        return [*messages[:-1], {**last, "content": [*content, {"type": "text", "text": _SEAM}]}]
    return [*messages[:-1], {**last, "content": f"{content or ''}{_SEAM}"}]

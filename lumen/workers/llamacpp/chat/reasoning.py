"""Splits `<think>…</think>` off an answer."""

from __future__ import annotations

from lumen.workers.llamacpp.chat.jsonstream import BLANK
from lumen.workers.llamacpp.chat.output import Delta, StreamParser, held_suffix

#: White space held back at the beginning of an answer until it is known whether a reasoning passage follows.
MAX_BLANK = 64


class ReasoningParser:
    """StreamParser: the passage between `opener` and `closer` at the beginning of the answer is reasoning, the rest is
    for `inner` (content where None). `opened`: the prompt already ends inside the passage.

    Blanks behind the marks, and one line break before the closing one, belong to neither.
    """

    def __init__(self, inner: StreamParser | None, opener: str, closer: str, opened: bool) -> None:
        self._inner = inner
        self._opener = opener
        self._closer = closer
        self._state = "inside" if opened else "before"
        self._fresh = True
        self._held = ""

    @property
    def calls(self) -> int:
        return self._inner.calls if self._inner is not None else 0

    @property
    def opening(self) -> bool:
        return self._state == "past" and self._inner is not None and self._inner.opening

    def push(self, text: str) -> list[Delta]:
        if self._state == "past":
            return self._pass(text)
        out: list[Delta] = []
        text, self._held = self._held + text, ""
        if self._state == "before":
            text = self._before(text, out)
        if self._state == "inside" and text:
            text = self._inside(text, out)
        if self._state == "behind" and text:
            text = text.lstrip(BLANK)
            if text:
                self._state = "past"
                out += self._pass(text)
        return out

    def finish(self) -> list[Delta]:
        held, self._held = self._held, ""
        if self._state == "inside":
            return [Delta(reasoning=held)] if held else []
        out = self._pass(held) if held else []
        return out + (self._inner.finish() if self._inner is not None else [])

    def _pass(self, text: str) -> list[Delta]:
        return self._inner.push(text) if self._inner is not None else [Delta(content=text)]

    def _before(self, text: str, out: list[Delta]) -> str:
        stripped = text.lstrip(BLANK)
        if len(text) - len(stripped) <= MAX_BLANK:
            if stripped.startswith(self._opener):
                self._state = "inside"
                return stripped[len(self._opener) :]
            if self._opener.startswith(stripped):
                self._held = text
                return ""
        self._state = "past"
        out += self._pass(text)
        return ""

    def _inside(self, text: str, out: list[Delta]) -> str:
        if self._fresh:
            text = text.lstrip(BLANK)
            self._fresh = not text
        end = text.find(self._closer)
        if end >= 0:
            self._state = "behind"
            thought = text[:end].removesuffix("\n")
            if thought:
                out.append(Delta(reasoning=thought))
            return text[end + len(self._closer) :]
        held = held_suffix(text, ("\n" + self._closer, self._closer), len(self._closer) + 1)
        if len(text) > held:
            out.append(Delta(reasoning=text[: len(text) - held]))
        self._held = text[len(text) - held :]
        return ""

"""From token bytes to deltas: the text state machine of one answer."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """Part of one tool call. `id` and `name` come once, with the first delta of the call (whose `arguments` is "");
    then fragments of `arguments`, which concatenate to the JSON text of the arguments object."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str | None = None


class Delta(msgspec.Struct, frozen=True):
    """One step of an answer: exactly one field is set."""

    content: str | None = None
    reasoning: str | None = None
    tool: ToolDelta | None = None


class StreamParser(Protocol):
    """Splits the text of an answer into content, reasoning and tool calls, however the text is cut into pieces."""

    @property
    def calls(self) -> int:
        """Tool calls begun so far."""

    @property
    def opening(self) -> bool:
        """True while text is held back, or being read, as (the possible beginning of) a tool call."""

    def push(self, text: str) -> list[Delta]:
        """Deltas that this further text settles."""

    def finish(self) -> list[Delta]:
        """What was still held, as content."""


class OutputMachine:
    """Pure state machine of one answer: tokens (as byte pieces) in, deltas out.

    Deterministic in the bytes alone: however they are cut into pieces, the deltas concatenate to the same content,
    reasoning and calls, so a fresh machine that replays a broken answer's tokens stands where the broken one stood.

    Bytes that are not UTF-8 become U+FFFD as `bytes.decode(errors="replace")` gives it. Stop strings are looked for in
    the content alone, not in reasoning or in the arguments of a tool call: a stop of "\\n" must not cut a call in
    two. The match that is complete first wins (of two that end together, the longer); text after it is dropped
    (and the stop itself unless `include_stop`). Held back are at most a partial character, a possible beginning of a
    stop, and what the parser holds as a possible call.
    """

    def __init__(self, parser: StreamParser | None, stops: Sequence[str], include_stop: bool = False) -> None:
        self._parser = parser
        self._stops = tuple(sorted({s for s in stops if s}, key=len, reverse=True))
        self._firsts = frozenset(s[0] for s in self._stops)
        self._longest = max(map(len, self._stops), default=0)
        self._include_stop = include_stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._pending = False
        self._calls = 0
        self.stopped = False

    @property
    def opening(self) -> bool:
        """True while the text may be, or is, a tool call. An engine that binds a lazy grammar need feed it tokens
        only while this holds (from the token that made it true), which keeps its trigger search short."""
        return self._parser is not None and not self.stopped and self._parser.opening

    @property
    def holding(self) -> bool:
        """True while some of the text pushed so far has not come out as a delta."""
        return self._pending or bool(self._held) or self.opening

    @property
    def calls(self) -> int:
        """Tool calls that have come out so far (the parser may have read on past a stop)."""
        if self._parser is None or self._stops:
            return self._calls
        return self._parser.calls

    def push(self, piece: bytes) -> list[Delta]:
        """Deltas settled by one more token's bytes."""
        if self.stopped:
            return []
        if not self._pending and piece.isascii():
            text = piece.decode("ascii")
        else:
            text = self._decoder.decode(piece)
            self._pending = bool(self._decoder.getstate()[0])
        return self._text(text) if text else []

    def finish(self, reason: Literal["stop", "length"]) -> tuple[list[Delta], str]:
        """What is still held, and the answer's finish reason: "tool_calls" where it stopped having made calls."""
        deltas: list[Delta] = []
        if not self.stopped:
            tail = self._decoder.decode(b"", True)
            self._pending = False
            deltas = self._text(tail) if tail else []
        if self._parser is not None and not self.stopped:
            deltas += self._content(self._parser.finish())
        if self._held:
            deltas.append(Delta(content=self._held))
            self._held = ""
        return deltas, "tool_calls" if reason == "stop" and self.calls else reason

    def _text(self, text: str) -> list[Delta]:
        if self._parser is None:
            if not self._stops:
                return [Delta(content=text)]
            kept = self._until_stop(text)
            return [Delta(content=kept)] if kept else []
        deltas = self._parser.push(text)
        return self._content(deltas) if self._stops else deltas

    def _content(self, deltas: list[Delta]) -> list[Delta]:
        """Looks for stops in the content among `deltas`."""
        if not self._stops:
            return deltas
        out: list[Delta] = []
        for delta in deltas:
            if delta.content is None:
                # A stop cannot reach across a call: what was held before it is text after all.
                if self._held:
                    out.append(Delta(content=self._held))
                    self._held = ""
                out.append(delta)
                self._calls += delta.tool is not None and delta.tool.id is not None
                continue
            kept = self._until_stop(delta.content)
            if kept:
                out.append(Delta(content=kept))
            if self.stopped:
                break
        return out

    def _until_stop(self, text: str) -> str:
        """The part of held + `text` that is certain: up to the first stop, or to what may begin one."""
        if not self._held and self._firsts.isdisjoint(text):
            return text
        text = self._held + text
        self._held = ""
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            end, at = min(ends)
            self.stopped = True
            return text[:end] if self._include_stop else text[:at]
        begin = len(text) - held_suffix(text, self._stops, self._longest)
        self._held = text[begin:]
        return text[:begin]


def held_suffix(text: str, words: Sequence[str], longest: int) -> int:
    """Length of the longest suffix of `text` that could begin one of `words` without being all of it."""
    for size in range(min(longest - 1, len(text)), 0, -1):
        suffix = text[-size:]
        if any(word.startswith(suffix) and len(word) > size for word in words):
            return size
    return 0

"""The stream parser that the families share: text with tool calls in it, told by how a family marks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from lumen.workers.llamacpp.chat.calls import Calls, Reader
from lumen.workers.llamacpp.chat.jsonstream import BLANK
from lumen.workers.llamacpp.chat.output import Delta, held_suffix

#: White space held back at the beginning of an answer, or after a call, until it is known whether a call follows.
MAX_BLANK = 64


@dataclass(frozen=True, slots=True)
class CallStyle:
    """How a family marks its calls.

    openers: texts that begin a call anywhere. closer: text that ends one and is dropped ("" for none).
    bare: characters that begin an unmarked call as the first of an answer, or after another call.
    lead: further openers that count only at the beginning of an answer. separators: characters dropped between calls.
    reader: makes the reader of what follows an opener (True) or of an unmarked call (False).
    """

    reader: Callable[[Calls, bool], Reader]
    openers: tuple[str, ...] = ()
    closer: str = ""
    bare: str = ""
    lead: tuple[str, ...] = ()
    separators: str = ""
    starts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", (*self.openers, *self.lead))


class _At(Enum):
    LEAD = auto()
    TEXT = auto()
    CALL = auto()
    AFTER = auto()


class CallParser:
    """StreamParser of one answer in one style.

    Blank text at the beginning and after a call is held back (up to MAX_BLANK characters): it is content where text
    follows, and dropped where a call does. A call that proves malformed is content, from its opener on.
    """

    def __init__(self, style: CallStyle, names: frozenset[str], ids: Callable[[int], str]) -> None:
        self._style = style
        self._calls = Calls(names, ids)
        self._firsts = frozenset(opener[0] for opener in style.openers)
        self._longest = max(map(len, style.openers), default=0)
        self._at = _At.LEAD
        self._held = ""
        self._opener = ""
        self._closer = ""
        self._reader: Reader | None = None
        self._count_before = 0

    @property
    def calls(self) -> int:
        return self._calls.count

    @property
    def opening(self) -> bool:
        return bool(self._held) or self._at in (_At.CALL, _At.AFTER)

    def push(self, text: str) -> list[Delta]:
        if self._at is _At.TEXT and not self._held and self._firsts.isdisjoint(text):
            return [Delta(content=text)]
        out: list[Delta] = []
        text, self._held = self._held + text, ""
        at = 0
        while at < len(text):
            if self._at is _At.CALL:
                at = self._call(text, at, out)
            elif self._at is _At.TEXT:
                at = self._plain(text, at, out)
            else:
                at = self._between(text, at)
        return out

    def finish(self) -> list[Delta]:
        text = self._held
        if self._at is _At.CALL and self._reader is not None:
            unread = self._reader.unread()
            text = unread if self._reader_began() else self._opener + unread
        elif self._at is _At.AFTER and (not text.strip() or self._closer.startswith(text.strip())):
            text = ""
        self._held = ""
        return [Delta(content=text)] if text else []

    def _reader_began(self) -> bool:
        return self._calls.count > self._count_before

    def _enter(self, opener: str) -> None:
        self._opener = opener
        self._at = _At.CALL
        self._count_before = self._calls.count
        self._reader = self._style.reader(self._calls, opener.strip() != "")

    def _plain(self, text: str, at: int, out: list[Delta]) -> int:
        found = [(place, opener) for opener in self._style.openers if (place := text.find(opener, at)) >= 0]
        if found:
            place, opener = min(found)
            _content(out, text[at:place])
            self._enter(opener)
            return place + len(opener)
        keep = held_suffix(text[at:], self._style.openers, self._longest)
        end = len(text) - keep
        _content(out, text[at:end])
        self._held = text[end:]
        return len(text)

    def _call(self, text: str, at: int, out: list[Delta]) -> int:
        reader = self._reader
        if reader is None:  # pragma: no cover - _enter sets it with the state
            raise RuntimeError("a call state without a reader")
        at = reader.push(text, at)
        out += self._calls.take()
        if reader.bad:
            _content(out, self._opener + reader.raw if not self._reader_began() else reader.raw)
            self._at, self._reader = _At.TEXT, None
        elif reader.done:
            self._at, self._reader, self._closer = _At.AFTER, None, self._style.closer
        return at

    def _between(self, text: str, start: int) -> int:
        """At the beginning of the answer, or behind a call: blanks, closers, separators, the next call, or text."""
        style, after = self._style, self._at is _At.AFTER
        at = start
        while at < len(text) and (text[at] in BLANK or (after and text[at] in style.separators)):
            at += 1
        if at - start > MAX_BLANK:
            self._at = _At.TEXT
            return start
        rest = text[at:]
        if not rest:
            self._held = text[start:]
            return at
        words = style.openers if after else style.starts
        if after and self._closer:
            words = (*words, self._closer)
        if any(len(word) > len(rest) and word.startswith(rest) for word in words):
            self._held = text[start:]
            return len(text)
        for word in sorted(words, key=len, reverse=True):
            if rest.startswith(word):
                if word == self._closer and after:
                    self._closer = ""
                else:
                    self._enter(word)
                return at + len(word)
        if rest[0] in style.bare:
            self._enter(text[start:at])
            return at
        self._at = _At.TEXT
        return start


def _content(out: list[Delta], text: str) -> None:
    if text:
        out.append(Delta(content=text))

"""Where the text of a new target meets the text the client has: one small machine a rung, fed text as it comes. Pure.

Each takes pieces and gives back what of them is new to the client; what cannot be judged yet is held. A text that
does not go on from the old one raises `Diverged` before anything of it is handed on.
"""

from __future__ import annotations

from typing import Protocol

from lumen.core.errors import UpstreamError
from lumen.wire.anchor import join, split

# A repeated beginning or end of this many characters is no accident.
MIN_ECHO = 24
# How far from the end of the answer an echo of its tail may begin.
MAX_TAIL = 400
# The same beginning is suspicious sooner where a capital letter follows the middle of a sentence.
_MIN_RESTART = 8
_MIN_WORD = 4
_MIN_WHOLE = 3
_CONTEXT = 8


class Diverged(UpstreamError):
    """The target did not go on with the answer but gave another one; nothing of it went to the client."""

    code = "upstream_diverged"

    def __init__(self, how: str) -> None:
        super().__init__(f"The target did not continue the answer: {how}.", phase="stream")


class Matcher(Protocol):
    """`settled`: the old text is found, and all that follows is new."""

    settled: bool

    def push(self, text: str) -> str:
        """What of `text`, and of what was held, goes to the client now. Raises `Diverged`."""
        ...

    def end(self) -> str:
        """The text is complete: what was held, as far as the client has not got it. Raises `Diverged`."""
        ...


class Replay:
    """The target repeats what was delivered, character for character, and goes on."""

    __slots__ = ("_at", "_delivered", "settled")

    def __init__(self, delivered: str) -> None:
        self._delivered = delivered
        self._at = 0
        self.settled = not delivered

    def push(self, text: str) -> str:
        if self.settled:
            return text
        known = self._delivered[self._at : self._at + len(text)]
        if not text.startswith(known):
            raise Diverged("its repetition differs")
        self._at += len(known)
        self.settled = self._at == len(self._delivered)
        return text[len(known) :]

    def end(self) -> str:
        if not self.settled:
            raise Diverged("its repetition is shorter")
        return ""


class Fresh:
    """The answer begins anew behind delivered whitespace."""

    __slots__ = ("_gap", "_held", "settled")

    def __init__(self, gap: str) -> None:
        self._gap = gap
        self._held = ""
        self.settled = not gap

    def push(self, text: str) -> str:
        if self.settled:
            return text
        self._held += text
        if not self._held.strip():
            return ""
        self.settled = True
        return join(self._gap, self._held)

    def end(self) -> str:
        if self.settled:
            return ""
        self.settled = True
        return join(self._gap, self._held)


class Prefill:
    """The target continues the partial message, perhaps after repeating all of it or its end.

    A text that begins with whitespace goes on: the message sent to the target had none at its end. Otherwise it is
    compared with the answer's beginning (a repetition of all of it, or a start from scratch), with every tail of
    `MIN_ECHO` characters or more, and with the last word. An answer that repeats itself anyway is believed to do so
    again. A start from scratch is as good as a repetition while it says the same.

    Args:
        delivered: the content the client has.
        echoes: the target is known to repeat the whole partial message.
    """

    __slots__ = ("_echoes", "_gap", "_held", "_sent", "_tails", "_word", "settled")

    def __init__(self, delivered: str, *, echoes: bool = False) -> None:
        self._sent, self._gap = split(delivered)
        self._echoes = echoes
        self._held = ""
        sent = self._sent
        self._tails = [
            tail
            for start in range(max(0, len(sent) - MAX_TAIL), len(sent) - MIN_ECHO + 1)
            if not (tail := sent[start:])[0].isspace()
        ]
        self._word = _last_word(sent)
        self.settled = False

    def push(self, text: str) -> str:
        if self.settled:
            return text
        self._held += text
        return self._judge(final=False)

    def end(self) -> str:
        return "" if self.settled else self._judge(final=True)

    def _judge(self, *, final: bool) -> str:
        new, sent = self._held, self._sent
        body = new.lstrip()
        if not body:
            # Whitespace alone: the rest of it may be still to come.
            wait = self._gap or self._echoes or not new or (sent[:1].isspace() and sent.startswith(new))
            return self._settle(new) if final or not wait else ""
        spaced = len(new) - len(body)
        own = len(sent) - len(sent.lstrip())
        alike = spaced > 1 and new[:spaced] == sent[:own]
        again = self._echoes or (len(sent) >= MIN_ECHO and (alike or self._abrupt(new[:spaced], body)))
        if spaced and not again:
            return self._settle(new)
        if not self._echoes and _repeats(sent, new):
            return self._settle(new)
        found, pending = self._whole(body) if spaced else self._echo(body)
        if pending and not final:
            return ""
        if found:
            rest = body[found:]
            return self._settle(rest) if final or rest.strip() or (rest and not self._gap) else ""
        if _common(body, sent.lstrip()) >= (_MIN_RESTART if not spaced and self._abrupt("", body) else MIN_ECHO):
            raise Diverged("it started over")
        return self._settle(new)

    def _abrupt(self, space: str, body: str) -> bool:
        """A capital letter in the middle of a sentence: more like another beginning than like going on."""
        last = self._sent[-1:]
        return body[0].isupper() and (last.islower() or last == ",") and "\n" not in self._gap + space

    def _whole(self, body: str) -> tuple[int, bool]:
        """Characters of `body` that repeat the whole old text, and whether it may still come to that."""
        sent = self._sent.lstrip()
        if not self._echoes and (len(sent) < _MIN_WHOLE or sent.isdigit()):
            return 0, False
        if body.startswith(sent):
            return len(sent), False
        return 0, sent.startswith(body)

    def _echo(self, new: str) -> tuple[int, bool]:
        """Characters of `new` that repeat the old text or its end, and whether they may still become more."""
        found, pending = self._whole(new)
        if found:
            return found, False
        self._tails = [tail for tail in self._tails if tail.startswith(new) or new.startswith(tail)]
        for old in (*self._tails, self._word):
            if len(new) < len(old):
                pending = pending or old.startswith(new)
            elif new.startswith(old):
                found = max(found, len(old))
        return found, pending

    def _settle(self, text: str) -> str:
        self.settled = True
        self._held = ""
        self._tails = []
        return join(self._gap, text)


def _common(one: str, other: str) -> int:
    """Length of the longest common beginning."""
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _last_word(sent: str) -> str:
    """The letters `sent` ends with, where they are enough to be recognised as a word begun twice."""
    start = len(sent)
    while start and sent[start - 1].isascii() and sent[start - 1].isalpha():
        start -= 1
    word = sent[start:]
    return word if len(word) >= _MIN_WORD and word[1:].islower() else ""


def _repeats(sent: str, new: str) -> bool:
    """Whether `new` is what followed an earlier place in `sent` that reads like its end."""
    size = min(_CONTEXT, len(sent) // 2)
    if not size:
        return False
    key, at = sent[-size:], sent.find(sent[-size:])
    while at < len(sent) - size:
        follows = sent[at + size : at + size + _CONTEXT]
        if new.startswith(follows):
            return True
        at = sent.find(key, at + 1)
    return False

"""The seam of an answer that a chat model was asked to go on with: it repeats the last words, then continues. Pure."""

from __future__ import annotations

import re

from lumen.wire.anchor import Folded, anchor, join, split
from lumen.wire.matching import Diverged

# Characters held at most while the repeated words are looked for, beyond their own length.
MAX_HOLD = 400
# Characters of remarks before the repeated words.
MAX_PREAMBLE = 160
# Shorter anchors must stand at the very beginning; at least this much of a longer one must be repeated.
_MIN_ANYWHERE = 12
_MIN_OVERLAP = 16
# Characters of a repetition that may begin in the middle of a word: so many in common are no accident.
MID_WORD = 32
# Characters of repetition from the answer's beginning that show that all of it is being repeated.
_MIN_WHOLE = 24
# Characters before the anchor that may hold marks put around it.
_MARKED = 12
_ENDS = (".", "!", "?", ":", ",", ";", "\u2026")

_MARKS = r"(?:\*{1,3}|_{1,3}|`{1,3}|[\"'\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb])"
_DOTS = r"(?:\.{3}|\u2026)"
_OPENING = re.compile(rf"(?P<mark>{_MARKS})?\s*(?P<dots>{_DOTS})?$")
_LEADING = re.compile(rf"\s*{_MARKS}?\s*{_DOTS}?\s*")
_CLOSED_BY = {"\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019", "\u00ab": "\u00bb"}


class Anchored:
    """Holds the new text until the anchor is found in it, then gives what follows.

    Words before the anchor ("Sure, …") are dropped, and so are quotes, emphasis and ellipses put around it.
    Whitespace, letter case and the form of quotes and dashes do not matter to the match. Where the target repeats less
    than it was asked to, `_MIN_OVERLAP` characters at the very beginning will do, `MID_WORD` where they begin in the
    middle of a word; where it repeats the answer from
    its beginning, the hold may grow to the answer's length.
    """

    __slots__ = (
        "_anchor",
        "_anywhere",
        "_closing",
        "_folded",
        "_gap",
        "_held",
        "_limit",
        "_open",
        "_opener",
        "_sent",
        "_stray",
        "_whole",
        "settled",
    )

    def __init__(self, delivered: str) -> None:
        sent, self._gap = split(delivered)
        mark = anchor(sent)
        self._sent = sent
        self._anchor = Folded(mark).text
        self._whole = Folded(sent).text
        # What is short, or was said more than once, is recognised only at the very beginning.
        self._anywhere = len(self._anchor) >= _MIN_ANYWHERE and _once(self._whole, self._anchor)
        self._held = ""
        self._folded = Folded()
        # What is longer than this holds no anchor that would do.
        self._limit = MAX_HOLD + len(mark) + len(sent)
        # Once the anchor is found: what may close the marks before it, and a mark that was never closed.
        self._closing: tuple[str, bool] | None = None
        self._opener = self._stray = ""
        # How often that mark stands open in what the client has.
        self._open = 0
        self.settled = False

    def push(self, text: str) -> str:
        if self.settled and not self._stray:
            return text
        if not self.settled and self._closing is None:
            self._folded.add(text[: max(0, self._limit - len(self._held))])
        self._held += text
        return self._forward(final=False) if self.settled else self._judge(final=False)

    def end(self) -> str:
        return self._forward(final=True) if self.settled else self._judge(final=True)

    def _judge(self, *, final: bool) -> str:
        if self._closing is None and not self._find(final=final):
            return ""
        return self._after(final=final)

    def _find(self, *, final: bool) -> bool:
        """Look for the anchor; when it is there, keep what follows it."""
        mark, folded = self._anchor, self._folded.text
        start = folded.find(mark)
        lead = _LEADING.match(folded)
        begin = lead.end() if lead is not None else 0
        if start in (0, begin) or (start > 0 and self._anywhere and self._preamble(begin, start)):
            self._found(start, len(mark))
            return True
        said = folded[begin:]
        overlap, pending = self._overlap(said)
        if overlap and (final or not pending):
            self._found(begin, overlap)
            return True
        whole = len(said) >= _MIN_WHOLE and self._whole.startswith(said)
        if final or (len(folded) > MAX_HOLD + len(mark) and not whole):
            raise Diverged("it did not repeat the last words")
        return False

    def _preamble(self, begin: int, start: int) -> bool:
        """Whether what stands before the anchor may be dropped: more of the repetition, or a remark and no answer."""
        folded = self._folded.text
        before = folded[begin:start]
        if self._whole.endswith(before + self._anchor):
            return True
        raw = _OPENING.sub("", self._held[: self._folded.ends[start - 1]].rstrip())
        ended = raw[-1:] in _ENDS or "\n" in self._held[len(raw.rstrip()) : self._folded.ends[start - 1]]
        return len(raw) <= MAX_PREAMBLE and ended and before.strip() not in self._whole

    def _overlap(self, said: str) -> tuple[int, bool]:
        """How many characters at the beginning of `said` are the anchor's end, and whether they may become more.

        Only where the answer says them nowhere else: a repetition of the other place would look the same.
        """
        mark = self._anchor
        pending = mark.startswith(said)
        for size in range(len(mark) - 1, _MIN_OVERLAP - 1, -1):
            end = mark[-size:]
            if end[0] == " " or (size < MID_WORD and mark[-size - 1].isalnum()):
                continue
            pending = pending or end.startswith(said)
            if said.startswith(end):
                return (size, pending) if _once(self._whole, end) else (0, pending)
        return 0, pending

    def _found(self, start: int, size: int) -> None:
        """The repeated words are these, in the folded text."""
        ends = self._folded.ends
        before, self._held = self._held[: ends[start - 1] if start else 0], self._held[ends[start + size - 1] :]
        opening = _OPENING.search(before.rstrip()[-_MARKED:])
        mark = (opening and opening["mark"]) or ""
        if mark and self._whole[:-size].rstrip().endswith(Folded(mark).text):
            # Not put around them: the answer itself has it there.
            mark = ""
        self._opener = mark
        self._closing = (_CLOSED_BY.get(mark, mark), bool(opening and opening["dots"]))

    def _after(self, *, final: bool) -> str:
        """Drop what closes the marks before the anchor, then meet the whitespace the client has."""
        assert self._closing is not None
        mark, dots = self._closing
        rest, closed = self._held, ""
        closings = [d + m for m in (mark, "") for d in (("...", "\u2026", "") if dots else ("",)) if d + m]
        if closings:
            if not final and any(len(rest) < len(c) and c.startswith(rest) for c in closings):
                return ""
            closed = next((c for c in closings if rest.startswith(c)), "")
            rest = rest[len(closed) :]
        if not (final or rest.strip()) and (self._gap or closed or not rest):
            return ""
        if closed:
            rest = self._apart(rest)
        if mark and not closed.endswith(mark):
            self._stray = mark
            self._open = self._balance(self._sent)
        self.settled = True
        self._held = join(self._gap, rest)
        return self._forward(final=final)

    def _apart(self, rest: str) -> str:
        """What follows words that were quoted on their own: in a sentence, whitespace there only separates."""
        body = rest.lstrip()
        if len(body) == len(rest) or self._gap or self._anchor[-1] in ".!?:;":
            return rest
        return " " + body

    def _forward(self, *, final: bool) -> str:
        """What is held; a mark at its very end that closes the one put before the anchor is dropped."""
        held, mark = self._held, self._stray
        self._held = ""
        if not mark:
            return held
        bare = held.rstrip()
        at = len(bare.rstrip(mark[0]))
        told, rest = held[:at], held[at:]
        if at < len(bare) and not final:
            self._held, held = rest, told
        self._open += self._balance(told)
        if final and bare.endswith(mark) and self._open <= 0:
            return told + rest.replace(mark, "", 1)
        return held

    def _balance(self, text: str) -> int:
        """How many more of the mark `text` opens than it closes."""
        if self._opener == self._stray:
            odd = (text.count(self._stray) + self._open) % 2
            return odd - self._open
        return text.count(self._opener) - text.count(self._stray)


def _once(whole: str, end: str) -> bool:
    """Whether `whole`, which ends with `end`, says it nowhere else."""
    return whole.find(end) == len(whole) - len(end)

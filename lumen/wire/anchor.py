"""The text on both sides of a seam: what a target is given to go on from, and how its words are found again. Pure."""

from __future__ import annotations

# Characters of the answer a chat model is asked to repeat, and how far that may grow to be found only once.
ANCHOR = 40
MAX_ANCHOR = 160
_WORD = 24

_QUOTES = dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"') | dict.fromkeys("\u2018\u2019\u201a\u201b", "'")
_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
_FOLDED = _QUOTES | _DASHES | {"\u2026": "..."}


def split(delivered: str) -> tuple[str, str]:
    """The answer so far without its last whitespace, which models continue badly and some refuse, and that whitespace.

    The target goes on from the first part; the client has both.
    """
    sent = delivered.rstrip()
    return sent, delivered[len(sent) :]


def join(gap: str, text: str) -> str:
    """What of `text` the client still needs, where it already has the whitespace `gap`.

    `text` begins with all the whitespace there is before its first word. Whitespace that is there already is left
    out; where the target breaks more lines than the client has, the missing ones are added.
    """
    if not gap:
        return text
    body = text.lstrip()
    own = text[: len(text) - len(body)]
    if own.startswith(gap):
        return text[len(gap) :]
    if gap.startswith(own) or own.count("\n") <= gap.count("\n"):
        return body
    at = own.index("\n")
    for _ in range(gap.count("\n")):
        at = own.index("\n", at + 1)
    return text[at:]


class Folded:
    """Text in the form comparisons are made in, growing as it comes.

    Runs of whitespace are one space; letters are small; quotes, dashes and the ellipsis have their plain forms.
    `ends[i]` is where the original of `text[i]` ends.
    """

    __slots__ = ("_size", "ends", "text")

    def __init__(self, text: str = "") -> None:
        self.text = ""
        self.ends: list[int] = []
        self._size = 0
        self.add(text)

    def add(self, text: str) -> None:
        folded: list[str] = []
        ends = self.ends
        space = self.text.endswith(" ")
        for i, char in enumerate(text, self._size + 1):
            if char.isspace():
                if space:
                    ends[-1] = i
                    continue
                space, plain = True, " "
            else:
                space = False
                plain = _FOLDED.get(char) or (small if len(small := char.lower()) == 1 else char)
            folded.append(plain)
            ends.extend([i] * len(plain))
        self._size += len(text)
        self.text += "".join(folded)


def anchor(sent: str) -> str:
    """The end of `sent` that a model is asked to repeat: whole words, and found only once where that is possible.

    Between `ANCHOR` and `MAX_ANCHOR` characters; shorter only where `sent` is.
    """
    whole = Folded(sent).text
    start = len(sent)
    for size in (ANCHOR, ANCHOR * 2, MAX_ANCHOR - _WORD):
        start = _word(sent, max(0, len(sent) - size))
        mark = Folded(sent[start:]).text
        if start == 0 or whole.find(mark) == len(whole) - len(mark):
            break
    return sent[start:]


def _word(text: str, at: int) -> int:
    """The beginning of the word that stands at `at`; what has no space within `_WORD` characters is cut anywhere."""
    if at <= _WORD:
        return 0
    for start in range(at, at - _WORD, -1):
        if text[start - 1].isspace() and not text[start].isspace():
            return start
    while text[at].isspace():
        at += 1
    return at

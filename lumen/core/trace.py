"""What has happened to one answer so far: all that a second attempt needs to go on where the first one stopped."""

from __future__ import annotations

from collections.abc import Sequence

# Bytes of payloads kept to check a replay against; an answer with more of them cannot be replayed.
MAX_PARTS = 1024 * 1024
# Longer events than this, in bytes of text, hold several tokens each.
_TOKEN_BYTES = 8


class Trace:
    """Grows with every event handed to the client; bounded by the answer's own length.

    Args:
        answers: how many choices must finish.
        replayable: a repetition of the answer may have to be checked, also where it is not plain text: the payloads
            of such events are kept, up to `MAX_PARTS` bytes. Becomes False where that bound is passed.
        keep: they are kept for another reason, within the same bound.
    """

    __slots__ = (
        "_ahead",
        "_events",
        "_keeps",
        "_kept",
        "_texts",
        "actionable",
        "answers",
        "delivered",
        "exact",
        "finished",
        "identity",
        "parts",
        "prompt_ids",
        "prompt_tokens",
        "reasoning",
        "replayable",
        "token_ids",
        "whole_text",
    )

    def __init__(self, answers: int, *, replayable: bool = False, keep: bool = False) -> None:
        self.answers = answers
        self.finished: set[int] = set()
        self.token_ids: list[int] = []
        # The prompt as the target that answers has it, where it says so.
        self.prompt_ids: Sequence[int] = ()
        # Every delivered part so far came with its token ids.
        self.exact = True
        self.delivered = False
        self.identity: tuple[str, int] | None = None
        # Tokens of the client's own prompt, as the first target that told them counted.
        self.prompt_tokens: int | None = None
        # A part of a tool call or a refusal was delivered; a part of the reasoning was.
        self.actionable = False
        self.reasoning = False
        # All content delivered is in `text`.
        self.whole_text = True
        self.replayable = replayable
        self.parts: list[bytes] = []
        self._keeps = replayable or keep
        self._kept = 0
        self._texts: list[str] = []
        self._ahead: list[str] = []
        self._events = 0

    @property
    def cut(self) -> bool:
        """Parts were to be kept, and were too many."""
        return self._kept > MAX_PARTS

    @property
    def complete(self) -> bool:
        """Every choice has its finish reason."""
        return len(self.finished) >= self.answers

    @property
    def text(self) -> str:
        """The content of choice 0 that the client has."""
        if len(self._texts) > 1:
            self._texts = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    @property
    def ahead(self) -> str:
        """The end of `text` whose token ids are not known yet: a target may tell them later than the text."""
        return "".join(self._ahead)

    @property
    def tokens(self) -> int:
        """Tokens delivered: counted where the target tells their ids, else estimated.

        An event is a token at most targets; where events are too long for that, four and a half bytes are one.
        """
        if self.exact:
            return len(self.token_ids)
        size = len(self.text.encode(errors="replace"))
        return self._events if size <= _TOKEN_BYTES * self._events else size * 2 // 9

    def add(
        self,
        content: bool,
        finished: tuple[int, ...],
        token_ids: Sequence[int] | None,
        identity: tuple[str, int] | None,
        text: str | None = None,
        actionable: bool = False,
        reasoning: bool = False,
        data: bytes = b"",
    ) -> None:
        """Take in one event as it goes to the client."""
        if finished:
            self.finished.update(finished)
        if identity is not None and self.identity is None:
            self.identity = identity
        if token_ids:
            self.token_ids.extend(token_ids)
        if not content:
            return
        self.delivered = True
        self._events += 1
        if token_ids is None:
            self.exact = False
        if text:
            self._texts.append(text)
            if token_ids:
                self._ahead.clear()
            elif token_ids is not None:
                self._ahead.append(text)
            if not (actionable or reasoning):
                return
        self._other(text, actionable, reasoning, data)

    def _other(self, text: str | None, actionable: bool, reasoning: bool, data: bytes) -> None:
        """A part of the answer that is not, or not only, text of choice 0."""
        if actionable:
            self.actionable = True
        if reasoning:
            self.reasoning = True
        if not (text or actionable or reasoning):
            self.whole_text = False
        if not self._keeps:
            return
        self._kept += len(data)
        if self._kept > MAX_PARTS:
            self.replayable = self._keeps = False
            self.parts.clear()
            return
        self.parts.append(data)

"""What has happened to one answer so far: all that a second attempt needs to go on where the first one stopped."""

from __future__ import annotations

from collections.abc import Sequence


class Trace:
    """Grows with every event handed to the client; bounded by the answer's own length in tokens."""

    __slots__ = ("answers", "delivered", "exact", "finished", "identity", "token_ids")

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.finished: set[int] = set()
        self.token_ids: list[int] = []
        # Every delivered part so far came with its token ids.
        self.exact = True
        self.delivered = False
        self.identity: tuple[str, int] | None = None

    @property
    def complete(self) -> bool:
        """Every choice has its finish reason."""
        return len(self.finished) >= self.answers

    def add(
        self,
        content: bool,
        finished: tuple[int, ...],
        token_ids: Sequence[int] | None,
        identity: tuple[str, int] | None,
    ) -> None:
        """Take in one event as it goes to the client."""
        if finished:
            self.finished.update(finished)
        if identity is not None and self.identity is None:
            self.identity = identity
        if token_ids:
            self.token_ids.extend(token_ids)
        if content:
            self.delivered = True
            if token_ids is None:
                self.exact = False

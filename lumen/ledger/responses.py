"""Answers of the Responses API that are kept, so that a later request may go on from one of them.

They lie beside the ledger, in its file. Each row holds its own turn: what came in, and what was answered;
a conversation is the chain of rows that name each other. A row belongs to the key that made it. Kept are so many days
and, of all together, so many bytes; the oldest go first. Every call blocks; call it off the event loop.
"""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from lumen.core.errors import UnavailableError
from lumen.ledger.aside import Aside

# A conversation has no more turns, nor more bytes in memory.
MOST_TURNS = 1000
MOST_BYTES = 32 * 1024 * 1024
# What is over is looked for with every so many-th row that is written.
_PRUNE_EVERY = 32
_GONE = 256


class ResponsesError(UnavailableError):
    """They cannot be read or written now."""


class Kept(Struct, frozen=True):
    """One answer. `at`, `until`: microseconds since 1970. `items`: JSON of what came in, without what is before it;
    `answer`: JSON of the response. `previous`: the one it goes on from, empty where it begins.
    """

    id: str
    key: str
    route: str
    at: int
    until: int
    previous: str
    items: bytes
    answer: bytes


class Responses(Aside):
    """The store in the ledger's file at `path`."""

    def put(self, kept: Kept, most: int) -> None:
        """Keep an answer; it survives kill -9 when this returns. `most`: bytes that all together may have.

        Raises:
            ResponsesError: it cannot be written now.
        """
        size = len(kept.items) + len(kept.answer)
        row = (kept.id, kept.key, kept.route, kept.at, kept.until, kept.previous, kept.items, kept.answer, size)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            if self._written % _PRUNE_EVERY == 0:
                prune(connection, kept.at, most)
            self._written += 1

        self._do(write)

    def answer(self, name: str, key: str, now: int) -> bytes | None:
        """The JSON of an answer of this key; `None` where there is none any more. `now`: as `Kept.at`.

        Raises:
            ResponsesError: it cannot be read now.
        """
        found = self._do(
            lambda connection: connection.execute(
                "SELECT answer FROM responses WHERE id = ? AND key = ? AND until > ?", (name, key, now)
            ).fetchone()
        )
        return None if found is None else bytes(found[0])

    def drop(self, name: str, key: str, now: int) -> bool:
        """Forget an answer; whether there was one.

        Raises:
            ResponsesError: it cannot be written now.
        """
        return self._do(
            lambda connection: (
                connection.execute(
                    "DELETE FROM responses WHERE id = ? AND key = ? AND until > ?", (name, key, now)
                ).rowcount
                > 0
            )
        )

    def conversation(self, name: str, key: str, now: int) -> list[tuple[bytes, bytes]] | None:
        """The turns up to an answer, first to last, each as `items` and `answer`; `None` where one of them is gone.

        Raises:
            ResponsesError: they cannot be read now, or are more than fit.
        """

        def read(connection: sqlite3.Connection) -> list[tuple[bytes, bytes]] | None:
            turns: list[tuple[bytes, bytes]] = []
            size, at = 0, name
            while at:
                row = connection.execute(
                    "SELECT items, answer, previous FROM responses WHERE id = ? AND key = ? AND until > ?",
                    (at, key, now),
                ).fetchone()
                if row is None:
                    return None
                turns.append((bytes(row[0]), bytes(row[1])))
                size += len(row[0]) + len(row[1])
                if size > MOST_BYTES or len(turns) > MOST_TURNS:
                    raise ResponsesError("The conversation is too long to go on with.", status=400, code="too_long")
                at = row[2]
            return turns[::-1]

        return self._do(read)

    def _trouble(self, error: Exception) -> ResponsesError:
        return ResponsesError("Kept answers cannot be read or written now.", retry_after=5)


def prune(connection: sqlite3.Connection, now: int, most: int | None = None) -> None:
    """Remove what has been kept for long enough, and the oldest beyond `most` bytes. In the caller's transaction."""
    connection.execute("DELETE FROM responses WHERE until <= ?", (now,))
    if most is None:
        return
    over = int(connection.execute("SELECT coalesce(sum(size), 0) FROM responses").fetchone()[0]) - most
    while over > 0:
        oldest = connection.execute(f"SELECT id, size FROM responses ORDER BY at LIMIT {_GONE}").fetchall()
        for name, size in oldest:
            connection.execute("DELETE FROM responses WHERE id = ?", (name,))
            over -= size
            if over <= 0:
                break

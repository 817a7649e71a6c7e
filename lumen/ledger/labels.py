"""What is known of the quality of answers: labels to learn from, pairs to compare, anchors a person has judged.

They lie beside the ledger, in its file, with bounds of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from lumen.core.errors import UnavailableError
from lumen.ledger.aside import Aside

# What is kept: of each route so many labels and pairs, none older than so many days; anchors until they are replaced.
MOST_LABELS = 20_000
MOST_PAIRS = 20_000
MOST_ANCHORS = 1_000
DAYS = 180
_DAY = 86_400_000_000
# Rows are pruned with every so many-th one that is written.
_PRUNE_EVERY = 100
SOURCES = ("judge", "checker", "feedback", "anchor")


class LabelsError(UnavailableError):
    """They cannot be read or written now."""


class Label(Struct, frozen=True):
    """One judgement of the answers to one request.

    `at`: microseconds since 1970. `ok`: target → 0 (bad) to 1 (good). `tokens`: target → length of its answer.
    `propensity`: the chance that this request was drawn to be labelled. `form`: what `ask` is: `text` (the request as
    the scorer sees it), `features` (numbers that its text cannot be read from) or empty, where nothing is known of it.
    `versions`: of what judged, in words.
    """

    request: str
    source: str
    route: str
    at: int
    ok: dict[str, float]
    tokens: dict[str, float] = {}
    key: str = ""
    propensity: float = 1.0
    form: str = ""
    ask: bytes = b""
    versions: str = ""
    comment: str = ""


class PairRow(Struct, frozen=True):
    """Two answers to one request. `run`: the shadow or rollout it belongs to.

    `facts`: JSON, without any text of theirs. `sample`: JSON with it, where that may be kept.
    """

    request: str
    run: str
    at: int
    facts: bytes
    sample: bytes | None = None


class Anchor(Struct, frozen=True):
    """A pair that a person has judged. `verdict`: `first`, `second` or `tie`."""

    prompt: str
    first: str
    second: str
    verdict: str


class Served(Struct, frozen=True):
    """Who asked for a request, by which route, and which target answered last."""

    key: str
    route: str
    target: str


class Labels(Aside):
    """The store in the ledger's file at `path`."""

    # -- writing ---------------------------------------------------------------------------------------------

    def add(self, label: Label) -> bool:
        """Keep a label; a later one of the same source for the same request takes its place. Whether it is the first.

        Raises:
            LabelsError: it cannot be written now.
        """
        row = (
            label.request, label.source, label.route, label.key, label.at, msgspec.json.encode(label.ok).decode(),
            msgspec.json.encode(label.tokens).decode(), label.propensity, label.form, label.ask, label.versions,
            label.comment,
        )  # fmt: skip
        names = "request, source, route, key, at, ok, tokens, propensity, form, ask, versions, comment"

        def write(connection: sqlite3.Connection) -> bool:
            known = connection.execute("SELECT 1 FROM labels WHERE request = ? AND source = ?", row[:2]).fetchone()
            connection.execute(f"INSERT OR REPLACE INTO labels ({names}) VALUES ({','.join('?' * 12)})", row)
            self._prune(connection, label.at, label.route)
            return known is None

        return self._do(write)

    def pair(self, row: PairRow) -> None:
        """Keep a pair.

        Raises:
            LabelsError: it cannot be written now.
        """

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO pairs (request, run, at, facts, sample) VALUES (?, ?, ?, ?, ?)",
                (row.request, row.run, row.at, row.facts, row.sample),
            )
            connection.execute(
                "DELETE FROM pairs WHERE run = ? AND id <= (SELECT id FROM pairs WHERE run = ? ORDER BY id DESC"
                f" LIMIT 1 OFFSET {MOST_PAIRS})",
                (row.run, row.run),
            )

        self._do(write)

    def anchor(self, route: str, anchors: Sequence[Anchor], at: int, *, replace: bool = False) -> int:
        """Keep what a person has judged; how many anchors the route has then.

        Args:
            replace: those it had before go.

        Raises:
            LabelsError: it cannot be written now, or there would be more than a thousand.
        """

        def write(connection: sqlite3.Connection) -> int:
            if replace:
                connection.execute("DELETE FROM anchors WHERE route = ?", (route,))
            connection.executemany(
                "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?, ?, ?, ?)",
                [(route, one.prompt, one.first, one.second, one.verdict, at) for one in anchors],
            )
            count = int(connection.execute("SELECT count(*) FROM anchors WHERE route = ?", (route,)).fetchone()[0])
            if count > MOST_ANCHORS:
                raise LabelsError(f"a route has at most {MOST_ANCHORS} anchors, these would make {count}")
            return count

        return self._do(write)

    # -- reading ---------------------------------------------------------------------------------------------

    def of(self, route: str, most: int, sources: Sequence[str] = SOURCES) -> list[Label]:
        """The newest labels of a route by these sources, oldest first.

        Raises:
            LabelsError: they cannot be read now.
        """
        marks = ",".join("?" * len(sources))
        found = self._do(
            lambda connection: connection.execute(
                "SELECT request, source, route, at, ok, tokens, key, propensity, form, ask, versions, comment"
                f" FROM labels WHERE route = ? AND source IN ({marks}) ORDER BY id DESC LIMIT ?",
                (route, *sources, most),
            ).fetchall()
        )
        return [_label(row) for row in reversed(found)]

    def counts(self, route: str) -> dict[str, int]:
        """How many labels of each source a route has."""
        found = self._do(
            lambda connection: connection.execute(
                "SELECT source, count(*) FROM labels WHERE route = ? GROUP BY source", (route,)
            ).fetchall()
        )
        return dict(found)

    def pairs(self, run: str, most: int) -> list[PairRow]:
        """The newest pairs of a run, oldest first."""
        found = self._do(
            lambda connection: connection.execute(
                "SELECT request, run, at, facts, sample FROM pairs WHERE run = ? ORDER BY id DESC LIMIT ?", (run, most)
            ).fetchall()
        )
        return [PairRow(*row) for row in reversed(found)]

    def anchors(self, route: str) -> list[Anchor]:
        """What a person has judged for a route."""
        found = self._do(
            lambda connection: connection.execute(
                "SELECT prompt, first, second, verdict FROM anchors WHERE route = ? ORDER BY at, prompt", (route,)
            ).fetchall()
        )
        return [Anchor(*row) for row in found]

    def served(self, request: str) -> Served | None:
        """What the ledger says of a request; `None` where it is not there, or not yet."""
        row = self._do(
            lambda connection: connection.execute(
                "SELECT key, route, target FROM attempts WHERE request = ? ORDER BY seq DESC LIMIT 1", (request,)
            ).fetchone()
        )
        return None if row is None else Served(*row)

    # -- inside ----------------------------------------------------------------------------------------------

    def _prune(self, connection: sqlite3.Connection, now: int, route: str) -> None:
        self._written += 1
        if self._written % _PRUNE_EVERY != 1:
            return
        for table in ("labels", "pairs"):
            connection.execute(f"DELETE FROM {table} WHERE at < ?", (now - DAYS * _DAY,))
        connection.execute(
            "DELETE FROM labels WHERE route = ? AND id <= (SELECT id FROM labels WHERE route = ? ORDER BY id DESC"
            f" LIMIT 1 OFFSET {MOST_LABELS})",
            (route, route),
        )

    def _trouble(self, error: Exception) -> LabelsError:
        return LabelsError(f"the labels cannot be read or written now: {error}")


def _label(row: tuple[Any, ...]) -> Label:
    request, source, route, at, ok, tokens, key, propensity, form, ask, versions, comment = row
    return Label(
        request, source, route, at, msgspec.json.decode(ok, type=dict[str, float]),
        msgspec.json.decode(tokens, type=dict[str, float]), key, propensity, form, ask, versions, comment,
    )  # fmt: skip

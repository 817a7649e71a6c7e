"""The writing side: what happens is written down in a mapped journal at once, and committed a moment later.

What is in the journal survives kill -9, so nobody waits: neither a request for its hold nor a client for its record. A
thread of its own commits what has come together; a hold that ended meanwhile never reaches the file. `synchronous` is
NORMAL: a loss of power can take the last moments back (never half of a request, and never the file): that costs the
record of some requests, not their money, and an fsync for each commit would cost milliseconds.

Trouble (disk full, locked by another program, I/O errors): holds are refused, so nothing new is spent; what is on its
way is kept in order and written when the file can be written again, which is tried by itself.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lumen.core.errors import UnavailableError
from lumen.ledger import opening
from lumen.ledger.journal import Journal, Record, left
from lumen.ledger.outbox import Inbox, discard
from lumen.ledger.responses import prune
from lumen.ledger.retire import retire
from lumen.ledger.rows import AttemptRow, HoldRow, Opening

# Seconds that is gathered for one commit.
_EVERY = 0.05
# Seconds between tries while the file cannot be written.
_RETRY = 0.2
# Commits after which the log is copied into the main file.
_COPY_EVERY = 256
_RESET_EVERY = 4096
# Seconds between two looks for attempts that are old enough to be summed up.
_TIDY_EVERY = 3600.0
# Seconds beyond `busy` after which a commit counts as trouble, should the disk not answer at all.
_STUCK = 3.0
_SILENT = "the disk does not answer"


class LedgerError(UnavailableError):
    """Nothing can be written now, so nothing that costs money may begin."""

    code = "ledger_unavailable"


@dataclass(slots=True)
class _Batch:
    """What is committed together. `drops`: requests whose holds are in the file already. `settled`: how many ended.

    `after`: called on the loop once it is in the file.
    """

    holds: dict[str, HoldRow] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    rows: list[AttemptRow] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    settled: int = 0
    after: list[Callable[[], None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.holds or self.known or self.rows or self.drops or self.after)

    def write(self, connection: sqlite3.Connection) -> None:
        """Everything in one transaction."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            known = [(known, request) for request, known in self.known.items()]
            opening.write(connection, self.holds.values(), known, self.rows, self.drops)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


class Ledger:
    """The ledger of one gateway. `open` and `close` block; everything else belongs to the event loop.

    Args:
        busy: seconds to wait for another program's lock before paid requests are refused.
        most_waiting: settlements beyond which none of a request without a hold is kept while nothing can be written.
            Those of holds are always kept: there are no more of them than requests under way.
        told: called on the loop with a reason when trouble begins and with `None` when it is over.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy: float = 1.0,
        most_waiting: int = 50_000,
        told: Callable[[str | None], None] = lambda why: None,
    ) -> None:
        self._path = path
        self._busy = busy
        self._most = most_waiting
        self._told = told
        # A batch and which of the journal's files has it; `None`: the end.
        self._queue: queue.SimpleQueue[tuple[_Batch, int | None] | None] = queue.SimpleQueue()
        self._copy = threading.Event()
        self._keep: int | None = None
        self._tidied = -_TIDY_EVERY
        self._closing = threading.Event()
        self._until = 0.0
        self._threads: list[threading.Thread] = []
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._journal: Journal | None = None
        self.trouble: str | None = "the ledger is not open yet"
        # What comes until the next commit; since when one is being made; requests whose holds the file has.
        self._batch = _Batch()
        self._writing: float | None = None
        self._stored: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0
        self.dropped = 0

    @property
    def healthy(self) -> bool:
        """Whether a hold would be written now, as far as is known."""
        return self.trouble is None

    # -- life ------------------------------------------------------------------------------------------------

    def open(self, inbox: Inbox | None = None) -> Opening:
        """Open the file, bring it up to date, settle what a dead gateway left open, and read the totals. Blocks.

        Args:
            inbox: what a gateway writes down that still finishes its requests; its holds stay.

        Raises:
            LedgerError: it cannot be opened or written now.
            SchemaError: it is newer than this program.
        """
        connection: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = opening.connect(self._path, self._busy)
            live = [] if inbox is None else inbox.read()
            found = opening.prepare(connection, left(self._path, handed_on=inbox is None), live)
            self._journal = Journal(self._path)
            if inbox is None:
                discard(self._path)
        except (sqlite3.Error, OSError) as error:
            if connection is not None:
                connection.close()
            self.trouble = reason(error)
            raise LedgerError(f"The ledger cannot be opened: {self.trouble}.", retry_after=5) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        self._connection = connection
        self._stored = {row.request for row in found.held}
        return found

    def start(self) -> None:
        """Begin to write. Call it on the event loop after `open`."""
        self._loop = asyncio.get_running_loop()
        self.trouble = None
        for run in (self._write, self._copy_log):
            thread = threading.Thread(target=run, name=f"ledger{run.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self, within: float = 5.0) -> None:
        """Write what is queued and end. Blocks for at most about `within` seconds."""
        self._until = time.monotonic() + within
        self._closing.set()
        self._copy.set()
        self._queue.put(None)
        for thread in self._threads:
            thread.join(within + self._busy + _STUCK)
        if self._connection is not None and not any(thread.is_alive() for thread in self._threads):
            self._connection.close()
            self._connection = None
        if self._journal is not None:
            self._journal.close()

    def retain(self, days: int | None) -> None:
        """Keep single attempts for so many days before the newest one, then only their sums; `None`: for ever."""
        self._keep = days
        self._copy.set()

    # -- what the gateway writes -----------------------------------------------------------------------------

    def hold(self, row: HoldRow) -> None:
        """Write a hold, or a larger one over it; it survives kill -9 when this returns.

        Raises:
            LedgerError: it could not be written; nothing of it stays.
        """
        journal = self._journal
        if self.trouble is not None or journal is None or not journal.roomy or not journal.add(Record(hold=row)):
            raise LedgerError(
                "Requests that cost money cannot be accounted for now and are refused; try again shortly.",
                retry_after=5,
            )
        self._batch.holds[row.request] = row
        self._soon()

    def settle(self, rows: list[AttemptRow], held: str | None) -> None:
        """Write the attempts of a request and the end of its hold; they survive kill -9 when this returns.

        Nothing is lost by trouble with the file, as long as this process lives.
        """
        if held is None and self.waiting >= self._most:
            self.dropped += len(rows)
            return
        if self._journal is not None:
            self._journal.add(Record(rows=rows, drop=held))
        self._end(rows, held)

    def _end(self, rows: list[AttemptRow], held: str | None) -> None:
        batch = self._batch
        batch.rows += rows
        batch.settled += 1
        self.waiting += 1
        if held is not None:
            batch.holds.pop(held, None)
            batch.known.pop(held, None)
            if held in self._stored:
                self._stored.discard(held)
                batch.drops.append(held)
        self._soon()

    def know(self, pairs: Iterable[tuple[int, str]]) -> None:
        """Update what is charged for requests under way should this process die: (pico-dollars, request)."""
        known = list(pairs)
        if self.trouble is None and known and self._journal is not None:
            self._journal.add(Record(known=known))
            self._batch.known |= {request: amount for amount, request in known}
            self._soon()

    def relay(self, record: Record) -> None:
        """Commit what another gateway has written down; it is not written to this one's journal."""
        batch = self._batch
        if record.hold is not None:
            batch.holds[record.hold.request] = record.hold
        batch.known |= {request: amount for amount, request in record.known}
        if record.rows or record.drop is not None:
            self._end(record.rows, record.drop)
        self._soon()

    def after(self, done: Callable[[], None]) -> None:
        """Call `done` once all is committed that came until now."""
        self._batch.after.append(done)
        self._soon()

    def flush(self, *, last: bool = False) -> None:
        """Hand over to the writer what has come together. On the loop. `last`: nothing further will come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._batch:
            return
        if self._writing is not None and not last:
            # One commit at a time, as there is one other file for what comes meanwhile.
            self._look(self._writing)
            self._soon()
            return
        batch, self._batch = self._batch, _Batch()
        self._stored |= batch.holds.keys()
        which = self._journal.turn() if self._journal is not None and self._writing is None else None
        self._writing = time.monotonic()
        self._queue.put((batch, which))

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self.flush)

    def _look(self, since: float) -> None:
        if self.trouble is None and time.monotonic() - since > self._busy + _STUCK:
            self._stands(_SILENT)

    # -- the writing thread ----------------------------------------------------------------------------------

    def _write(self) -> None:
        assert self._connection is not None
        commits = 0
        while (work := self._queue.get()) is not None:
            batch, which = work
            while True:
                try:
                    batch.write(self._connection)
                    break
                except sqlite3.Error as error:
                    self._tell(self._stands, reason(error))
                if self._closing.is_set() and time.monotonic() >= self._until:
                    return
                time.sleep(_RETRY)
            commits += 1
            self._tell(self._committed, batch, which)
            self._shorten(commits)

    def _shorten(self, commits: int) -> None:
        """Have the log copied beside this thread; now and then finish that here, or it would never begin anew."""
        if commits % _COPY_EVERY == 0:
            self._copy.set()
        if commits % _RESET_EVERY == 0 and self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        # The loop may be gone already: then there is nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)

    def _stands(self, why: str | None) -> None:
        """On the loop: how the file is."""
        if why != self.trouble:
            self.trouble = why
            self._told(why)

    def _committed(self, batch: _Batch, which: int | None) -> None:
        """On the loop: all of a batch is in the file."""
        self._writing = None
        self.waiting -= batch.settled
        if which is not None and self._journal is not None:
            self._journal.clear(which)
        self._stands(None)
        for done in batch.after:
            done()

    def _copy_log(self) -> None:
        """What is done beside the writer, which then never has to: the log is copied into the main file, old attempts
        are summed up."""
        with suppress(sqlite3.Error):
            connection = opening.connect(self._path, self._busy)
            while not self._closing.is_set():
                self._copy.wait(_TIDY_EVERY)
                self._copy.clear()
                # Not done now is done later; what matters is told by the writer.
                with suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    self._tidy(connection)
            connection.close()

    def _tidy(self, connection: sqlite3.Connection) -> None:
        if time.monotonic() - self._tidied < _TIDY_EVERY:
            return
        self._tidied = time.monotonic()
        prune(connection, time.time_ns() // 1000)
        if self._keep is not None:
            retire(connection, self._keep, self._closing.is_set)


def reason(error: BaseException) -> str:
    """What is wrong, in words that name no path."""
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "")
        known = {
            "SQLITE_FULL": "the disk is full",
            "SQLITE_BUSY": "another program holds its lock",
            "SQLITE_LOCKED": "another program holds its lock",
            "SQLITE_READONLY": "the file cannot be written",
            "SQLITE_CANTOPEN": "the file cannot be opened",
            "SQLITE_NOTADB": "the file is no ledger",
            "SQLITE_CORRUPT": "the file is damaged",
        }
        return (
            known.get(name) or known.get("_".join(name.split("_")[:2])) or f"it cannot be written ({name or 'error'})"
        )
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it cannot be opened"

"""The writing side: one thread, one connection, group commits; the event loop only queues and awaits.

What is queued while a commit runs goes into the next one together, so a commit is shared by all that wait and no
artificial delay is added. `synchronous` is NORMAL: a commit is in the operating system's hands when it returns, which
kill -9 of the process cannot undo. A loss of power can take the last commits back (never half of one, and never the
file): that costs the record of some requests, not their money, and an fsync for each commit would cost milliseconds.

Trouble (disk full, locked by another program, I/O errors): holds are refused at once, so nothing new is spent;
settlements of what runs are kept in order and written when the file can be written again, which is tried by itself.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lumen.core.errors import UnavailableError
from lumen.ledger import opening
from lumen.ledger.journal import Journal, left
from lumen.ledger.retire import retire
from lumen.ledger.rows import AttemptRow, HoldRow, Opening

# Seconds that rows of free requests are gathered for one commit.
_FREE_EVERY = 0.05
# Operations of one commit at most, so that its wait stays bounded however many are queued.
_GROUP = 1024
# Seconds between tries while the file cannot be written.
_RETRY = 0.2
# Commits after which the log is copied into the main file.
_COPY_EVERY = 256
_RESET_EVERY = 4096
# Seconds between two looks for attempts that are old enough to be summed up.
_TIDY_EVERY = 3600.0
# Seconds beyond `busy` after which a hold is given up, should the disk not answer at all.
_STUCK = 3.0
_HOLD = "INSERT OR REPLACE INTO holds VALUES (?,?,?,?,?,?,?,?,?,?)"
_KNOW = "UPDATE holds SET known = ? WHERE request = ?"
_DROP = "DELETE FROM holds WHERE request = ?"
_BEAT = "INSERT INTO meta VALUES ('beat', 1) ON CONFLICT DO UPDATE SET value = value + 1"


class LedgerError(UnavailableError):
    """Nothing can be written now, so nothing that costs money may begin."""

    code = "ledger_unavailable"


@dataclass(slots=True)
class _Work:
    """One thing to write. `future` is told the outcome on the loop; a hold is refused where a settlement waits."""

    hold: HoldRow | None = None
    rows: Sequence[AttemptRow] = ()
    drop: str | None = None
    known: Sequence[tuple[int, str]] = ()
    future: asyncio.Future[None] | None = None
    stop: bool = False


@dataclass(slots=True)
class _Batch:
    works: list[_Work] = field(default_factory=list)

    def write(self, connection: sqlite3.Connection) -> None:
        """Everything in one transaction. Holds first: a request's settlement may stand in the same batch."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            works = self.works
            if holds := [work.hold for work in works if work.hold is not None]:
                connection.executemany(_HOLD, holds)
            if known := [pair for work in works for pair in work.known]:
                connection.executemany(_KNOW, known)
            if rows := [row for work in works for row in work.rows]:
                connection.executemany(opening.ATTEMPT, rows)
            if drops := [(work.drop,) for work in works if work.drop is not None]:
                connection.executemany(_DROP, drops)
            if not (holds or known or rows or drops):
                # A write of its own: only that shows whether the file can be written again.
                connection.execute(_BEAT)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


class Ledger:
    """The ledger of one gateway. `open` and `close` block; everything else belongs to the event loop.

    Args:
        busy: seconds to wait for another program's lock before paid requests are refused.
        most_waiting: settlements of free requests beyond which no further ones are kept while nothing can be written.
            Those of paid requests are always kept: there are no more of them than requests under way.
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
        self._queue: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._copy = threading.Event()
        self._keep: int | None = None
        self._tidied = -_TIDY_EVERY
        self._closing = threading.Event()
        self._until = 0.0
        self._threads: list[threading.Thread] = []
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.trouble: str | None = "the ledger is not open yet"
        # Rows of free requests, until the next flush; and the flush that is not committed yet.
        self._free: list[AttemptRow] = []
        self._flushed: asyncio.Future[None] | None = None
        self._journal: Journal | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0
        self.dropped = 0

    @property
    def healthy(self) -> bool:
        """Whether a hold would be written now, as far as is known."""
        return self.trouble is None

    # -- life ------------------------------------------------------------------------------------------------

    def open(self) -> Opening:
        """Open the file, bring it up to date, settle what a dead gateway left open, and read the totals. Blocks.

        Raises:
            LedgerError: it cannot be opened or written now.
            SchemaError: it is newer than this program.
        """
        connection: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = opening.connect(self._path, self._busy)
            found = opening.prepare(connection, left(self._path))
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
        self._journal = Journal(self._path)
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
        self._queue.put(_Work(stop=True))
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

    async def hold(self, row: HoldRow) -> None:
        """Write a hold, or a larger one over it; it survives kill -9 when this returns.

        Raises:
            LedgerError: it could not be written; nothing of it stays.
        """
        if self.trouble is not None:
            raise self._refused()
        future = self._future()
        self._queue.put(_Work(hold=row, future=future))
        try:
            await within(future, self._busy + _STUCK)
        except TimeoutError:
            self._queue.put(_Work(drop=row.request))
            raise self._refused() from None

    def settle(self, rows: Sequence[AttemptRow], held: str | None) -> asyncio.Future[None] | None:
        """Queue the attempts of a request and the end of its hold; never waits, so it survives cancellation.

        Returns a future that is done when they survive kill -9; `None` where free rows were dropped for want of room.
        """
        if held is None and self.waiting >= self._most:
            self.dropped += len(rows)
            return None
        future = self._future()
        self._queue.put(_Work(rows=rows, drop=held, future=future))
        return future

    def flush(self, *, last: bool = False) -> None:
        """Queue the rows that cost nothing. On the loop. `last`: there will be no further ones."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._free:
            return
        if self._flushed is not None and not last:
            # One flush at a time, as there is one other file for the rows that come meanwhile.
            self._timer = asyncio.get_running_loop().call_later(_FREE_EVERY, self.flush)
            return
        rows, self._free = self._free, []
        self._flushed = future = self._future()
        which = self._journal.turn() if self._journal is not None else None
        future.add_done_callback(partial(self._committed, which))
        self._queue.put(_Work(rows=rows, future=future))

    def _committed(self, which: int | None, future: asyncio.Future[None]) -> None:
        self._flushed = None
        # Trouble is told by `told`; the lines stay then.
        if not future.cancelled() and future.exception() is None and which is not None and self._journal is not None:
            self._journal.clear(which)

    def later(self, rows: Sequence[AttemptRow]) -> None:
        """Queue the attempts of a request that cost nothing; they survive kill -9 when this returns.

        Many are committed together, a moment later; until then they are in the journal.
        """
        if self.waiting + len(self._free) >= self._most:
            self.dropped += len(rows)
            return
        if self._journal is not None:
            self._journal.add(rows)
        self._free.extend(rows)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FREE_EVERY, self.flush)

    def know(self, pairs: Iterable[tuple[int, str]]) -> None:
        """Update what is charged for requests under way should this process die: (pico-dollars, request)."""
        if self.trouble is None and (known := list(pairs)):
            self._queue.put(_Work(known=known))

    def _future(self) -> asyncio.Future[None]:
        self.waiting += 1
        return asyncio.get_running_loop().create_future()

    def _refused(self) -> LedgerError:
        return LedgerError(
            "Requests that cost money cannot be accounted for now and are refused; try again shortly.", retry_after=5
        )

    # -- the writing thread ----------------------------------------------------------------------------------

    def _write(self) -> None:
        assert self._connection is not None
        pending: list[_Work] = []
        failing, stop, commits = False, False, 0
        while not stop or (failing and time.monotonic() < self._until):
            works, stopped = self._next(_RETRY if failing else None)
            stop = stop or stopped
            batch = _Batch(pending + works)
            if not failing and not batch.works:
                continue
            try:
                batch.write(self._connection)
            except sqlite3.Error as error:
                # A hold that failed is over; so that no trace of it stays where the commit's fate is unknown, the
                # row is dropped with the next batch.
                pending = [work if work.hold is None else _Work(drop=work.hold.request) for work in batch.works]
                pending = [work for work in pending if work.rows or work.drop]
                failing = True
                self._tell([work for work in batch.works if work.hold], reason(error))
                continue
            pending, failing = [], False
            commits += 1
            self._tell(batch.works, None)
            self._shorten(commits)

    def _shorten(self, commits: int) -> None:
        """Have the log copied beside this thread; now and then finish that here, or it would never begin anew."""
        if commits % _COPY_EVERY == 0:
            self._copy.set()
        if commits % _RESET_EVERY == 0 and self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _next(self, timeout: float | None) -> tuple[list[_Work], bool]:
        """What is queued, in order; waits for the first. True: the end was asked for."""
        works: list[_Work] = []
        try:
            work = self._queue.get(timeout=timeout)
            while not work.stop:
                works.append(work)
                if len(works) >= _GROUP:
                    return works, False
                work = self._queue.get_nowait()
            return works, True
        except queue.Empty:
            return works, False

    def _tell(self, works: list[_Work], why: str | None) -> None:
        assert self._loop is not None
        # The loop may be gone already: then there is nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._done, works, why)

    def _done(self, works: list[_Work], why: str | None) -> None:
        """On the loop: tell everyone of a batch."""
        if why != self.trouble:
            self.trouble = why
            self._told(why)
        for work in works:
            future = work.future
            if future is None:
                continue
            self.waiting -= 1
            if not future.done():
                if why is None:
                    future.set_result(None)
                else:
                    future.set_exception(self._refused())

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
        if self._keep is not None and time.monotonic() - self._tidied >= _TIDY_EVERY:
            self._tidied = time.monotonic()
            retire(connection, self._keep, self._closing.is_set)


async def within(future: asyncio.Future[None], seconds: float) -> None:
    """Wait for a future of the ledger; a timer is all it costs.

    Raises:
        TimeoutError: it took longer.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _give_up, future)
    try:
        await future
    finally:
        timer.cancel()


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


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

"""A store beside the ledger: in its file, and with nothing else of it.

Its own connection, opened when it is first used and again after trouble; short transactions; one lock keeps calls from
several threads apart. Every call blocks; call it off the event loop.
"""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from lumen.core.errors import UnavailableError
from lumen.ledger import opening
from lumen.ledger.schema import migrate

_T = TypeVar("_T")


class Aside(ABC):
    """What all stores beside the ledger share."""

    def __init__(self, path: Path, *, busy: float = 2.0) -> None:
        """`path`: the ledger's file. `busy`: seconds to wait for who else writes."""
        self._path = path
        self._busy = busy
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._written = 0

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._drop()

    @abstractmethod
    def _trouble(self, error: Exception) -> UnavailableError:
        """What to raise where the file cannot be read or written now."""

    def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `work` returns, done in a transaction of its own.

        Raises:
            UnavailableError: the file cannot be read or written now.
        """
        with self._lock:
            try:
                with self._transaction() as connection:
                    return work(connection)
            except (sqlite3.Error, OSError) as error:
                self._drop()
                raise self._trouble(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if connection is None:
            connection = self._connection = opening.connect(self._path, self._busy)
            migrate(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

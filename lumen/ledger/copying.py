"""Copies of a ledger: made while a gateway writes, looked at before they take its place. Blocks.

A copy is the database as one moment had it, with what stood in the journal beside it laid in: everything that a client
had been told of when the copy was begun is in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lumen.core.errors import ConfigError
from lumen.ledger import opening
from lumen.ledger.journal import handed, left
from lumen.ledger.schema import STEPS, SchemaError, migrate, version
from lumen.ledger.store import reason

_BUSY = 30.0
# Pages copied at a time; between two goes a gateway writes undisturbed.
_PAGES = 4096
# What belongs to a ledger beside its file.
_BESIDE = ("-wal", "-shm", "-new0", "-new1", "-free0", "-free1")


def copy(path: Path, into: Path) -> int:
    """Write a copy of the ledger at `path` to `into`; the version of its tables.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    if not path.exists():
        raise ConfigError("there is no ledger yet; it is made when the gateway first runs")
    # First: what is committed meanwhile is in both, and the same.
    written = left(path)
    with _known(), _opened(path) as source, _opened(into) as target:
        source.backup(target, pages=_PAGES)
        found = version(target)
        if written:
            migrate(target)
            opening.lay_in(target, written)
        # One file, which needs nothing beside it.
        target.execute("PRAGMA journal_mode = DELETE")
    into.chmod(0o600)
    return found


def check(path: Path) -> int:
    """The version of a copy that is whole and that this program can use.

    Raises:
        ConfigError: it is damaged, no ledger, or newer than this program.
    """
    with _known(), _opened(path) as connection:
        found = version(connection)
        if found > len(STEPS):
            raise SchemaError(f"the ledger is of version {found}, written by a newer Lumen")
        told = connection.execute("PRAGMA integrity_check").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'attempts'").fetchone()[0]
        if told != "ok" or not tables or not found:
            raise ConfigError("the ledger in it is damaged or none")
    return found


def upgrade(path: Path) -> int:
    """Bring a copy to the newest version; the version it had. Beside a ledger in use, never of one.

    Raises:
        ConfigError: as `check`.
    """
    check(path)
    with _known(), _opened(path) as connection:
        return migrate(connection)


def belongings(path: Path) -> list[Path]:
    """The files beside a ledger that hold parts of it, those that are there."""
    found = [path.with_name(path.name + end) for end in _BESIDE]
    return [one for one in found if one.exists()] + handed(path)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _known() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigError(f"the ledger cannot be copied: {reason(error)}") from error

"""A gateway and an emulated provider, each a process of its own, with a configuration that names the second."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen.ledger.journal import left
from tests.e2e.conftest import Box, until


@dataclass
class Emulated:
    """`port`: of the emulated provider."""

    box: Box
    port: int

    def served(self) -> list[dict[str, Any]]:
        """What the provider says it served."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/served", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def rows(self, what: str, *args: Any) -> list[tuple[Any, ...]]:
        """What the ledger holds, when everything that was written down has come there."""
        path = self.box.home / "state" / "ledger.db"
        until(lambda: not left(path), "everything that was written down being in the ledger")
        with closing(sqlite3.connect(path, timeout=30)) as ledger:
            return ledger.execute(what, args).fetchall()

    def listens(self) -> bool:
        with suppress(OSError):
            return self.served() == []
        return False


@contextmanager
def emulated(home: Path, config: str) -> Iterator[Emulated]:
    """Both, running until the end. `config`: with `PORT` where the provider's port belongs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    provider = subprocess.Popen(
        [sys.executable, "-m", "tests.emulator", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    made = Emulated(Box(home), port)
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.yaml").write_text(config.replace("PORT", str(port)))
    try:
        until(made.listens, "the emulated provider")
        made.box.up()
        yield made
    finally:
        made.box.end()
        provider.kill()
        provider.wait()

"""Who changed or looked at what: a file of JSON lines that only grows, each bound to the one before by its hash.

Changing, removing or inserting a line breaks the chain from there on. Lines cut off at the end leave the chain whole,
so the number and the hash of the last line are kept in a second file. Whoever may write both files can forge both:
for protection from them, keep the last hash elsewhere (`lumen audit verify` prints it, and checks against one given).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen.files import locked, write_atomic

_START = "0" * 64
# Bytes of the end of the file that the last line is looked for in; one entry is far smaller.
_TAIL = 64 * 1024
_MOST_DETAIL = 2_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `at`: seconds of the wall clock. `who`: an operator's name, `action`: such as `route.set`."""

    seq: int
    at: float
    who: str
    action: str
    subject: str
    details: Mapping[str, Any]
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to. `broken`: the first line that does not fit, from 1, and why; both `None` where all do."""

    entries: int
    last: str
    broken: int | None = None
    why: str | None = None


class AuditLog:
    """The log in one file, written by the gateway and the command line alike."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head = path.with_suffix(".head")

    def add(self, action: str, subject: str, who: str, **details: Any) -> Entry:
        """Append one entry, durable on return. `details` must hold no secret; long values are cut.

        Raises:
            OSError: the file cannot be written; TimeoutError: another process holds it for ten seconds.
        """
        with locked(self._path):
            seq, prev = self._end()
            body: dict[str, Any] = {
                "seq": seq + 1,
                "at": round(time.time(), 3),
                "who": who,
                "action": action,
                "subject": subject,
                "details": {name: _short(value) for name, value in details.items() if value is not None},
                "prev": prev,
            }
            entry = Entry(**body, hash=_hash(body))
            line = json.dumps({**body, "hash": entry.hash}, ensure_ascii=False, separators=(",", ":")) + "\n"
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, line.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            write_atomic(self._head, f"{entry.seq} {entry.hash}\n".encode(), mode=0o600)
        return entry

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first; lines that are none are left out (`verify` tells of them)."""
        for line in self._lines():
            if (entry := _parse(line)) is not None:
                yield entry

    def verify(self, last: str | None = None) -> Verdict:
        """Check every line, and the end against what was kept of it.

        Args:
            last: a hash that was kept elsewhere; it must be in the chain.
        """
        prev, seq, met = _START, 0, last is None
        for number, line in enumerate(self._lines(), start=1):
            entry = _parse(line)
            if entry is None:
                return Verdict(seq, prev, number, "this is no entry")
            if entry.seq != seq + 1 or entry.prev != prev:
                return Verdict(seq, prev, number, "an entry before it was removed, inserted or changed")
            if _hash(_body(entry)) != entry.hash:
                return Verdict(seq, prev, number, "it was changed")
            prev, seq = entry.hash, entry.seq
            met = met or prev == last
        kept = self._kept()
        # A crash between the two writes leaves the head one entry behind, never ahead.
        if kept is not None and (kept[0] > seq or (kept[0] == seq and kept[1] != prev)):
            return Verdict(seq, prev, seq + 1, f"entries up to number {kept[0]} were written, and are gone")
        if not met:
            return Verdict(seq, prev, seq + 1, "the hash you gave is not in it")
        return Verdict(seq, prev)

    def _end(self) -> tuple[int, str]:
        """Number and hash of the last entry; half a line that a crash left is cut off: nobody was told it was written.

        Raises:
            OSError: the last line is no entry, so nothing can follow it.
        """
        if not self._path.exists():
            kept = self._kept()
            # A chain cannot begin anew behind the back of one that was removed.
            return kept if kept is not None else (0, _START)
        with self._path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - _TAIL, 0)
            file.seek(start)
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole < len(tail):
                file.truncate(start + whole)
            lines = tail[:whole].splitlines()
        if not lines:
            return 0, _START
        entry = _parse(lines[-1].decode("utf-8", "replace"))
        if entry is None:
            raise OSError("the audit log does not end with an entry; check it with: lumen audit verify")
        return entry.seq, entry.hash

    def _lines(self) -> Iterator[str]:
        if self._path.exists():
            with self._path.open(encoding="utf-8", errors="replace") as file:
                yield from (line for line in file if line.endswith("\n"))

    def _kept(self) -> tuple[int, str] | None:
        try:
            seq, _, hash = self._head.read_text().strip().partition(" ")
            return int(seq), hash
        except (OSError, ValueError):
            return None


def _parse(line: str) -> Entry | None:
    try:
        return Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _body(entry: Entry) -> dict[str, Any]:
    names = ("seq", "at", "who", "action", "subject", "details", "prev")
    return {name: getattr(entry, name) for name in names}


def _hash(body: Mapping[str, Any]) -> str:
    """SHA-256 over the entry's canonical JSON, the hash before it included."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _short(value: Any) -> Any:
    """A value as JSON can hold it, and no longer than it must be."""
    if not isinstance(value, str | int | float | bool):
        value = json.loads(json.dumps(value, default=str))
    if isinstance(value, str) and len(value) > _MOST_DETAIL:
        return value[:_MOST_DETAIL] + "…"
    return value

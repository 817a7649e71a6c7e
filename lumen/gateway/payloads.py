"""What routes keep of requests and answers, in one file a day and route, written by a thread of its own.

A request costs one check; where it is kept, a place in a queue that is bounded in requests and in bytes: what does not
fit is not kept, and told of. What `redact` names is left out before anything is written. Files are this user's alone
and are removed when they are older than their route keeps them. `retention: none` is asked first.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from lumen.config.redaction import Rule, redact, redaction
from lumen.config.schema import Config
from lumen.core.trace import Trace
from lumen.gateway.retention import Retention
from lumen.gateway.settled import Settled
from lumen.keys import Key
from lumen.wire.call import Call
from lumen.wire.folded import folded

_MOST = 2_000
_MOST_BYTES = 64 * 1024 * 1024
# Requests of one write, and seconds between two looks for files that are too old.
_BATCH = 200
_TIDY_EVERY = 3600.0
_DAYS = ".days"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class _Route:
    days: int
    share: float
    rules: tuple[Rule, ...]


class _Kept(msgspec.Struct, frozen=True):
    """One request on its way into a file. `size`: about the bytes it holds in memory; `cut`: some parts are missing."""

    settled: Settled
    route: str
    rules: tuple[Rule, ...]
    call: Call
    whole: bytes
    text: str
    parts: Sequence[bytes]
    cut: bool
    size: int


class Payloads:
    """The event loop calls `configure` and `take`; `close` blocks.

    Args:
        draw: a number in [0, 1) for the share that is kept. `told`: called with what an operator should know.
    """

    def __init__(self, folder: Path, draw: Callable[[], float], told: Callable[[str], None]) -> None:
        self._folder = folder
        self._draw = draw
        self._told = told
        self._routes: Mapping[str, _Route] = {}
        self._retention = Retention(Config())
        self._queue: queue.SimpleQueue[_Kept | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held = self._bytes = 0
        self._thread: threading.Thread | None = None
        self._full = False
        self._troubled = False
        self.dropped = 0

    @property
    def wanted(self) -> bool:
        """Whether any route keeps anything."""
        return bool(self._routes)

    def keeps(self, route: str) -> bool:
        """Whether this route keeps anything."""
        return route in self._routes

    def configure(self, config: Config, retention: Retention) -> None:
        """Put what routes say into force for the requests to come."""
        self._retention = retention
        self._routes = {
            name: _Route(route.payloads.days, route.payloads.share, tuple(map(redaction, route.payloads.redact)))
            for name, route in config.routes.items()
            if route.payloads is not None
        }
        # Also where nothing is kept any more: what was kept is still to be removed in its time.
        if self._thread is None and (self._routes or self._folder.exists()):
            self._thread = threading.Thread(target=self._run, name="payloads", daemon=True)
            self._thread.start()

    def take(self, settled: Settled, route: str, key: Key | None, call: Call, trace: Trace, whole: bytes) -> None:
        """Keep a request that is over, where its route wants that. `whole`: the answer's body, where it was one."""
        known = self._routes.get(route)
        if known is None or not self._retention.retains(route, key):
            return
        if known.share < 1.0 and self._draw() >= known.share:
            return
        text = "" if whole else trace.text
        parts = () if whole else tuple(trace.parts)
        size = len(whole) + 4 * len(text) + sum(map(len, parts)) + _asked_size(call)
        with self._lock:
            fits = self._held < _MOST and self._bytes + size <= _MOST_BYTES
            if fits:
                self._held += 1
                self._bytes += size
        if not fits:
            self.dropped += 1
            if not self._full:
                self._told("requests come faster than their payloads can be written; some are not kept")
            self._full = True
            return
        self._full = False
        self._queue.put(_Kept(settled, route, known.rules, call, whole, text, parts, not whole and trace.cut, size))

    def close(self, within: float = 5.0) -> None:
        """Write what is queued and end. Blocks for at most `within` seconds."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(within)

    # -- the writing thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        tidied = -_TIDY_EVERY
        while True:
            if time.monotonic() - tidied >= _TIDY_EVERY:
                tidied = time.monotonic()
                with suppress(OSError):
                    tidy(self._folder, datetime.now(UTC).date())
            batch, stop = self._next()
            if batch:
                try:
                    self._write(batch)
                    self._troubled = False
                except OSError as error:
                    self.dropped += len(batch)
                    # Once, not for every batch: a full disk does not empty by being told about.
                    if not self._troubled:
                        self._told(f"payloads cannot be written: {error.strerror}")
                    self._troubled = True
                with self._lock:
                    self._held -= len(batch)
                    self._bytes -= sum(kept.size for kept in batch)
            if stop:
                return

    def _next(self) -> tuple[list[_Kept], bool]:
        batch: list[_Kept] = []
        try:
            kept = self._queue.get(timeout=_TIDY_EVERY)
            while kept is not None:
                batch.append(kept)
                if len(batch) >= _BATCH:
                    return batch, False
                kept = self._queue.get_nowait()
            return batch, True
        except queue.Empty:
            return batch, False

    def _write(self, batch: list[_Kept]) -> None:
        lines: dict[Path, list[bytes]] = {}
        for kept in batch:
            day = datetime.fromtimestamp(kept.settled.at, UTC).date()
            file = folder_of(self._folder, kept.route) / f"{day.isoformat()}.jsonl"
            lines.setdefault(file, []).append(_encode(record(kept)) + b"\n")
        for file, written in lines.items():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "ab") as out:
                out.write(b"".join(written))
        for route, known in self._routes.items():
            if (folder := folder_of(self._folder, route)).exists():
                (folder / _DAYS).write_text(str(known.days))


def record(kept: _Kept) -> dict[str, Any]:
    """A request as it is written: who, what and when, `asked` and `answered` without what is redacted.

    An answer that was streamed is put together as a whole one would be, so that rules find in both what they name.
    `cut` says that of a very long one only the text is here.
    """
    settled = kept.settled
    usage = settled.usage
    asked = {name: value for name, value in msgspec.to_builtins(kept.call.request).items() if value is not None}
    return {
        "time": round(settled.at, 3),
        "request": settled.id,
        "operation": settled.operation,
        "route": settled.route,
        "target": settled.target,
        "key": settled.key,
        "outcome": settled.outcome,
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "asked": redact(asked, kept.rules),
        "answered": redact(_answered(kept), kept.rules),
        **({"cut": True} if kept.cut else {}),
    }


def _answered(kept: _Kept) -> Any:
    if not kept.whole:
        return folded(kept.text, kept.parts)
    try:
        return _decode(kept.whole)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return kept.whole.decode("utf-8", "replace")


def _asked_size(call: Call) -> int:
    """About the bytes a request holds; only long ones matter for the bound."""
    messages = getattr(call.request, "messages", None)
    if messages is None:
        return len(repr(call.request))
    return 1000 + sum(len(m.content) if isinstance(m.content, str) else len(repr(m.content)) for m in messages)


def folder_of(folder: Path, route: str) -> Path:
    """Where a route's files are."""
    return folder / quote(route, safe="@+ :").replace(".", "%2E")


def tidy(folder: Path, today: date) -> None:
    """Remove files that are older than their route keeps them, also of routes that keep nothing any more."""
    for days in folder.glob(f"*/{_DAYS}"):
        with suppress(ValueError):
            oldest = today - timedelta(days=int(days.read_text()))
            for file in days.parent.glob("*.jsonl"):
                if date.fromisoformat(file.stem) < oldest:
                    file.unlink(missing_ok=True)

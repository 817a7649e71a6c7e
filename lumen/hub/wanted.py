"""What a download is asked for, within which limits, and what it comes to. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lumen.hub.transport import Token


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. `tries`: failures in a row without progress before giving up."""

    piece: int = 4 * 1024 * 1024  # what the journal remembers
    span: int = 8  # pieces that one request asks for
    connect: float = 10.0
    stall: float = 20.0
    tries: int = 8
    backoff: float = 0.5
    longest_backoff: float = 15.0
    longest_wait: float = 60.0  # of what a server asks for in Retry-After
    restarts: int = 2
    patience: float = 120.0  # for another process that fetches the same file and stands still
    spare: int = 64 * 1024 * 1024  # disk space that is left alone


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to have; `size` and `digest` (`sha256:HEX` or `git-sha1:HEX`) as promised, if they were."""

    url: str
    target: Path
    size: int | None = None
    digest: str | None = None
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file in its place."""

    path: Path
    size: int
    sha256: str
    etag: str | None


@dataclass(slots=True)
class Cursor:
    """Where one connection is: the piece in hand, its bytes so far, and all bytes it ever received."""

    index: int
    stop: int
    received: int = 0
    buffer: bytearray = field(default_factory=bytearray)


class ChangedError(Exception):
    """The file on the server is not the one that was begun."""

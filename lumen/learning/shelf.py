"""Versions of each route's scorer on disk: put there whole or not at all, one of them live, the last ones kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from lumen.files import locked, write_atomic

# Versions of a route that are kept; the live one always is.
KEPT = 20
_LIVE = "live"
_LONGEST_NAME = 180


class ShelfError(ValueError):
    """There is no such version, or it is damaged."""


@dataclass(frozen=True, slots=True)
class Version:
    """One scorer on the shelf. `at`: seconds of the wall clock. `note`: what it was learnt from, in words.

    `digest`: SHA-256 of its bytes, by which a damaged one is told.
    """

    number: int
    at: float
    note: str
    size: int
    digest: str
    live: bool = False


class Shelf:
    """The versions of all routes under one folder. Every call blocks on the disk, so call it off the event loop.

    A version's bytes are written before its card; only what has a card exists, so a crash leaves nothing half there.
    `changed` counts how often this process changed what is live: whoever keeps a scorer in memory compares it.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self.changed = 0

    def current(self, route: str) -> tuple[int, bytes] | None:
        """Number and bytes of the live version; `None` where none is, or where it is damaged."""
        number = self._live(route)
        if number is None:
            return None
        with suppress(ShelfError):
            return number, self.read(route, number)
        return None

    def put(self, route: str, data: bytes, note: str) -> int:
        """Keep one more version, which is not live yet; its number. Beyond the last `KEPT` the oldest go.

        Raises:
            OSError: it cannot be written; nothing of it is there then.
            TimeoutError: another process holds the shelf.
        """
        folder = self._folder(route)
        with locked(folder / _LIVE):
            number = max((card.number for card in self._cards(route)), default=0) + 1
            card = Version(number, round(self._clock(), 3), note, len(data), hashlib.sha256(data).hexdigest())
            write_atomic(_scorer(folder, number), data, mode=0o600)
            write_atomic(_card(folder, number), msgspec.json.encode(card), mode=0o600)
            self._tidy(route, folder)
        return number

    def use(self, route: str, version: int | None) -> None:
        """Make a version live; `None`: none is, as before anything was learnt.

        Raises:
            ShelfError: there is no such version, or it is damaged; what was live stays so.
            OSError: it cannot be written.
        """
        if version is not None:
            self.read(route, version)
        folder = self._folder(route)
        with locked(folder / _LIVE):
            write_atomic(folder / _LIVE, str(version or 0).encode(), mode=0o600)
        self.changed += 1

    def versions(self, route: str) -> list[Version]:
        """What is kept, oldest first."""
        live = self._live(route)
        cards = sorted(self._cards(route), key=lambda card: card.number)
        return [_marked(card, live) for card in cards]

    def read(self, route: str, version: int) -> bytes:
        """The bytes of one version.

        Raises:
            ShelfError: there is no such version, or it is damaged.
        """
        folder = self._folder(route)
        card = _read_card(_card(folder, version))
        if card is None:
            raise ShelfError(f"there is no version {version} of the scorer of '{route}'")
        try:
            data = _scorer(folder, version).read_bytes()
        except OSError as error:
            raise ShelfError(f"version {version} cannot be read: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != card.digest:
            raise ShelfError(f"version {version} of the scorer of '{route}' is damaged")
        return data

    # -- inside ----------------------------------------------------------------------------------------------

    def _folder(self, route: str) -> Path:
        name = quote(route, safe="")
        if len(name) > _LONGEST_NAME:
            name = hashlib.sha256(route.encode()).hexdigest()
        # With something before it no route's name is `.` or `..`.
        return self._root / f"route-{name}"

    def _cards(self, route: str) -> Iterator[Version]:
        for path in self._folder(route).glob("*.json"):
            card = _read_card(path)
            if card is not None:
                yield card

    def _live(self, route: str) -> int | None:
        try:
            return int((self._folder(route) / _LIVE).read_text()) or None
        except (OSError, ValueError):
            return None

    def _tidy(self, route: str, folder: Path) -> None:
        live = self._live(route)
        spare = sorted(card.number for card in self._cards(route) if card.number != live)
        for number in spare[: max(len(spare) - KEPT, 0)]:
            # The card first: without it the bytes are nothing, and the next version of that number replaces them.
            _card(folder, number).unlink(missing_ok=True)
            _scorer(folder, number).unlink(missing_ok=True)


def _scorer(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.scorer"


def _card(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _read_card(path: Path) -> Version | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Version)
    except (OSError, msgspec.MsgspecError):
        return None


def _marked(card: Version, live: int | None) -> Version:
    return Version(card.number, card.at, card.note, card.size, card.digest, card.number == live)

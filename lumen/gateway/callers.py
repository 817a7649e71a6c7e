"""What a local model is told of who asks: whose turn it is, whose prefixes it may use, what may be kept, its wait."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from lumen.config.schema import Priority
from lumen.keys import Key

_RANKS: Mapping[Priority, int] = {"low": -1, "normal": 0, "high": 1}


def line(key: Key | None, priority: Priority, *, shared: bool, keep: bool) -> bytes:
    """The line of the request's header.

    Args:
        priority: the route's; a key's own goes before it.
        shared: prefixes are one for all keys. keep: it may write what it computed of this request to a disk.
    """
    if key is None:
        return _line("", priority, shared, keep)
    return _line(key.id, key.priority or priority, shared, keep)


def salt(key: Key | None, *, shared: bool) -> str:
    """What keeps the computed prefixes of one key apart from those of others, in a word that tells nothing of it."""
    return "" if key is None or shared else _who(key.id)


def rank(key: Key | None, priority: Priority) -> int:
    """Its class as a number; `priority`: the route's, and a key's own goes before it."""
    return _RANKS[(key and key.priority) or priority]


@lru_cache(maxsize=256)
def patience(seconds: float) -> bytes:
    """The line of the header that says how long a request may wait for its turn."""
    return f"X-Lumen-Patience: {seconds:g}\r\n".encode()


@lru_cache(maxsize=4096)
def _line(key: str, priority: Priority, shared: bool, keep: bool) -> bytes:
    who = _who(key) if key else ""
    salt = "" if shared else who
    return f"X-Lumen-Caller: id={who}; salt={salt}; priority={priority}; keep={keep:d}\r\n".encode()


@lru_cache(maxsize=4096)
def _who(key: str) -> str:
    """Keys go by names of their own at local servers, which need not be ours."""
    return hashlib.sha256(f"caller {key}".encode()).hexdigest()[:24]

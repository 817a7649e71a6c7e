"""Requests as they are kept with a label: their text where that may be kept, else numbers it cannot be read from. Pure.

The numbers are the scorer's own features: signs and sizes of hashed word counts, many words to a bucket.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
import numpy as np

from lumen.ledger.labels import Label
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.features import BUCKETS, PLAIN, SUBJECT_NAMES, Features, Table, features

# Bytes of a request that is kept as its text: one with a longer system prompt takes less room as numbers.
_MOST_TEXT = 64 * 1024
# Another Lumen's features may be others: what they are called goes with them.
_NAMED = blake2b(repr((BUCKETS, PLAIN, SUBJECT_NAMES)).encode(), digest_size=4).hexdigest()
TEXT, NUMBERS = "text", f"features-{_NAMED}"


def text_of(ask: Ask) -> tuple[str, bytes]:
    """Form and bytes of a request whose text may be kept: what the scorer reads of it, where that is not too long."""
    kept = Ask(
        ask.shown(), ask.system, ask.context[-8192:], ask.turns, ask.tools, ask.images, ask.structured, ask.limit,
        ask.tags,
    )  # fmt: skip
    data = msgspec.json.encode(kept)
    return (TEXT, data) if len(data) <= _MOST_TEXT else numbers_of(ask)


def numbers_of(ask: Ask) -> tuple[str, bytes]:
    """Form and bytes of a request whose text may not be kept."""
    return NUMBERS, pack(features(ask))


def pack(one: Features) -> bytes:
    """Features in few bytes: the buckets that are not empty, in half precision."""
    places = np.flatnonzero(one.grams).astype("<u2")
    parts = (
        np.array([len(places)], "<u4"), places, one.grams[places].astype("<f2"), one.plain.astype("<f4"),
        one.subjects.astype("<f4"),
    )  # fmt: skip
    return b"".join(part.tobytes() for part in parts)


def unpack(data: bytes) -> Features:
    """The features again.

    Raises:
        ValueError: these bytes are none.
    """
    count = int(np.frombuffer(data[:4], "<u4")[0])
    rest, plain, subjects = 4 + 4 * count, len(PLAIN), 2 * len(SUBJECT_NAMES)
    if count > BUCKETS or len(data) != rest + 4 * (plain + subjects):
        raise ValueError("these are no features")
    grams = np.zeros(BUCKETS, np.float32)
    grams[np.frombuffer(data[4 : 4 + 2 * count], "<u2")] = np.frombuffer(data[4 + 2 * count : rest], "<f2")
    tail = np.frombuffer(data[rest:], "<f4")
    return Features(grams, tail[:plain].copy(), tail[plain:].copy())


def read(label: Label) -> Features | None:
    """The features of a label's request; `None` where nothing is known of it, or another Lumen's features are."""
    try:
        if label.form == TEXT:
            return features(msgspec.json.decode(label.ask, type=Ask))
        return unpack(label.ask) if label.form == NUMBERS else None
    except (ValueError, IndexError, msgspec.MsgspecError):
        return None


def tabled(rows: list[Features]) -> Table:
    """Many of them, one row each."""
    return Table(
        np.stack([one.grams for one in rows]),
        np.stack([one.plain for one in rows]),
        np.stack([one.subjects for one in rows]),
    )

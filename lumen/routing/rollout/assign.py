"""Who gets the candidate: a stable share of conversations. Pure."""

from __future__ import annotations

from hashlib import blake2b

_SPACE = float(2**64)


def place(rollout: str, conversation: bytes) -> float:
    """Where a conversation stands in a rollout, in [0, 100): the same each time, and anew for each rollout.

    A conversation whose place is below the share gets the candidate. As the share only grows, nobody who has the
    candidate loses it before the end.
    """
    digest = blake2b(conversation, digest_size=8, key=rollout.encode()[:64]).digest()
    return int.from_bytes(digest, "big") / _SPACE * 100.0

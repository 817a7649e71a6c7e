"""Telling of requests at once what is otherwise told of many together."""

from __future__ import annotations

from lumen.gateway.settled import Settled, Taker


class AtOnce:
    """An observer that does not wait for more."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    def add(self, settled: Settled) -> None:
        self._taker.take([settled])

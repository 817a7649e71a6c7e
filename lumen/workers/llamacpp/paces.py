"""PURE: how long steps take, and so how much of a prompt one may hold."""

from __future__ import annotations

from lumen.workers.llamacpp.scheduler import Limits, mixed_budget

_STALL_TARGET = 0.05
"""Seconds a step may grow by for the sake of prompts while other answers are being streamed."""


class Paces:
    """`learn` after each decode, `limits` before one."""

    def __init__(self) -> None:
        self._prefill = 0.0  # seconds a prompt token, smoothed
        self._decode = 0.0  # seconds of the last step without prompts

    def learn(self, seconds: float, tokens: int, chunks: int) -> None:
        """A decode of `tokens` tokens of `chunks` sequences took `seconds`."""
        if tokens == chunks:
            self._decode = seconds
        elif tokens >= chunks + 32:
            pace = seconds / tokens
            self._prefill = pace if not self._prefill else 0.7 * self._prefill + 0.3 * pace

    def limits(self, batch: int) -> Limits:
        """Of the next decode; `batch`: tokens at most."""
        return Limits(batch, mixed_budget(batch, self._prefill, max(_STALL_TARGET, self._decode)))

"""Single precision on a few numbers, where an array costs more than they do."""

from __future__ import annotations

from functools import cache
from struct import Struct


def single(*values: float) -> tuple[float, ...]:
    """The nearest numbers of single precision.

    Rounded after each of + − · ÷, arithmetic in double precision gives what single precision would (S. Figueroa, "When
    is double rounding innocuous?", SIGNUM 30, 1995).
    """
    form = _form(len(values))
    return form.unpack(form.pack(*values))


@cache
def _form(count: int) -> Struct:
    return Struct(f"{count}f")

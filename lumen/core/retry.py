"""After an attempt failed before anything was delivered: the same target again, another one, or the client. Pure.

| the target said | this target was tried | next |
| --- | --- | --- |
| the prompt is beyond its context window | – | a target with a larger window |
| its content filter refused, and the route goes around filters | – | the next target |
| anything else that would be the same everywhere (NEVER) | – | give up |
| its own queue is full (a local model) | – | the next target, at once |
| wait, 3 s or less (`Retry-After`) | once | the same target, after waiting it out |
| anything else that names no time to wait (a local model with another replica) | once | the other replica, at once |
| nothing more (a local model whose process ended) | twice | the same model: another replica, or the process anew |
| wait longer | – | the next target (this one stays out until then: `core/breaker.py`) |
| a single reset or 5xx (SAME) | once | the same target, after a short pause with full jitter |
| all else | – | the next target |

A local model's next try hangs on no budget of retries: it does not go to the process that failed, as little as the rest
of an answer does that broke off later.

A silent target (`SilentError` is OTHER) is never tried twice; of a local model that is the replica. What was delivered
goes on by `core/resume.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lumen.core.errors import BrokenError, ConnectError, Retry, UpstreamError

# Seconds before the one quick retry on the same target; the draw makes it full jitter.
QUICK_RETRY = 0.1
# The longest `Retry-After` that is waited out at the target that asked for it.
WAITED_OUT = 3.0
MAX_TRIES = 2
# At a local model of which a process ended each time: as many as it takes to begin an answer and go on with it twice.
MOST_PROCESSES = 3

CONTEXT_CODES = frozenset({"context_length_exceeded", "string_above_max_length"})
# What a local model says whose queue is full: another target is there now, and this one will not be in a moment.
QUEUE_FULL = "queue_full"
FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked", "safety"})


class Next(Enum):
    SAME = "same"
    OTHER = "other"
    LARGER = "larger"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True)
class Decision:
    """`pause`: seconds to wait before acting on it."""

    next: Next
    pause: float = 0.0


def lost(error: UpstreamError, *, local: bool) -> bool:
    """Whether it was a process of this machine that ended, rather than a target that has trouble."""
    return local and isinstance(error, (BrokenError, ConnectError))


def after(
    error: UpstreamError,
    *,
    tries: int,
    draw: float,
    processes: int = MOST_PROCESSES,
    around_filter: bool = False,
    local: bool = False,
    spare: bool = False,
) -> Decision:
    """What to do after `error`.

    Args:
        tries: attempts made at this target, the failed one included.
        draw: uniform in [0, 1).
        processes: the most tries at a local model of which a process ended each time.
        local: it is a model of this machine. spare: with another replica, about which nothing is wrong.
        around_filter: the route lets another target answer what one's content filter refused.
    """
    if error.code in CONTEXT_CODES:
        return Decision(Next.LARGER)
    if error.code in FILTER_CODES and around_filter:
        return Decision(Next.OTHER)
    if error.retry is Retry.NEVER:
        return Decision(Next.GIVE_UP)
    if lost(error, local=local) and tries < processes:
        return Decision(Next.SAME, QUICK_RETRY * draw)
    if tries < MAX_TRIES and error.code != QUEUE_FULL:
        if spare and error.retry_after is None:
            return Decision(Next.SAME)
        if error.retry_after is not None:
            return Decision(Next.SAME, error.retry_after) if error.retry_after <= WAITED_OUT else Decision(Next.OTHER)
        if error.retry is Retry.SAME:
            return Decision(Next.SAME, QUICK_RETRY * draw)
    return Decision(Next.OTHER)

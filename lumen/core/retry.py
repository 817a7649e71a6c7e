"""After a failed attempt: try the same target again, another one, resume, or tell the client. Pure.

| delivered | error says | this target was tried | next |
| --- | --- | --- | --- |
| nothing | NEVER | – | give up |
| nothing | SAME | once | the same target, after a short pause with full jitter |
| nothing | SAME | twice | the next target |
| nothing | OTHER | – | the next target |
| something | any but NEVER | – | resume token-exactly where every delivered token is known, else give up |

A silent target (`SilentError` is OTHER) is never tried twice. At most two splices an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lumen.core.errors import Retry, UpstreamError
from lumen.core.trace import Trace

MAX_SPLICES = 2
# Seconds before the one quick retry on the same target; the draw makes it full jitter.
QUICK_RETRY = 0.1
# A local replica that died comes back by itself; its model is worth these many tries while it does.
MAX_TRIES = 2


class Next(Enum):
    SAME = "same"
    OTHER = "other"
    RESUME = "resume"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True)
class Decision:
    """`pause`: seconds to wait before acting on it."""

    next: Next
    pause: float = 0.0


def after(error: UpstreamError, trace: Trace, *, tries: int, splices: int, resumable: bool, draw: float) -> Decision:
    """What to do after `error`.

    Args:
        tries: attempts made at this target, the failed one included.
        splices: continuations already made of this answer.
        resumable: the target replays token ids and the call has one choice.
        draw: uniform in [0, 1).
    """
    if error.retry is Retry.NEVER:
        return Decision(Next.GIVE_UP)
    if trace.delivered:
        if resumable and trace.exact and splices < MAX_SPLICES:
            return Decision(Next.RESUME)
        return Decision(Next.GIVE_UP)
    if error.retry is Retry.SAME and tries < MAX_TRIES:
        return Decision(Next.SAME, QUICK_RETRY * draw)
    return Decision(Next.OTHER)

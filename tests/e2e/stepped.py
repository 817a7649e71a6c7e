"""A gateway that is killed at one step of a handover: `python -m tests.e2e.stepped STEP …`, then as `python -m lumen`.

STEP: `send WHAT`, `sent WHAT` and `got WHAT` are about the messages of `lumen/handover/`; `outbox` is when what is
handed on begins to be written beside the ledger, `closed` when the ledger is closed, `opened` when it is open.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from lumen.__main__ import main
from lumen.gateway import billing
from lumen.handover import channel, predecessor, successor
from lumen.ledger.outbox import Outbox
from lumen.ledger.store import Ledger

STEP = sys.argv.pop(1)


def reached(step: str) -> None:
    if step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)


class Channel(channel.Channel):
    def send(self, what: str, fds: Iterable[int] = (), **body: Any) -> bool:
        reached(f"send {what}")
        done = super().send(what, fds, **body)
        reached(f"sent {what}")
        return done

    async def get(self, timeout: float | None) -> channel.Message | None:
        got = await super().get(timeout)
        reached(f"got {got.say if got is not None else 'end'}")
        return got


def then(step: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def stepped(*args: Any, **named: Any) -> Any:
        done = work(*args, **named)
        reached(step)
        return done

    return stepped


if __name__ == "__main__":
    for side in (predecessor, successor):
        vars(side)["Channel"] = Channel
    vars(billing)["Outbox"] = then("outbox", Outbox)
    Ledger.close = then("closed", Ledger.close)  # type: ignore[method-assign]
    Ledger.open = then("opened", Ledger.open)  # type: ignore[method-assign]
    sys.exit(main())

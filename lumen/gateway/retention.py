"""Whether anything of what a request says may be kept, by whichever part of the gateway would like to.

With `retention: none` for the whole box, a route or a key nothing of its payload goes to a disk, a log, a span or a
store; what the ledger counts stays exact, because counts are no payload. Whoever keeps payloads (the payload log, spans
with payloads, shadows, labels) asks here first.
"""

from __future__ import annotations

import ctypes
import resource
from functools import cache
from pathlib import Path

from lumen.config.schema import Config
from lumen.keys import Key, KeyRing

_PR_SET_DUMPABLE = 4
_FILTER = Path("/proc/self/coredump_filter")


class Retention:
    """What one configuration says of it, worked out when it loads."""

    __slots__ = ("_all", "_routes", "any")

    def __init__(self, config: Config, ring: KeyRing | None = None) -> None:
        self._all = config.retention != "none"
        self._routes = frozenset(name for name, route in config.routes.items() if route.retention == "none")
        # Something somewhere must not be kept, so that no crash may write the process's memory out either.
        self.any = not self._all or bool(self._routes) or any(not key.retains for key in (ring.keys if ring else ()))

    def retains(self, route: str, key: Key | None) -> bool:
        """Whether a payload of this route may be kept where this key sent it. `route`: as `Entry.account` names it."""
        return self._all and route not in self._routes and (key is None or key.retains)


@cache
def no_dumps() -> bool:
    """See to it that no crash writes memory of this process, or of one it starts from now on, to a disk.

    The size of core files becomes zero for good; a system that hands dumps to a program, which that does not bind, is
    told to leave all memory out of them (both are inherited); and nobody but root may look into this process.
    For processes that run already only their own next start helps. Once is enough: afterwards the files by which it is
    told are root's.

    Returns:
        Whether this system could be told all of it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _FILTER.write_text("0")
        done: bool = ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False
    return done

"""Being a child: dying with the parent, telling start-up phases, leaving with grace."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_POLL = 0.5
EXIT_ORPHANED = 3


def phase(name: str, **values: object) -> None:
    """One JSON line on stdout. A parent that has closed its end misses it, which is no reason to stop."""
    with suppress(OSError, ValueError):
        sys.stdout.write(json.dumps({"phase": name, **values}) + "\n")
        sys.stdout.flush()


def die_with_parent(parent: int) -> None:
    """End this process at once when process `parent` is gone.

    The kernel tells of the death of the parent *thread*, which need not be the parent process: its signal
    only makes us look. A poll covers the rest (a parent that died before we asked, other systems than Linux).
    """
    direct = os.getppid() == parent

    def orphaned() -> bool:
        if direct:
            return os.getppid() != parent
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    def look(_signal: int = 0, _frame: object = None) -> None:
        if orphaned():
            os._exit(EXIT_ORPHANED)

    def poll() -> None:
        while True:
            look()
            time.sleep(_POLL)

    signal.signal(signal.SIGUSR2, look)
    if direct and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGUSR2), 0, 0, 0)
    threading.Thread(target=poll, name="parent", daemon=True).start()

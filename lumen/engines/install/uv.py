"""uv, the program that makes environments: found, and run with its progress told line by line. Blocking."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lumen
from lumen.core.errors import ConfigError

_LIMIT = 4 * 3600.0
_KEPT_LINES = 20
_FETCHING = re.compile(r"\s*(Downloading|Building) (.+)")


class InstallError(ConfigError):
    """Packages could not be installed. `lines`: the last ones that the installer said."""

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


def find_uv() -> str:
    """The uv on PATH, or the one that `install.sh` brought.

    Raises:
        ConfigError: there is none; says how to get it.
    """
    brought = Path(lumen.__file__).resolve().parent.parent / ".venv-tools" / "bin" / "uv"
    found = shutil.which("uv") or (str(brought) if os.access(brought, os.X_OK) else None)
    if found is None:
        raise ConfigError(
            "uv is needed to make the environment; get it with `pip install uv`, or run ./install.sh again"
        )
    return found


def run(argv: Sequence[str], env: Mapping[str, str], told: Callable[[str], None], limit: float = _LIMIT) -> None:
    """Run one command of uv. `told` gets what it is fetching or building, as it begins.

    Raises:
        InstallError: it failed or took longer than `limit` seconds. `KeyboardInterrupt` ends it too.
    """
    child = subprocess.Popen(
        argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    late = threading.Timer(limit, child.kill)
    late.start()
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if fetching := _FETCHING.fullmatch(line.rstrip()):
                told(f"{fetching[1].lower()} {fetching[2]}")
            elif line.strip():
                lines.append(line.rstrip())
        status = child.wait()
    finally:
        late.cancel()
        # Of its own session, so that a key pressed at the terminal does not end it in the middle of a write.
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()
    if status != 0:
        raise InstallError("its packages could not be installed", lines)

"""How a command fails: one line on standard error that says what is wrong and what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

FAILED = 1
USAGE = 2


class CliError(Exception):
    """A command cannot go on. `what` is the fault, `hint` the next step to take, `code` the exit code.

    `lines`: what a log said last, shown above the one line of the error itself.
    """

    def __init__(self, what: str, hint: str | None = None, *, code: int = FAILED, lines: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.code = code
        self.lines = tuple(lines)


class NotRunning(CliError):
    """No gateway answers on this installation's admin socket."""

    def __init__(self) -> None:
        super().__init__("no gateway is running", "start one with `lumen up`")


def one_line(what: str, hint: str | None = None) -> str:
    """`lumen: what; hint` without a line break, however the parts were written."""
    said = " ".join(what.split()).rstrip(".;")
    return f"lumen: {said}; {' '.join(hint.split())}" if hint else f"lumen: {said}"


def tell(what: str, hint: str | None = None) -> None:
    """Write one error line to standard error."""
    sys.stderr.write(one_line(what, hint) + "\n")
    sys.stderr.flush()


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("LUMEN_DEBUG", "") not in ("", "0")

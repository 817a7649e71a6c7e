"""Runs a long build, keeps its whole output in a log, and shows how far it is.

    build.py LOG COMMAND...
    build.py --estimate JOBS      how long the engine takes with so many compilers at work

Reads Ninja's "[n/m]" lines. On a terminal one line is rewritten; elsewhere one is printed every 10 per cent.
Exits with the command's own status; after a failure the last lines of the log are shown.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TextIO

_STEP = re.compile(r"^\s*\[(\d+)/(\d+)\] ")
_STAGES = (
    (re.compile(r"^\s*Downloading "), "fetching the source"),
    (re.compile(r"Preparing metadata|Getting requirements"), "unpacking"),
    (re.compile(r"\*\*\* Configuring CMake|Configuring done"), "configuring"),
    (re.compile(r"\*\*\* (Making|Created) (wheel|editable)"), "packing the wheel"),
)
_TAIL = 15
# Measured for llama-cpp-python 0.3.36 without its common library: CPU-seconds that divide among compilers, and
# seconds of fetching, configuring and linking that do not.
_CPU_S = 220.0
_FIXED_S = 20.0


def clock(seconds: float) -> str:
    """A length of time as people say it: "45 s", "1 min 30 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


class Progress:
    """Turns build output, line by line, into short messages. Pure: the caller tells the time.

    `feed` returns what to show now, or None. `live` shows every step, otherwise only every tenth per cent.
    """

    def __init__(self, live: bool) -> None:
        self._live = live
        self._stage = ""
        self._first: tuple[float, int] | None = None
        self._next_percent = 0

    def feed(self, line: str, now: float) -> str | None:
        step = _STEP.match(line)
        if step:
            return self._step(int(step[1]), int(step[2]), now)
        for pattern, stage in _STAGES:
            if stage != self._stage and pattern.search(line):
                self._stage = stage
                return stage
        return None

    def _step(self, done: int, total: int, now: float) -> str | None:
        # CMake's own small test builds also print [1/2]; the engine has hundreds of steps.
        if total < 20 or done > total:
            return None
        if self._first is None:
            self._first = (now, done)
        percent = 100 * done // total
        if not self._live and percent < self._next_percent:
            return None
        self._next_percent = percent - percent % 10 + 10
        self._stage = "compiling"
        return f"compiling {percent:3d} % ({done} of {total} files){self._left(done, total, now)}"

    def _left(self, done: int, total: int, now: float) -> str:
        assert self._first is not None
        began, before = self._first
        # The rate of the first few files says nothing about the rest.
        if done - before < max(3, total // 20) or now <= began:
            return ""
        return f", about {clock((now - began) / (done - before) * (total - done))} left"


class Screen:
    """Shows messages on one rewritten line of a terminal, or line after line elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self.live = stream.isatty()
        self._stream = stream
        self._dirty = False

    def show(self, message: str) -> None:
        self._stream.write(f"\r\033[K  {message}" if self.live else f"  {message}\n")
        self._stream.flush()
        self._dirty = self.live

    def end(self) -> None:
        if self._dirty:
            self._stream.write("\r\033[K")
            self._stream.flush()


def _stop(child: subprocess.Popen[str]) -> None:
    """End a build with everything that it started; nothing where it has ended."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _watch(child: subprocess.Popen[str], parent: int) -> None:
    """End the build when whoever started this program is gone: then nobody waits for it, and it holds the lock."""
    while child.poll() is None:
        if os.getppid() != parent:
            _stop(child)
            return
        time.sleep(0.2)


def _follow(child: subprocess.Popen[str], log: TextIO, screen: Screen) -> list[str]:
    """Copy the output into the log and show progress; returns the last lines."""
    progress = Progress(screen.live)
    tail: deque[str] = deque(maxlen=_TAIL)
    assert child.stdout is not None
    for line in child.stdout:
        log.write(line)
        log.flush()
        if line.strip():
            tail.append(line.rstrip())
        message = progress.feed(line, time.monotonic())
        if message:
            screen.show(message)
    return list(tail)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--estimate"]:
        print(clock(_FIXED_S + _CPU_S / max(1, int(arguments[1]))))
        return 0
    log_path, *command = arguments
    parent = os.getppid()
    screen = Screen(sys.stdout)
    with (
        Path(log_path).open("w", encoding="utf-8") as log,
        # A session of its own, so that all the compilers can be ended together.
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as child,
    ):
        threading.Thread(target=_watch, args=(child, parent), daemon=True).start()
        try:
            tail = _follow(child, log, screen)
            status = child.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            _stop(child)
            screen.end()
    if status:
        print("  the last lines of the build:", *tail, sep="\n    ", file=sys.stderr)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

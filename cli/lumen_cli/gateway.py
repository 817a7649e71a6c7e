"""The gateway as a process: how it is started, known again, and ended. What it does is asked through `client`."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lumen.paths import Paths
from lumen_cli.errors import CliError

_LOG_LARGEST = 10 * 1024 * 1024
_TAIL_BYTES = 64 * 1024
_POLL = 0.05
# A clock may be set between the start of a process and the note about it.
_CLOCK_SLACK = 2.0
_STOPPED_BY_FORCE = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What one start overrides; the same words as the gateway's own arguments."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    profile: str | None = None
    # Of one start alone: take over from the gateway that runs.
    succeed: bool = False

    def arguments(self) -> list[str]:
        given = [(f"--{name}", getattr(self, name)) for name in ("config", "host", "port", "profile")]
        succeed = ["--succeed"] if self.succeed else []
        return [part for name, value in given if value is not None for part in (name, str(value))] + succeed

    @classmethod
    def of(cls, argv: Sequence[str]) -> Options:
        """The options of a gateway that was started with `argv`; what is not one of them is passed over."""
        parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
        parser.add_argument("--config", type=Path)
        parser.add_argument("--host")
        parser.add_argument("--port", type=int)
        parser.add_argument("--profile")
        try:
            found, _ = parser.parse_known_args(list(argv[1:]))
        except argparse.ArgumentError:
            return cls()
        return cls(found.config, found.host, found.port, found.profile)


@dataclass(frozen=True, slots=True)
class Record:
    """What `run_dir/gateway.json` says about the gateway that wrote it."""

    pid: int
    started: float
    url: str
    argv: tuple[str, ...]


def command(options: Options) -> list[str]:
    """The command line of a gateway. -P: a folder called `lumen` where the user stands is not imported."""
    return [sys.executable, "-P", "-m", "lumen", *options.arguments()]


def spawn(options: Options, paths: Paths, *, detached: bool) -> tuple[subprocess.Popen[bytes], int]:
    """Start a gateway that writes to the gateway's log. Returns it and where in the log it begins.

    In either case a Ctrl-C in this terminal reaches it only through us; detached, it outlives the terminal.
    """
    _rotate(paths.gateway_log)
    descriptor = os.open(paths.gateway_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        since = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command(options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=detached,
            process_group=None if detached else 0,
        )
    return process, since


def record(paths: Paths) -> Record | None:
    """The recorded gateway, running or not; `None` where there is no usable record."""
    try:
        data = json.loads(paths.gateway_file.read_bytes())
        return Record(int(data["pid"]), float(data["started"]), str(data["url"]), tuple(map(str, data["argv"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Process:
    """A process of another session, recognised by more than its number: numbers are given out again."""

    def __init__(self, pid: int, started: float) -> None:
        import psutil

        self._gone = (psutil.NoSuchProcess, psutil.ZombieProcess)
        self._dead = psutil.STATUS_ZOMBIE
        self._process: psutil.Process | None = None
        try:
            found = psutil.Process(pid)
            ours = found.create_time() <= started + _CLOCK_SLACK and found.uids().real == os.getuid()
            if ours and _is_gateway(found.cmdline()):
                self._process = found
        except (*self._gone, psutil.AccessDenied):
            return

    def alive(self) -> bool:
        """Whether it is still that gateway. A process that ended and was not collected yet is gone."""
        try:
            return self._process is not None and self._process.is_running() and self._process.status() != self._dead
        except self._gone:
            return False

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens where it is gone."""
        try:
            if self._process is not None:
                self._process.send_signal(number)
        except self._gone:
            return

    def wait(self, seconds: float, tick: Callable[[], None] | None = None) -> bool:
        """Whether it ended within `seconds`; `tick` is called meanwhile."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            if tick is not None:
                tick()
            time.sleep(_POLL)
        return True

    def force(self) -> bool:
        """SIGTERM (a gateway that drains hurries up), then SIGKILL. Whether it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.signal(number)
            if self.wait(_STOPPED_BY_FORCE):
                return True
        return False


def _is_gateway(cmdline: Sequence[str]) -> bool:
    line = " ".join(cmdline)
    return "-m lumen" in line or "lumen/__main__.py" in line


def log_of(paths: Paths, model: str | None, index: int = 0) -> Path:
    """The log of the gateway, or of one replica: named after the model, with what a file name cannot hold as _."""
    if model is None:
        return paths.gateway_log
    slug = re.sub(r"[^A-Za-z0-9._-]+", "_", model).lstrip(".")[:64] or "model"
    return paths.log_dir / f"{slug}-{index}.log"


def tail(path: Path, count: int, since: int = 0) -> list[str]:
    """The last `count` lines of a log after offset `since`; none where there is no log."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            return _last_lines(log, size, count, since if since <= size else 0)
    except FileNotFoundError:
        return []


def _last_lines(log: IO[bytes], size: int, count: int, since: int) -> list[str]:
    """Read backwards in blocks until there are enough lines."""
    start = size
    lines: list[bytes] = []
    block = _TAIL_BYTES
    while start > since and len(lines) <= count:
        start = max(since, size - block)
        log.seek(start)
        lines = log.read(size - start).splitlines()
        block *= 4
    return [line.decode("utf-8", "replace") for line in lines[-count:]] if count else []


def failure(paths: Paths, since: int, code: int | None) -> CliError:
    """Why a gateway that we started has ended, from the last it said."""
    lines = [line for line in tail(paths.gateway_log, 12, since) if line.strip()]
    said = next((line for line in reversed(lines) if "error: " in line), None)
    if said is not None:
        return CliError(f"the gateway did not start: {said.partition('error: ')[2]}", lines=lines[:-1])
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return CliError(f"the gateway ended by itself ({how})", "see `lumen logs`", lines=lines)


def local_url(url: str) -> str:
    """A base URL that this machine can call: an address that means "all of them" is none."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


def first_model(status: dict[str, Any]) -> str | None:
    """A name to address: the first ready model, else any that is served."""
    models = status.get("models", [])
    ready = [model["name"] for model in models if model.get("ready")]
    return next(iter([*ready, *status.get("routes", []), *(model["name"] for model in models)]), None)


def _rotate(log: Path) -> None:
    """Keep one older log; nobody writes to it now."""
    try:
        if log.stat().st_size > _LOG_LARGEST:
            log.replace(log.with_name(f"{log.name}.1"))
    except FileNotFoundError:
        return

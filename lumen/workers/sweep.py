"""Finding and killing processes by the mark in their environment: what an engine left behind, what a dead
gateway left behind. Blocking (it reads /proc): call it in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

REPLICA = "LUMEN_REPLICA"
RUN_DIR = "LUMEN_RUN_DIR"
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Marks:
    """Who started a process: an installation (its run folder, hashed), one run of its gateway, one start.

    Two installations on one machine differ in `home`, so neither ever touches the other's processes.
    """

    home: str
    run: str
    replica: str = ""  # model:index:number of the start

    def environment(self) -> dict[str, str]:
        """What a child carries, and by inheritance everything that it starts."""
        # SPT_NOENV: setproctitle, which vLLM's processes use, otherwise overwrites the environment that
        # other processes see, and with it these marks.
        return {REPLICA: f"{self.run}:{self.replica}", RUN_DIR: self.home, "SPT_NOENV": "1"}


def home_of(run_dir: Path) -> str:
    """The mark of an installation."""
    return hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:16]


def of_start(marks: Marks) -> Callable[[str, str], bool]:
    """Everything that one start of one replica left."""
    wanted = f"{marks.run}:{marks.replica}"
    return lambda home, replica: home == marks.home and replica == wanted


def of_run(marks: Marks) -> Callable[[str, str], bool]:
    """Everything that this run of the gateway started."""
    return lambda home, replica: home == marks.home and replica.startswith(f"{marks.run}:")


def of_others(marks: Marks) -> Callable[[str, str], bool]:
    """Everything that earlier runs in the same run folder left; a lock there keeps a second live one out."""
    return lambda home, replica: home == marks.home and not replica.startswith(f"{marks.run}:")


def sweep(matches: Callable[[str, str], bool], limit: float) -> tuple[set[int], bool]:
    """Kill whatever matches until nothing is found any more, at most `limit` seconds.

    Returns:
        The process ids killed, and whether all of them are gone.
    """
    killed: set[int] = set()
    end, before = time.monotonic() + limit, True
    while True:
        # Again and again: a process may have forked between being seen and being killed. And nothing is only believed
        # twice: the environment of one that just began cannot be read yet.
        found = _find(matches, end)
        if not (found or before) or time.monotonic() >= end:
            return killed, not found
        before = bool(found)
        for process in found:
            # psutil compares the start time first, so a process that reused the id is not hit.
            with contextlib.suppress(psutil.Error):
                process.kill()
            killed.add(process.pid)
        time.sleep(_PAUSE)


def _find(matches: Callable[[str, str], bool], end: float) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    seen = {os.getpid()}
    # A process that forks and exits while we look is missed by one listing: go on until one has nothing new.
    while (new := set(psutil.pids()) - seen) and (len(seen) == 1 or time.monotonic() < end):
        seen |= new
        found += [process for pid in new if (process := _matching(pid, matches)) is not None]
    return found


def _matching(pid: int, matches: Callable[[str, str], bool]) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        environment = process.environ()
    except (psutil.Error, OSError):
        return None  # gone meanwhile, or another user's
    replica = environment.get(REPLICA)
    return process if replica is not None and matches(environment.get(RUN_DIR, ""), replica) else None

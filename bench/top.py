"""What watching costs: the gateway's feed of the dashboard, and the dashboard itself, under 1,000 requests a second.

`python -m bench.top [--rounds 5] [--write]`. The gateway is `bench/top_gateway.py`: its service, its observers and its
stream of frames with made-up requests. The feed is what its process takes more while somebody listens than while nobody
does, in turns. The dashboard is `lumen top` in a terminal of its own (a pty), on one pane after the other.
CPU time of the processes, as a share of one core; medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from lumen_cli.client import Admin

from bench import report
from lumen.paths import Paths

RATE = 1000
PANES = {"overview": b"1", "targets": b"2", "failovers": b"3", "requests": b"4", "routes": b"5"}
SIZES = ((80, 24), (160, 50))
_FEED_LIMIT, _TOP_LIMIT = 2.0, 15.0
# Seconds until a process that was started works as it goes on to.
_SETTLE = 4.0


def share(process: psutil.Process, seconds: float) -> float:
    """Per cent of a core that a process takes within the next `seconds`."""
    before, start = _cpu(process), time.perf_counter()
    time.sleep(seconds)
    return 100 * (_cpu(process) - before) / (time.perf_counter() - start)


def _cpu(process: psutil.Process) -> float:
    """Seconds so far, to the nanosecond, of every thread that lives."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[psutil.Process]:
    """The gateway under `RATE` events a second; its socket is there when this yields."""
    env = {**os.environ, "LUMEN_HOME": str(home)}
    with (home / "gateway.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.top_gateway", str(RATE)], env=env, stdout=log, stderr=log
        )
    try:
        for _ in range(600):
            if where(home).admin_socket.exists():
                break
            if child.poll() is not None:
                raise SystemExit((home / "gateway.log").read_text()[-2000:])
            time.sleep(0.1)
        yield psutil.Process(child.pid)
    finally:
        child.kill()
        child.wait()


def where(home: Path) -> Paths:
    """The paths of an installation in `home`."""
    from lumen.paths import paths

    before = os.environ.get("LUMEN_HOME")
    os.environ["LUMEN_HOME"] = str(home)
    try:
        return paths()
    finally:
        if before is None:
            del os.environ["LUMEN_HOME"]
        else:
            os.environ["LUMEN_HOME"] = before


@contextlib.contextmanager
def listener(admin: Admin) -> Iterator[list[tuple[float, int]]]:
    """Somebody listens; what this yields grows by the time and the number of requests of each frame."""
    seen: list[tuple[float, int]] = []

    async def listen() -> None:
        async for frame in admin.events():
            seen.append((frame["at"], frame["number"]))
            if stop.is_set():
                return

    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(10)


@contextlib.contextmanager
def dashboard(home: Path, size: tuple[int, int]) -> Iterator[tuple[psutil.Process, int]]:
    """`lumen top` in a terminal of this size; yields its process and the terminal to type into."""
    pid, terminal = pty.fork()
    if pid == 0:
        env = {**os.environ, "LUMEN_HOME": str(home), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.execve(sys.executable, [sys.executable, "-m", "lumen_cli", "top"], env)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
    try:
        yield psutil.Process(pid), terminal
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)
        os.close(terminal)


def _drain(terminal: int) -> None:
    """A terminal that shows nothing."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass


def feed(process: psutil.Process, admin: Admin, rounds: int, seconds: float) -> tuple[list[float], list[float], float]:
    """Shares while nobody listens and while somebody does, and the requests a second that there really were."""
    alone, watched, rates = [], [], []
    for _ in range(rounds):
        alone.append(share(process, seconds))
        with listener(admin) as seen:
            time.sleep(1.0)
            watched.append(share(process, seconds))
        (begin, first), (end, last) = seen[0], seen[-1]
        rates.append((last - first) / (end - begin))
    return alone, watched, statistics.median(rates)


def dashboards(home: Path, rounds: int, seconds: float) -> dict[str, dict[tuple[int, int], list[float]]]:
    """Shares by pane and size of the terminal."""
    found: dict[str, dict[tuple[int, int], list[float]]] = {pane: {size: [] for size in SIZES} for pane in PANES}
    for size in SIZES:
        with dashboard(home, size) as (process, terminal):
            time.sleep(_SETTLE)
            for _ in range(rounds):
                for pane, key in PANES.items():
                    os.write(terminal, key)
                    time.sleep(1.0)
                    found[pane][size].append(share(process, seconds))
    return found


def told(shares: list[float], limit: float) -> str:
    middle = statistics.median(shares)
    return f"{middle:.1f} % ({min(shares):.1f}–{max(shares):.1f}){'' if middle < limit else ' **too much**'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as process:
        home = Path(folder)
        time.sleep(_SETTLE)
        alone, watched, rate = feed(process, Admin(where(home).admin_socket), given.rounds, given.seconds)
        panes = dashboards(home, given.rounds, given.seconds)
    more = [with_ - without for with_, without in zip(watched, alone, strict=True)]
    lines = [
        f"`python -m bench.top --rounds {given.rounds}`: {rate:,.0f} made-up requests a second over 8 routes and 16",
        "targets, 100 under way, frames four times a second, as a share of one core.\n",
        f"- the gateway while nobody watches (the events themselves, log and metrics): {told(alone, 1e9)}",
        f"- **what the feed adds: {told(more, _FEED_LIMIT)}**; the limit is {_FEED_LIMIT:g} %\n",
        "| `lumen top`, limit 15 % | " + " | ".join(f"{wide}×{high}" for wide, high in SIZES) + " |",
        "| --- |" + " --- |" * len(SIZES),
        *(
            f"| {pane} | " + " | ".join(told(found[size], _TOP_LIMIT) for size in SIZES) + " |"
            for pane, found in panes.items()
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if given.write:
        report.write("Watching", text)


if __name__ == "__main__":
    main()

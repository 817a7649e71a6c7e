"""`lumen pull` as a process that is killed, and as two processes at once."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen.config.schema import Hub
from lumen.hub.journal import decode
from lumen.hub.wanted import Limits
from lumen.paths import Paths
from tests.cli.harness import environment
from tests.hub.ggufs import model
from tests.hub.server import COMMIT, FakeHub, Faults

MIB = 1024 * 1024
PIECE = Limits().piece
NAME = "m-Q4_K_M.gguf"

pytestmark = pytest.mark.e2e


def start() -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "lumen_cli.main", "pull", "hf://org/repo", "--json"]
    return subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def marked(journal: Path) -> set[int]:
    found = decode(journal.read_bytes()) if journal.exists() else None
    return found[1] if found else set()


def finish(process: subprocess.Popen[bytes]) -> dict[str, object]:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def test_kill_9_midway_and_only_the_rest_is_fetched(home: Paths, serve: Callable[[FakeHub], FakeHub]) -> None:
    data = model(10 * PIECE)
    # Two pieces are whole then, also where each of the connections is about to end one.
    budget = (2 + Hub().connections) * PIECE
    hub = serve(FakeHub({NAME: data}, Faults(budget=budget)))
    target = home.models_dir / f"hf/org--repo/{COMMIT}/{NAME}"
    journal = target.with_name(f"{NAME}.part.journal")
    first = start()
    until(lambda: hub.bytes_sent >= budget and len(marked(journal)) >= 2, first)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=100)
    done = marked(journal)
    assert not target.exists() and list((home.models_dir / "manifests").glob("*.json")) == []

    hub.faults.budget = None
    hub.sent.clear()
    found = finish(start())
    assert target.read_bytes() == data
    assert found["files"] == [
        {"path": str(target), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()},
    ]
    kept = sum(min(PIECE, len(data) - index * PIECE) for index in done)
    assert hub.bytes_sent == len(data) - kept + 1  # and the one-byte probe
    assert not list(home.models_dir.rglob("*.part*"))


def test_two_processes_share_one_download(home: Paths, serve: Callable[[FakeHub], FakeHub]) -> None:
    data = model(6 * MIB)
    hub = serve(FakeHub({NAME: data}))
    first, second = start(), start()
    a, b = finish(first), finish(second)
    assert a["files"] == b["files"]
    assert hub.bytes_sent == len(data) + 1


def test_a_pull_that_waits_takes_over_from_one_that_is_killed(home: Paths, serve: Callable[[FakeHub], FakeHub]) -> None:
    data = model(12 * MIB)
    hub = serve(FakeHub({NAME: data}, Faults(budget=6 * MIB)))
    first = start()
    until(lambda: hub.bytes_sent >= 6 * MIB, first)
    second = start()
    until(lambda: sum(server == "api" for server, _, _ in hub.seen) == 2, second)
    hub.faults.budget = None
    first.kill()
    first.communicate(timeout=100)
    found = finish(second)
    assert Path(str(found["files"][0]["path"])).read_bytes() == data  # type: ignore[index]

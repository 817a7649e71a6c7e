"""kill -9 at any moment: what was acknowledged is there, once; nothing stays held."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from lumen.ledger import opening
from lumen.ledger.journal import left
from lumen.ledger.report import reading
from lumen.ledger.rows import LOST
from tests.ledger.ledgers import consistent, rows

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5


def killed(path: Path, number: int, after: int) -> tuple[set[str], dict[str, int], set[str], int]:
    """Run a writer and kill it once it has said so many lines: holds, settlements and free requests that it
    acknowledged, holds lost."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.killed", str(path), str(number)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after + 1)]
    process.kill()
    rest = process.stdout.read().splitlines(keepends=True)
    process.wait()
    process.stdout.close()
    said = [line.decode().split() for line in lines + rest if line.endswith(b"\n")]
    held = {words[1] for words in said if words[0] == "h"}
    settled = {words[1]: int(words[2]) for words in said if words[0] == "s"}
    free = {words[1] for words in said if words[0] == "f"}
    return held, settled, free, int(said[0][1])


def still_held(path: Path) -> set[str]:
    """Requests with a hold, by the file and what is written down beside it."""
    found = {name for (name,) in rows(path, "SELECT request FROM holds")}
    for record in left(path):
        if record.hold is not None:
            found.add(record.hold.request)
        if record.drop is not None:
            found.discard(record.drop)
    return found


def test_killed_again_and_again(tmp_path: Path) -> None:
    path, draw = tmp_path / "l.db", random.Random(7)
    held: set[str] = set()
    free: set[str] = set()
    settled: dict[str, int] = {}
    open_before = 0
    for number in range(ROUNDS):
        some_held, some_settled, some_free, lost = killed(path, number, draw.randrange(1, 1500))
        assert lost == open_before
        held |= some_held
        settled |= some_settled
        free |= some_free
        # Read by whoever looks, gateway or none.
        with reading(path) as reader:
            assert reader.total().requests >= len(settled) + len(free)
        consistent(path)
        open_before = len(still_held(path))
        assert open_before <= 16
    connection = opening.connect(path, 1.0)
    assert opening.prepare(connection, left(path)).lost == open_before
    connection.close()

    assert rows(path, "SELECT count(*) FROM holds") == [(0,)]
    booked = rows(path, "SELECT request, cost, outcome FROM attempts")
    names = [request for request, _, _ in booked]
    assert len(names) == len(set(names))
    assert free <= set(names)
    costs = {request: cost for request, cost, outcome in booked if outcome == "ok" and not request.startswith("free")}
    # Everything acknowledged, and besides it only what was written when the kill came before the word of it.
    assert costs.items() >= settled.items()
    assert len(costs) - len(settled) <= 16 * ROUNDS
    assert sum(costs[name] for name in settled) == sum(settled.values())
    # Every acknowledged hold came to an end: its settlement, or a charge of what was known.
    ended = {request: (cost, outcome) for request, cost, outcome in booked}
    assert held <= ended.keys()
    assert all(cost == 1 for cost, outcome in ended.values() if outcome == LOST)
    consistent(path)


def test_a_log_that_cannot_grow_and_then_can(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    done = subprocess.run(
        [sys.executable, "-m", "tests.ledger.starved", str(path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 0 < told["admitted"] < 1000
    assert told["sick"]
    assert told["refused"] == 3
    assert rows(path, "SELECT request, cost FROM attempts") == [("running", 7)]
    held = {name for (name,) in rows(path, "SELECT request FROM holds")}
    assert held == {"after", *(f"new{number}" for number in range(told["admitted"]))}
    consistent(path)

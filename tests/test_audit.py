from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen.audit import AuditLog


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path / "audit.jsonl")
    for i in range(5):
        made.add("route.set", f"r{i}", "ann", targets=["a", "b"], note=None)
    return made


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "audit.jsonl").read_text().splitlines(keepends=True)


def test_what_was_written_can_be_read_and_holds(log: AuditLog, tmp_path: Path) -> None:
    found = list(log.entries())
    assert [(entry.seq, entry.subject, entry.who) for entry in found] == [(i + 1, f"r{i}", "ann") for i in range(5)]
    assert found[0].details == {"targets": ["a", "b"]}
    verdict = log.verify()
    assert (verdict.entries, verdict.broken, verdict.last) == (5, None, found[-1].hash)
    assert log.verify(found[2].hash).broken is None
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def _change(found: list[str]) -> list[str]:
    entry = json.loads(found[2])
    return [*found[:2], json.dumps({**entry, "who": "bob"}) + "\n", *found[3:]]


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        (_change, 3),
        (lambda found: [*found[:2], *found[3:]], 3),
        (lambda found: [found[1], found[0], *found[2:]], 1),
        (lambda found: [*found[:2], found[1], *found[2:]], 3),
        (lambda found: [*found[:2], "noise\n", *found[2:]], 3),
        (lambda found: found[:3], 4),
        (lambda found: [], 1),
    ],
)
def test_tampering_is_found(
    log: AuditLog, tmp_path: Path, tamper: Callable[[list[str]], list[str]], broken: int
) -> None:
    (tmp_path / "audit.jsonl").write_text("".join(tamper(lines(tmp_path))))
    verdict = log.verify()
    assert verdict.broken == broken
    assert verdict.why


def test_a_hash_kept_elsewhere_finds_a_forged_chain(log: AuditLog, tmp_path: Path) -> None:
    last = log.verify().last
    for name in ("audit.jsonl", "audit.head"):
        (tmp_path / name).unlink()
    log.add("route.set", "forged", "bob")
    assert log.verify().broken is None
    assert log.verify(last).why == "the hash you gave is not in it"


def test_a_removed_log_cannot_begin_anew(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").unlink()
    log.add("route.set", "after", "bob")
    assert log.verify().broken == 1


def test_half_a_line_of_a_crash_is_cut_off(log: AuditLog, tmp_path: Path) -> None:
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('{"seq": 6, "at"')
    assert log.verify().broken is None
    log.add("key.add", "k", "ann")
    assert log.verify().entries == 6


def test_a_log_that_ends_with_noise_takes_no_more(log: AuditLog, tmp_path: Path) -> None:
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write("noise\n")
    with pytest.raises(OSError, match="lumen audit verify"):
        log.add("key.add", "k", "ann")


def test_long_values_are_cut(log: AuditLog) -> None:
    entry = log.add("route.set", "r", "ann", text="x" * 100_000)
    assert len(entry.details["text"]) < 3_000
    assert log.verify().broken is None


_WRITER = """
import sys
from pathlib import Path
from lumen.audit import AuditLog
log = AuditLog(Path(sys.argv[1]))
print("go", flush=True)
for i in range(int(sys.argv[2])):
    print(log.add("a", str(i), sys.argv[3]).seq, flush=True)
"""


def test_writers_share_it_and_a_killed_one_leaves_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    start = [sys.executable, "-c", _WRITER, str(path)]
    endless = subprocess.Popen([*start, "1000000", "killed"], stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen([*start, "40", "other"], stdout=subprocess.DEVNULL)
    assert endless.stdout is not None
    told = [endless.stdout.readline() for _ in range(10)]
    os.kill(endless.pid, signal.SIGKILL)
    rest, _ = endless.communicate(timeout=100)
    assert other.wait(timeout=100) == 0
    log = AuditLog(path)
    verdict = log.verify()
    assert verdict.broken is None
    acknowledged = int((rest.split() or told[-1:])[-1])
    assert verdict.entries >= max(acknowledged, 40)
    assert sum(entry.who == "other" for entry in log.entries()) == 40

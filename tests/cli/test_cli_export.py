from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lumen.paths import Paths
from tests.cli.harness import Ran


def kept(home: Paths, route: str, ago: float, text: str) -> None:
    at = time.time() - ago
    folder = home.payloads_dir / route.replace("/", "%2F")
    folder.mkdir(parents=True, exist_ok=True)
    line = {
        "time": at,
        "request": f"req_{text}",
        "route": route,
        "outcome": "ok",
        "asked": {"a": [text]},
        "answered": None,
    }
    with (folder / f"{datetime.fromtimestamp(at, UTC).date()}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_what_was_kept_is_told_by_time_and_route(lumen: Callable[..., Ran], home: Paths, tmp_path: Path) -> None:
    kept(home, "fast", 10, "new")
    kept(home, "a/b", 7200, "other")
    kept(home, "fast", 40 * 86400, "old")
    with next((home.payloads_dir / "fast").glob("*.jsonl")).open("a") as file:
        file.write('{"time": 99999999999, "half')
    told = lumen("export")
    assert [json.loads(line)["request"] for line in told.out.splitlines()] in (
        ["req_other", "req_new"],
        ["req_new", "req_other"],
    )
    assert "2 requests" in told.err
    assert [json.loads(line)["request"] for line in lumen("export", "--route", "a/b").out.splitlines()] == ["req_other"]
    assert len(lumen("export", "--since", "60d").out.splitlines()) == 3
    assert len(lumen("export", "--since", "1h").out.splitlines()) == 1
    assert "payloads.export" in lumen("audit", "ls").out
    file_ = tmp_path / "out.csv"
    assert lumen("export", "--format", "csv", "--output", str(file_), "--since", "1h").code == 0
    rows = list(csv.DictReader(file_.read_text().splitlines()))
    assert rows[0]["request"] == "req_new" and json.loads(rows[0]["asked"]) == {"a": ["new"]}
    assert file_.stat().st_mode & 0o777 == 0o600


def test_where_nothing_is_kept_that_is_said(lumen: Callable[..., Ran], home: Paths) -> None:
    done = lumen("export")
    assert done.code == 1 and "no route has kept anything" in done.err
    assert lumen("export", "--since", "soon").code == 2

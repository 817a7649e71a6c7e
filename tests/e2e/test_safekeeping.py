"""Backup, restore and the report of a fault, of a gateway that runs and serves."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Box

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-safekeeping")]
SAID = "CANARY-said-by-somebody"


def asking(box: Box, over: threading.Event, answered: list[str]) -> None:
    client = box.client()
    messages: list[Any] = [{"role": "user", "content": SAID}]
    while not over.is_set():
        told = client.chat.completions.with_raw_response.create(model="lumen-tiny", messages=messages, max_tokens=4)
        answered.append(told.headers["x-request-id"])


def test_a_backup_of_a_busy_gateway_has_every_request_answered_before_it(fresh: Box, tmp_path: Path) -> None:
    fresh.up()
    over, answered = threading.Event(), list[str]()
    busy = threading.Thread(target=asking, args=(fresh, over, answered))
    busy.start()
    while len(answered) < 20:
        over.wait(0.01)
    before, file = list(answered), tmp_path / "b.tar.gz"
    fresh.lumen("backup", str(file))
    refused = fresh.lumen("restore", str(file), check=False)
    over.set()
    busy.join()
    assert refused.returncode == 1 and "lumen down" in refused.stderr
    fresh.lumen("down")
    other = Box(tmp_path / "other")
    other.lumen("restore", str(file))
    for request in (before[0], before[-1]):
        told = json.loads(other.lumen("logs", "--request", request, "--json").stdout)
        assert told["attempts"][0]["outcome"] == "ok" and told["attempts"][0]["output"]
    usage = json.loads(other.lumen("usage", "--json").stdout)["total"]
    assert len(before) <= usage["requests"] <= len(answered)
    assert other.lumen("audit", "verify").returncode == 0
    # What was restored serves: the same keys are known.
    other.up()
    try:
        assert other.lumen("key", "ls").returncode == 0
        assert other.status()["ready"]
    finally:
        other.end()


def test_a_report_of_a_running_gateway_helps_and_tells_nothing(fresh: Box, tmp_path: Path) -> None:
    fresh.up()
    messages: list[Any] = [{"role": "user", "content": SAID}]
    told = fresh.client().chat.completions.with_raw_response.create(model="lumen-tiny", messages=messages, max_tokens=4)
    file = tmp_path / "report.tar.gz"
    fresh.lumen("doctor", "--bundle", str(file), check=False)
    with tarfile.open(file) as tar:
        found = {name.removeprefix("lumen-report/"): tar.extractfile(name) for name in tar.getnames()}
        texts = {name: body.read().decode() for name, body in found.items() if body is not None}
    whole = "".join(texts.values())
    assert fresh.key not in whole and SAID not in whole and str(tmp_path) not in whole
    assert json.loads(texts["status.json"])["models"][0]["name"] == "lumen-tiny"
    assert "gen_ai_server_request_duration_seconds_count" in texts["metrics.txt"]
    assert "lumen-tiny" in texts["logs/gateway.log"] and told.headers["x-request-id"] not in ("", None)

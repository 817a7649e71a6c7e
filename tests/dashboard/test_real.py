"""The dashboard before a gateway that really runs: what frames and answers the other tests make up is what it sends."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from lumen_cli.client import Admin
from lumen_cli.dashboard.app import PANES, Dashboard
from lumen_cli.dashboard.windows import Log, Told

from lumen.paths import paths
from lumen.workers.logs import log_path
from tests.dashboard.frames import OK
from tests.dashboard.waiting import until
from tests.e2e.conftest import Box

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    made = Box(tmp_path_factory.mktemp("box"))
    try:
        made.up()
        question = [{"role": "user", "content": "What is Lumen?"}]
        for _ in range(3):
            made.client().chat.completions.create(model="lumen-tiny", messages=question, max_tokens=16)
        yield made
    finally:
        made.end()


async def test_every_pane_shows_what_a_real_gateway_tells(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMEN_HOME", str(box.home))
    app = Dashboard(Admin(paths().admin_socket))
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: len(app.board.requests) == 3)
        await until(pilot, lambda: app.board.frame["devices"])
        missing = {name for name in OK if name not in app.board.frame}
        assert not missing, "the frames of the tests have what no gateway sends"
        assert not [alarm for alarm in app.board.alarms() if alarm.level == "bad"]
        for number in range(1, len(PANES) + 1):
            await pilot.press(str(number))
            await pilot.pause()
        await pilot.press("4", "enter")
        await until(pilot, lambda: isinstance(app.screen, Told))
        assert isinstance(app.screen, Told)
        assert re.search(r"prefill +[\d.]+ m?s", app.screen.text) or "1. lumen-tiny: ok" in app.screen.text
        log = log_path(paths().log_dir, "lumen-tiny", 0)
        with log.open("a") as lines:
            lines.write("a word of the engine\n")
        await pilot.press("escape", "6", "l")
        await until(pilot, lambda: isinstance(app.screen, Log) and "a word of the engine" in app.screen.text)


def test_one_frame_as_text_has_every_table(box: Box) -> None:
    told = box.lumen("top", "--once").stdout
    assert "requests/s, " in told
    for head in ("route ", "target ", "model ", "device "):
        assert f"\n{head}" in told
    assert told.count(" ok ") == 3


def test_the_browser_shows_the_same(box: Box) -> None:
    """`--serve` answers with the page that runs `lumen top` behind it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "lumen_cli", "top", "--serve", "--port", str(port)]
    child = subprocess.Popen(argv, env=box.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
                    assert "Lumen" in page.read().decode()
                return
            except OSError:
                assert child.poll() is None, "it ended at once"
                time.sleep(0.05)
        raise AssertionError("the page never came")
    finally:
        child.terminate()
        child.wait(100)

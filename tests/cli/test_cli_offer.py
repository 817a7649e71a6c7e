"""What `up` offers while only the demonstration model serves."""

from __future__ import annotations

import http.server
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lumen_cli import gateway, offer

from lumen import tiny
from lumen.paths import Paths
from tests.cli.harness import READY, Fake, Ran

TINY = {"name": "lumen-tiny", "ready": True, "tiny": True, "source": "builtin:tiny", "replicas": []}


@pytest.fixture
def hub(home: Paths) -> Iterator[str]:
    """Something that answers where the configuration says the hub is."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    home.config_file.write_text(f"# mine\nhub:\n  endpoint: http://127.0.0.1:{server.server_address[1]}\n")
    yield "hub"
    server.shutdown()
    server.server_close()


ONLY_TINY = {"ready": True, "models": [TINY]}


def test_yes_takes_the_real_model_and_the_gateway_takes_it_over(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "default_model", lambda status: str(lumen_file()))
    fake.play(statuses=[{**ONLY_TINY, "config": str(home.config_file)}])
    ran = lumen("up", "--detach", "--yes")
    assert ran.code == 0, ran.err
    assert home.config_file.read_text().startswith("# mine\nhub:\n")
    assert f"source: {lumen_file()}\n" in home.config_file.read_text()
    assert len(fake.calls("/admin/reload")) == 1
    assert "in force now" in ran.err


def test_without_a_terminal_nobody_is_asked(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "default_model", lambda status: "hf://org/real")
    before = home.config_file.read_text()
    fake.play(statuses=[ONLY_TINY])
    ran = lumen("up", "--detach")
    assert ran.code == 0
    assert "To serve hf://org/real instead, which suits this machine, run `lumen up --yes`." in ran.err
    assert home.config_file.read_text() == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("said", "taken"), [("n\n", False), ("\n", True), ("y\n", True)])
def test_on_a_terminal_the_answer_counts(
    lumen: Callable[..., Ran],
    fake: Fake,
    home: Paths,
    hub: str,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    taken: bool,
) -> None:
    monkeypatch.setattr(offer, "default_model", lambda status: str(lumen_file()))
    fake.play(statuses=[{**ONLY_TINY, "config": str(home.config_file)}])
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(said))
    monkeypatch.setattr(sys, "stdout", terminal)
    assert lumen("up", "--detach").code == 0
    assert "and serve it instead? [Y/n]" in terminal.getvalue()
    assert ("models:" in home.config_file.read_text()) is taken
    assert bool(fake.calls("/admin/reload")) is taken


def test_ctrl_c_at_the_question_stops_what_was_started(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "default_model", lambda status: "hf://org/real")
    fake.play(statuses=[ONLY_TINY])
    monkeypatch.setattr(sys, "stdin", Terminal(""))
    monkeypatch.setattr(sys, "stdout", Terminal())
    ran = lumen("up")
    assert ran.code == 0
    assert ran.err.endswith("Lumen has stopped.\n")
    assert gateway.record(home) is None


def test_without_a_hub_nothing_is_offered_and_yes_says_why(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "default_model", lambda status: "hf://org/real")
    home.config_file.write_text("hub: {endpoint: 'http://127.0.0.1:9'}\n")
    fake.play(statuses=[ONLY_TINY])
    assert "org/real" not in lumen("up", "--detach").err
    ran = lumen("up", "--yes")
    assert ran.code == 0
    assert "already running" in ran.err


def test_nothing_is_offered_where_a_real_model_serves(
    lumen: Callable[..., Ran], fake: Fake, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer, "default_model", lambda status: pytest.fail("asked"))
    fake.play(statuses=[READY])
    assert lumen("up", "--detach", "--yes").code == 0


def lumen_file() -> Path:
    return tiny.MODEL


def test_a_download_into_a_pipe_is_a_line_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    told = offer.tenths()
    for done in range(0, 2001, 7):
        told(done, 2000, 1024.0)
    told(2000, 2000, 1024.0)
    told(5, None, 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == [str(10 * i) for i in range(1, 11)]
    assert lines[-1] == "  100 %, 2.0 KiB of 2.0 KiB, 1.0 KiB/s"


def test_a_download_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with offer._Bar("hf://org/[real]") as told:
        told(1024, None, 0.0)
        told(1024, 2048, 512.0)
    shown = capsys.readouterr().err
    assert "hf://org/[real]" in shown
    assert "1.0 KiB of 2.0 KiB, 512 B/s" in shown

"""`status`, `logs`, `config`, the admin client and what is printed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lumen_cli import gateway, output
from lumen_cli.client import Admin
from lumen_cli.commands.logs import written
from lumen_cli.errors import CliError, NotRunning

from lumen.config.load import load as load_config
from lumen.paths import Paths
from tests.cli.harness import CONFIG, MODEL, REPLICA, Fake, Ran, environment

# -- status ------------------------------------------------------------------------------------------------------------


def test_status_shows_what_runs(lumen: Callable[..., Ran], fake: Fake) -> None:
    loading = {**REPLICA, "state": "starting", "phase": "load", "pct": 40.0, "index": 1, "pid": 43}
    fake.start(statuses=[{"models": [{**MODEL, "replicas": [REPLICA, loading]}, {"name": "off", "replicas": []}],
                          "routes": ["fast"], "notice": "Only a demonstration."}])  # fmt: skip
    ran = lumen("status")
    assert ran.code == 0
    assert "Lumen 9.9 is ready at http://127.0.0.1:" in ran.out
    assert "up 1 min, profile cpu, 47.7 MiB resident" in ran.out
    assert "requests: 0 in flight, 7 served, 1 failed" in ran.out
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["m", "0", "ready", "-", "42", "1", "2"] in rows
    assert ["m", "1", "starting", "load", "40", "%", "43", "1", "2"] in rows
    assert ["off", "-", "off", "waiting", "-", "-", "-"] in rows
    assert "routes: fast" in ran.out
    assert ran.err == "Only a demonstration.\n"
    told = lumen("status", "--json").json
    assert told["running"] is True
    assert told["models"][0]["replicas"][0] == REPLICA


def test_status_without_a_gateway(lumen: Callable[..., Ran]) -> None:
    assert lumen("status") == Ran(1, "", "lumen: no gateway is running; start one with `lumen up`\n")
    ran = lumen("status", "--json")
    assert (ran.code, ran.json, ran.err) == (1, {"running": False}, "")


def test_a_socket_that_nobody_listens_on_is_no_gateway(lumen: Callable[..., Ran], home: Paths) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(home.admin_socket))
    assert "no gateway is running" in lumen("status").err


# -- the admin client --------------------------------------------------------------------------------------------------


@pytest.fixture
def answering(tmp_path_factory: pytest.TempPathFactory, home: Paths) -> Iterator[Callable[[bytes | None], Admin]]:
    """An admin socket that answers every call with these bytes and hangs up; `None`: it says nothing."""
    stop = threading.Event()
    servers = []

    def serve(answer: bytes | None) -> Admin:
        server = socket.socket(socket.AF_UNIX)
        servers.append(server)
        server.bind(str(home.admin_socket))
        server.listen()

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                if answer is None:
                    stop.wait(100)
                else:
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return Admin(home.admin_socket, timeout=0.2 if answer is None else 20.0)

    yield serve
    stop.set()
    for server in servers:
        server.close()


def _http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def test_answers_of_the_admin_api(answering: Callable[[bytes | None], Admin]) -> None:
    assert answering(_http(200, b'[{"a": 1}]')).get("/admin/routes") == [{"a": 1}]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_http(400, b'{"error": {"message": "c.yaml:3: wrong"}}'), "c.yaml:3: wrong"),
        (_http(500, b'{"error": "broken"}'), "broken"),
        (_http(503, b"{}"), "status 503"),
        (_http(404, b"[]"), "status 404"),
        (_http(200, b"<html>"), "not JSON"),
        (_http(200, b"\xff"), "not JSON"),
        (None, "did not answer within 0.2 s"),
    ],
)
def test_what_the_admin_api_refuses(
    answering: Callable[[bytes | None], Admin], answer: bytes | None, said: str
) -> None:
    with pytest.raises(CliError, match=said) as caught:
        answering(answer).status()
    assert not isinstance(caught.value, NotRunning)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"nonsense\r\n\r\n"])
def test_a_gateway_that_ends_in_the_middle_is_not_running(
    answering: Callable[[bytes | None], Admin], answer: bytes
) -> None:
    assert answering(answer).status_or_none() is None


# -- logs --------------------------------------------------------------------------------------------------------------


def test_logs_show_the_end(lumen: Callable[..., Ran], home: Paths) -> None:
    home.gateway_log.write_text("".join(f"line {i}\n" for i in range(100)))
    assert lumen("logs", "-n", "2").out == "line 98\nline 99\n"
    assert len(lumen("logs").out.splitlines()) == 50
    assert lumen("logs", "-n", "0").out == ""
    assert len(lumen("logs", "-n", "1000").out.splitlines()) == 100
    assert lumen("logs", "-n", "1", "--json").json == {"path": str(home.gateway_log), "lines": ["line 99"]}


def test_logs_of_a_model(lumen: Callable[..., Ran], home: Paths) -> None:
    (home.log_dir / "qwen_7b-1.log").write_bytes(b"ready \xff\n")
    assert lumen("logs", "--model", "qwen:7b", "--replica", "1").out == "ready �\n"
    ran = lumen("logs", "--model", "../../etc/passwd")
    assert ran.code == 1
    assert "has written no log; logs here: qwen_7b-1.log" in ran.err
    assert lumen("logs").err == "lumen: the gateway has written no log; logs here: qwen_7b-1.log\n"


@pytest.mark.parametrize("count", [0, 1, 3, 5000, 20_000])
def test_the_tail_of_a_large_log_is_exact(tmp_path: Path, count: int) -> None:
    log = tmp_path / "x.log"
    lines = [f"{i} " + "x" * (i % 97) for i in range(10_000)]
    log.write_text("\n".join(lines))
    assert gateway.tail(log, count) == (lines[-count:] if count else [])
    since = log.read_text().index("9000 ")
    assert gateway.tail(log, count, since) == (lines[9000:][-count:] if count else [])
    assert gateway.tail(log, 1, since=10**9) == lines[-1:]


def test_following_a_log_survives_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("old\n")
    lines = written(log, 4, pause=0.0)

    def more(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    more("a\nb")
    assert next(lines) == "a"
    more("c\n")
    assert next(lines) == "bc"
    log.write_text("")  # emptied in place
    more("d\n")
    assert next(lines) == "d"
    log.rename(tmp_path / "x.log.1")
    log.write_text("e\n")  # replaced
    assert next(lines) == "e"
    lines.close()  # type: ignore[attr-defined]


def test_follow_prints_what_comes(home: Paths) -> None:
    home.gateway_log.write_text("before\n")
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from lumen_cli.main import main; sys.exit(main())", "logs", "-f", "--json"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"line": "before"}
    with home.gateway_log.open("a") as log:
        log.write("after\n")
    assert json.loads(process.stdout.readline()) == {"line": "after"}
    process.send_signal(2)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err) == (130, "", "")


# -- config ------------------------------------------------------------------------------------------------------------


def test_config_check(lumen: Callable[..., Ran], home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = lumen("config", "check")
    assert (ran.code, ran.out) == (1, "")
    assert f"there is no configuration at {home.config_file}" in ran.err
    home.config_file.write_text(CONFIG)
    ran = lumen("config", "check")
    assert ran.out == f"{home.config_file} is good: 1 models, 1 providers, 0 routes.\n"
    assert ran.err == "warning: models.small: there is no file small.gguf\n"
    monkeypatch.delenv("ACME_KEY", raising=False)
    home.config_file.write_text(CONFIG.replace('/v1"', '/v1", key: env:ACME_KEY'))
    told = lumen("config", "check", "--json").json
    assert told["ok"] is True
    assert told["warnings"][0] == "providers.acme.key: the environment variable ACME_KEY is not set"
    bad = tmp_path / "bad.yaml"
    bad.write_text("sever: 1\n")
    ran = lumen("config", "check", str(bad))
    assert (ran.code, ran.err) == (1, f"lumen: {bad}:1: unknown key 'sever'; did you mean 'server'?\n")


def test_config_show_is_a_configuration_again(lumen: Callable[..., Ran], home: Paths, tmp_path: Path) -> None:
    home.config_file.write_text(CONFIG + "routes: {r: {targets: [small]}}\n")
    shown = tmp_path / "shown.yaml"
    shown.write_text(lumen("config", "show").out)
    assert load_config(shown) == load_config(home.config_file)
    assert lumen("config", "show", "--json").json["models"]["small"]["source"] == "small.gguf"


def test_config_path(lumen: Callable[..., Ran], home: Paths) -> None:
    assert lumen("config", "path").out == f"{home.config_file}\n"


# -- output ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.9, "59 s"), (125, "2 min"), (7500, "2 h 05 min"), (270_000, "3 d 3 h")]
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert output.ago(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (1536, "1.5 KiB"), (4e6, "3.8 MiB"), (2**50, "1024.0 TiB")])
def test_sizes(count: float, said: str) -> None:
    assert output.size(count) == said


def test_a_table_keeps_what_looks_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [("[red]x[/red]", None), ("y" * 150, 1)])
    shown = capsys.readouterr().out
    assert "[red]x[/red]" in shown
    assert "y" * 150 in shown

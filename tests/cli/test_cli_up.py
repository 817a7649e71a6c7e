"""`up`, `down`, `restart` against a scripted gateway: a real process with a real admin socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lumen_cli import gateway, startup
from lumen_cli.gateway import Options

from lumen.keys import load
from lumen.paths import Paths
from tests.cli.harness import FAKE, READY, Fake, Ran, environment, model

STARTING = {"ready": False, "models": [model("starting", phase="load", pct=40.0)]}


def test_up_waits_until_ready_and_says_how_to_call_it(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    fake.play(statuses=[{"ready": False, "models": []}, STARTING, {**READY, "notice": "Only a demonstration."}])
    ran = lumen("up", "--detach", "--port", "0", "--profile", "cpu")
    assert ran.code == 0, ran.err
    key = home.local_key_file.read_text().strip()
    record = gateway.record(home)
    assert record is not None
    assert record.argv[-4:] == ("--port", "0", "--profile", "cpu")
    assert f"Base URL  {record.url}\n" in ran.out
    assert f"API key   {key}\n" in ran.out
    assert "hardware profile cpu: no GPU" in ran.err
    assert "model m: load" in ran.err
    assert "model m: ready" in ran.err
    assert "Only a demonstration." in ran.err
    assert load(home.keys_file).find(key, time.time()) is not None
    assert lumen("status").code == 0


def test_the_snippet_is_five_lines_of_python_that_stream(lumen: Callable[..., Ran], fake: Fake) -> None:
    fake.play(statuses=[READY], answer=["Hel", "lo"])
    shown = lumen("up", "--detach").out
    lines = shown[shown.index("  from openai") :].strip("\n").splitlines()
    assert len(lines) == 5
    code = "\n".join(line[2:] for line in lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == "Hello"


def test_up_twice_says_so_and_starts_nothing(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    fake.play(statuses=[READY])
    first = lumen("up", "--detach")
    before = gateway.record(home)
    again = lumen("up")
    assert again.code == 0
    assert again.out == first.out
    assert before is not None
    assert f"Lumen is already running (process {before.pid})" in again.err
    assert gateway.record(home) == before
    assert "as it was started" not in again.err
    assert "as it was started: for --port 7000 run `lumen down` first.\n" in lumen("up", "--port", "7000").err


def test_an_endpoint_that_others_reach_says_how(lumen: Callable[..., Ran], fake: Fake) -> None:
    fake.start(statuses=[{**READY, "url": "http://0.0.0.0:8080/v1"}])
    ran = lumen("up", "--detach")
    assert "  Base URL  http://127.0.0.1:8080/v1\n" in ran.out
    said = "Other machines reach it by this machine's name or address"
    assert f"{said}; without TLS their keys go in the clear (docs/security.md).\n" in ran.err
    fake.running[-1].terminate()
    fake.running[-1].wait()
    fake.start(statuses=[{**READY, "url": "https://0.0.0.0:8080/v1", "tls": {"cert": "c.pem", "mutual": False}}])
    assert f"{said}.\n" in lumen("up", "--detach").err


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (["12:00:00 reading", "12:00:01 error: cannot listen on 127.0.0.1:5866 (Address already in use)"],
         "lumen: the gateway did not start: cannot listen on 127.0.0.1:5866 (Address already in use)"),
        (["Fatal Python error"], "lumen: the gateway ended by itself (exit code 3); see `lumen logs`"),
    ],
)  # fmt: skip
def test_a_gateway_that_ends_is_one_clear_error(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, says: list[str], told: str
) -> None:
    home.gateway_log.write_text("old error: of another run\n")
    fake.play(says=says, dies=3)
    ran = lumen("up", "--detach")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1] == told
    assert "another run" not in ran.err
    assert says[0] in ran.err


def test_a_gateway_that_ends_while_it_starts_is_noticed(lumen: Callable[..., Ran], fake: Fake) -> None:
    fake.play(statuses=[STARTING], dies=7)
    ran = lumen("up")
    assert ran.code == 1
    assert "ended by itself (exit code 7)" in ran.err


def test_a_model_that_cannot_start_ends_up_with_its_last_words(
    lumen: Callable[..., Ran], fake: Fake, home: Paths
) -> None:
    (home.log_dir / "m-0.log").write_text("loading\nbad magic\n")
    crashed = {"ready": False, "models": [model("crashed", restarts=2, why="exit code 1")]}
    fake.play(statuses=[STARTING, {**crashed, "models": [model("crashed", restarts=1, why="exit code 1")]}, crashed])
    ran = lumen("up", "--detach")
    assert ran.code == 1
    assert ran.err.splitlines()[-3:] == [
        "  | loading",
        "  | bad magic",
        "lumen: model m does not start: exit code 1; see `lumen logs --model m` and `lumen doctor`",
    ]
    assert "crashed, starting again (exit code 1)" in ran.err
    assert fake.calls("signal or stop")
    assert gateway.record(home) is None


def test_a_bad_configuration_is_told_with_its_line_before_anything_starts(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, tmp_path: Path
) -> None:
    fake.play(statuses=[READY])
    home.config_file.write_text("server:\n  prot: 1\n")
    ran = lumen("up")
    assert ran.err == f"lumen: {home.config_file}:2: unknown key 'prot'; did you mean 'port'?\n"
    assert ran.code == 1
    assert lumen("up", "--config", str(tmp_path / "none.yaml")).err.endswith("there is no such file\n")
    assert not fake.calls()
    assert not home.gateway_log.exists()


def test_a_model_that_is_not_on_this_disk_is_told_and_not_waited_for(lumen: Callable[..., Ran], fake: Fake) -> None:
    gone = {**model("off", name="big"), "replicas": [], "missing": "not on this disk yet; run: lumen pull hf://a/b"}
    fake.play(statuses=[{"ready": False, "models": [model("ready"), gone]}])
    ran = lumen("up", "--detach")
    assert ran.code == 0
    assert "Model big is not served: not on this disk yet; run: lumen pull hf://a/b" in ran.err
    assert 'model="m"' in ran.out


def test_down_stops_it_and_down_again_is_no_error(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    fake.play(statuses=[READY], in_flight=2, drain=0.2)
    lumen("up", "--detach")
    ran = lumen("down")
    assert ran == Ran(0, "Lumen has stopped.\n", "waiting for 2 requests in flight\n")
    assert len(fake.calls("/admin/stop")) == 1
    assert lumen("down") == Ran(0, "Lumen is not running.\n", "")
    assert gateway.record(home) is None


def test_down_kills_what_does_not_end(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_STOPPED_BY_FORCE", 0.3)
    process = fake.start(statuses=[READY], deaf=True)
    ran = lumen("down", "--timeout", "0.2")
    assert ran == Ran(0, "Lumen has stopped.\n", "")
    assert process.wait(100) == -signal.SIGKILL


def test_down_ends_a_gateway_whose_socket_is_gone(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    process = fake.start(statuses=[READY])
    home.admin_socket.rename(home.admin_socket.with_name("other.sock"))
    assert lumen("down").out == "Lumen has stopped.\n"
    assert process.wait(100) is not None


def test_down_never_touches_a_process_that_took_over_the_number(lumen: Callable[..., Ran], home: Paths) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "-m", "lumen"]) as other:
        record = {"pid": other.pid, "started": time.time() - 3600, "url": "http://127.0.0.1:1/v1", "argv": []}
        home.gateway_file.write_text(json.dumps(record))
        assert lumen("down").out == "Lumen is not running.\n"
        home.gateway_file.write_text(json.dumps({**record, "started": time.time(), "pid": os.getpid()}))
        assert lumen("down").out == "Lumen is not running.\n"
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x"}', '{"pid": 1, "started": null}'])
def test_a_damaged_record_is_no_record(home: Paths, text: str) -> None:
    home.gateway_file.write_text(text)
    assert gateway.record(home) is None


def test_restart_keeps_the_options(lumen: Callable[..., Ran], fake: Fake, home: Paths, tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("server: {port: 1}\n")
    fake.play(statuses=[READY])
    lumen("up", "--detach", "--port", "0", "--config", str(config))
    first = gateway.record(home)
    ran = lumen("restart")
    assert ran.code == 0, ran.err
    second = gateway.record(home)
    assert first is not None
    assert second is not None
    assert first.pid != second.pid
    assert first.argv == second.argv
    assert Options.of(second.argv) == Options(config, None, 0, None)


def test_restart_of_one_model(lumen: Callable[..., Ran], fake: Fake) -> None:
    renewed = model("ready")
    renewed["replicas"][0]["pid"] = 5
    fake.start(statuses=[READY, READY, STARTING, READY, {"ready": True, "models": [renewed]}])
    ran = lumen("restart", "m")
    assert (ran.code, ran.out) == (0, "Model m has restarted.\n")
    assert "model m: load" in ran.err
    assert fake.calls("/admin/restart")[0]["body"] == {"model": "m"}
    ran = lumen("restart", "nope")
    assert (ran.code, ran.err) == (1, "lumen: There is no local model of that name\n")


def test_restart_needs_a_gateway(lumen: Callable[..., Ran]) -> None:
    ran = lumen("restart")
    assert (ran.code, ran.err) == (1, "lumen: no gateway is running; start one with `lumen up`\n")


def test_options_travel_as_arguments() -> None:
    options = Options(Path("/c.yaml"), "0.0.0.0", 1, "cpu")
    assert Options.of(["x/__main__.py", *options.arguments()]) == options
    assert Options.of(["x"]) == Options.of([]) == Options()
    assert Options.of(["x", "--port", "no"]) == Options()
    assert Options.of(["x", "--new", "1", "--host=h"]) == Options(host="h")
    assert gateway.command(options)[1:4] == ["-P", "-m", "lumen"]


# -- in the foreground -------------------------------------------------------------------------------------------------

DRIVER = """
import sys
from lumen_cli import gateway
from lumen_cli.main import main
gateway.command = lambda options: [sys.executable, {fake!r}, "-m", "lumen", *options.arguments()]
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def foreground(fake: Fake) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`lumen up` in a process of its own, ready."""
    started: list[subprocess.Popen[str]] = []

    def start(**script: Any) -> subprocess.Popen[str]:
        fake.play(**script)
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER.format(fake=str(FAKE)), "up"],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Press Ctrl-C"):
                return process
        raise AssertionError("up ended before it was ready")

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains(
    foreground: Callable[..., subprocess.Popen[str]], fake: Fake, home: Paths, number: signal.Signals
) -> None:
    process = foreground(statuses=[READY, {**READY, "requests": {"in_flight": 3}}], drain=0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "Stopping; 3 in flight. Ctrl-C again stops at once.\n" in err
    assert err.endswith("Lumen has stopped.\n")
    assert len(fake.calls("signal or stop")) == 1
    assert not home.gateway_file.exists()


def test_a_second_ctrl_c_stops_at_once(foreground: Callable[..., subprocess.Popen[str]], home: Paths) -> None:
    process = foreground(statuses=[READY, {**READY, "requests": {"in_flight": 1}}], deaf=True)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("Stopping;"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    # It hears no signal: without being killed it would not end.
    _, err = process.communicate(timeout=100)
    assert "Stopping at once.\n" in err
    record = gateway.record(home)
    assert record is not None
    assert not gateway.Process(record.pid, record.started).alive()


def test_a_stop_from_elsewhere_ends_up(
    foreground: Callable[..., subprocess.Popen[str]], lumen: Callable[..., Ran]
) -> None:
    process = foreground(statuses=[READY])
    assert lumen("down").out == "Lumen has stopped.\n"
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err.splitlines()[-1]) == (0, "Lumen was stopped.")


def test_a_gateway_that_dies_in_the_foreground_is_an_error(
    foreground: Callable[..., subprocess.Popen[str]], home: Paths
) -> None:
    process = foreground(statuses=[READY])
    record = gateway.record(home)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err.splitlines()[-1]) == (
        1, "lumen: the gateway ended by itself (signal 9); see `lumen logs`",
    )  # fmt: skip


# -- progress, pure ----------------------------------------------------------------------------------------------------


def test_what_a_model_is_doing_in_words() -> None:
    assert startup.phase(model("ready")) == ("ready", 100.0)
    assert startup.phase(model("starting", phase="load", pct=12.0)) == ("load", 12.0)
    assert startup.phase(model("starting")) == ("starting", None)
    assert startup.phase(model("probing", phase="warm", pct=100.0)) == ("probing", 100.0)
    assert startup.phase({"name": "m", "replicas": []}) == ("waiting", None)
    two = {
        "name": "m",
        "ready": False,
        "replicas": [*model("ready")["replicas"], *model("starting", phase="load")["replicas"]],
    }
    assert startup.phase(two)[0] == "load"


def test_when_a_start_has_failed_and_when_it_is_done() -> None:
    assert not startup.settled(STARTING)
    assert startup.settled(READY)
    assert startup.settled({"ready": True, "models": []})
    assert not startup.settled({"ready": False, "models": []})
    assert startup.failing({"models": [model("crashed", restarts=1)]}) is None
    assert startup.failing({"models": [model("starting", restarts=5)]}) is None
    assert startup.failing({"models": [model("crashed", restarts=2, why="w")]}) == ("m", 0, "w")


def test_bars_draw_every_state(capsys: pytest.CaptureFixture[str]) -> None:
    with startup.Bars() as bars:
        for status in (STARTING, {**STARTING, "models": [model("crashed", why="[oops]")]}, READY):
            bars.show({**status, "profile": {"name": "cpu", "why": "[no] GPU"}})
    shown = capsys.readouterr().err
    assert "hardware profile cpu: [no] GPU" in shown
    assert "m" in shown


def test_up_gives_signals_back(lumen: Callable[..., Ran], fake: Fake) -> None:
    before = signal.getsignal(signal.SIGTERM)
    fake.play(statuses=[READY])
    lumen("up", "--detach")
    assert signal.getsignal(signal.SIGTERM) is before

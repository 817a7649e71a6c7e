"""`status`, `logs`, `key`, `route`, `config` and the admin client."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from lumen_cli import gateway, output, route_set
from lumen_cli.client import Admin
from lumen_cli.commands import key as key_command
from lumen_cli.commands.logs import written
from lumen_cli.errors import CliError, NotRunning

from lumen.config.load import load as load_config
from lumen.config.schema import Route, Target, Timeouts
from lumen.core.errors import ConfigError
from lumen.keys import Key, Limits, load
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran, environment

REPLICA = {"model": "m", "index": 0, "engine": "llamacpp", "state": "ready", "since": 0.0, "why": None, "pid": 42,
           "phase": None, "pct": None, "restarts": 1, "in_flight": 2}  # fmt: skip
MODEL = {"name": "m", "ready": True, "tiny": False, "source": "x", "replicas": [REPLICA]}


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
                    stop.wait(20)
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
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_works(lumen: Callable[..., Ran], home: Paths) -> None:
    ran = lumen("key", "add", "app", "--models", "qwen*", "--models", "llama*", "--routes", "fast", "--expires", "30d")
    assert ran.code == 0
    secret = ran.out.strip()
    assert secret.startswith("lumen-")
    assert "takes effect with the next `lumen up`" in ran.err
    key = load(home.keys_file).find(secret, time.time())
    assert key is not None
    assert (key.name, key.models, key.routes) == ("app", ("qwen*", "llama*"), ("fast",))
    assert key.expires is not None
    assert abs(key.expires - key.created - 30 * 86400) < 1
    listed = lumen("key", "ls")
    assert secret not in listed.out + lumen("key", "ls", "--json").out
    assert key.hash not in listed.out + lumen("key", "ls", "--json").out
    assert "qwen*, llama*" in listed.out
    told = lumen("key", "ls", "--json").json[0]
    assert (told["id"], told["name"], told["state"]) == (key.id, "app", "active")


def test_a_key_as_json(lumen: Callable[..., Ran], home: Paths) -> None:
    made = lumen("key", "add", "app", "--json").json
    assert load(home.keys_file).find(made["key"], 0.0) is not None


def test_keys_are_revoked_by_name_or_id(lumen: Callable[..., Ran], home: Paths) -> None:
    secret = lumen("key", "add", "app").out.strip()
    assert lumen("key", "add", "app").err.startswith("lumen: a key named 'app' exists")
    assert lumen("key", "revoke", "app").out == "Key 'app' is revoked: takes effect with the next `lumen up`.\n"
    assert load(home.keys_file).find(secret, time.time()) is None
    assert lumen("key", "ls", "--json").json[0]["state"] == "revoked"
    ran = lumen("key", "revoke", "app")
    assert (ran.code, ran.err) == (1, "lumen: key 'app' is revoked already; `lumen key ls` lists the keys\n")


def test_a_key_has_a_turn_of_its_own(lumen: Callable[..., Ran], home: Paths) -> None:
    assert lumen("key", "add", "batch", "--priority", "low", "--rpm", "60").code == 0
    lumen("key", "add", "app")
    assert [key.priority for key in load(home.keys_file).keys] == ["low", None]
    assert [key["priority"] for key in lumen("key", "ls", "--json").json] == ["low", None]
    ran = lumen("key", "set", "batch", "--priority", "high")
    assert "and goes by high priority" in ran.out
    (batch, _) = load(home.keys_file).keys
    assert (batch.priority, batch.limits.rpm) == ("high", 60), "what is not given stays"
    lumen("key", "set", "batch", "--priority", "none")
    assert load(home.keys_file).keys[0].priority is None
    ran = lumen("key", "set", "batch", "--priority", "first")
    assert (ran.code, "write low, normal, high" in ran.err) == (2, True)
    home.keys_file.write_text(home.keys_file.read_text().replace('"priority": null', '"priority": "first"'))
    with pytest.raises(ConfigError, match="not a file of keys"):
        load(home.keys_file)


def test_what_a_key_may_ask_and_for_how_long_is_changed(lumen: Callable[..., Ran], home: Paths) -> None:
    secret = lumen("key", "add", "app", "--routes", "fast", "--rpm", "60").out.strip()
    ran = lumen("key", "set", "app", "--routes", "fast", "--routes", "slow", "--models", "qwen*", "--expires", "30d",
                "--no-retention")  # fmt: skip
    assert ran.code == 0, ran.err
    key = load(home.keys_file).find(secret, time.time())
    assert key is not None and key.expires is not None
    assert (key.routes, key.models, key.retains, key.limits.rpm) == (("fast", "slow"), ("qwen*",), False, 60)
    assert 29 * 86400 < key.expires - time.time() <= 30 * 86400
    assert "is limited to 60 rpm, asks only qwen*, fast, slow, ends " in ran.out
    assert ", nothing of its requests kept: " in ran.out
    assert lumen("key", "set", "app", "--models", "none", "--expires", "none", "--retention").code == 0
    key = load(home.keys_file).find(secret, time.time())
    assert key is not None
    assert (key.routes, key.models, key.retains, key.expires) == (("fast", "slow"), (), True, None)
    assert lumen("key", "set", "app", "--reserve").code == 0
    ran = lumen("key", "set", "app", "--routes", "none")
    assert (ran.code, "may use everything" in ran.err) == (1, True)
    lumen("key", "add", "viewer", "--role", "viewer")
    ran = lumen("key", "set", "viewer", "--models", "m")
    assert (ran.code, ran.err) == (1, "lumen: key 'viewer' has a role and asks no model\n")


def test_all_that_is_kept_of_a_key_is_changed_but_who_it_is() -> None:
    flags = set(inspect.signature(key_command.set_).parameters)
    named = {"retains": "retention"}
    fixed = {field.name for field in fields(Key) if named.get(field.name, field.name) not in flags}
    assert fixed == {"id", "hash", "created", "revoked", "role", "limits"}
    assert set(Limits.__dataclass_fields__) <= flags


def test_a_running_gateway_learns_of_keys(lumen: Callable[..., Ran], fake: Fake) -> None:
    fake.start(statuses=[{"models": [MODEL]}])
    assert "in force now" in lumen("key", "add", "app").err
    assert lumen("key", "revoke", "app").out == "Key 'app' is revoked: in force now.\n"
    assert len(fake.calls("/admin/reload")) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [(["a", "--expires", "soon"], "--expires: expected a duration"), (["a", "--expires", "0s"], "end at once"),
     ([""], "1 to 64 visible characters"), (["a\nb"], "1 to 64 visible characters"), (["x" * 65], "visible"),
     ([], "see `lumen key add --help`")],
)  # fmt: skip
def test_keys_that_make_no_sense(lumen: Callable[..., Ran], home: Paths, args: list[str], said: str) -> None:
    ran = lumen("key", "add", *args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not home.keys_file.exists()


def test_a_damaged_file_of_keys_is_told(lumen: Callable[..., Ran], home: Paths) -> None:
    home.keys_file.write_text("{")
    for args in (["ls"], ["add", "x"], ["revoke", "x"]):
        ran = lumen("key", *args)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "not a file of keys" in ran.err
    assert home.keys_file.read_text() == "{"


# -- routes ------------------------------------------------------------------------------------------------------------

CONFIG = """\
# mine
models:
  small: {source: small.gguf}  # the small one
providers:
  acme: {base_url: "https://api.example.com/v1"}
"""


def test_a_route_is_set_changed_and_removed(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    ran = lumen("route", "set", "fast", "--target", "small=3", "--target", "acme/big", "--policy", "ordered",
                "--default", "temperature=0.7", "--default", 'stop=["a"]', "--default", "reasoning_effort=low",
                "--timeout", "first_token=5s", "--timeout", "min_rate=2.5")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "takes effect with the next `lumen up`" in ran.out
    route = load_config(home.config_file).routes["fast"]
    assert route.targets == (Target("small", 3.0), Target("acme/big"))
    assert route.defaults == {"temperature": 0.7, "stop": ["a"], "reasoning_effort": "low"}
    assert (route.policy, route.timeouts) == ("ordered", Timeouts(first_token=5.0, min_rate=2.5))
    assert home.config_file.read_text().startswith(CONFIG)

    assert lumen("route", "set", "fast", "--default", "temperature=", "--default", "seed=1").code == 0
    changed = load_config(home.config_file).routes["fast"]
    assert changed.defaults == {"stop": ["a"], "reasoning_effort": "low", "seed": 1}
    assert changed.targets == route.targets

    shown = lumen("route", "show", "fast")
    assert ["small", "3", "75", "%"] in [line.split() for line in shown.out.splitlines()]
    assert "limits    first_token=5s, min_rate=2.5 tokens/s" in shown.out
    assert "small=3, acme/big=1" in lumen("route", "ls").out
    assert lumen("route", "show", "fast", "--json").json["targets"][0] == {"model": "small", "weight": 3.0}

    assert lumen("route", "set", "fast", "--timeout", "min_rate=").code == 0
    assert load_config(home.config_file).routes["fast"].timeouts == Timeouts(first_token=5.0)

    assert lumen("route", "rm", "fast").code == 0
    assert load_config(home.config_file).routes == {}
    ran = lumen("route", "rm", "fast")
    assert (ran.code, ran.err) == (1, "lumen: there is no route 'fast'; see `lumen route ls`\n")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--target", "smal"], 1, "did you mean 'small'?"),
        (["--target", "small=x"], 2, "the weight must be a number"),
        (["--target", "small=nan"], 2, "the weight must be a number"),
        (["--target", "small=0"], 1, "every weight of route 'fast' is 0"),
        (["--target", "small", "--policy", "wieghted"], 1, "did you mean 'weighted'?"),
        (["--target", "small", "--default", "temprature=1"], 1, "did you mean 'temperature'?"),
        (["--target", "small", "--default", "temperature"], 2, "is not NAME=VALUE"),
        (["--target", "small", "--timeout", "gap=soon"], 1, "routes.fast.timeouts.gap: expected a duration"),
        (["--target", "small", "--timeout", "nap=1s"], 1, "did you mean 'gap'?"),
        (["--target", "small", "--hedge", "p59"], 1, "did you mean 'p95'?"),
        (["--target", "small", "--max-splices", "17"], 2, "0<=x<=16"),
        (["--policy", "weighted"], 1, "routes.fast needs 'targets'"),
        ([], 2, "nothing to set"),
    ],
)
def test_a_route_that_is_wrong_is_not_written(
    lumen: Callable[..., Ran], home: Paths, args: list[str], code: int, said: str
) -> None:
    home.config_file.write_text(CONFIG)
    ran = lumen("route", "set", "fast", *args)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert said in ran.err
    assert home.config_file.read_text() == CONFIG


def test_every_plain_setting_of_a_route_is_set_and_shown(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    made = lumen("route", "set", "fast", "--target", "small", "--max-splices", "8")
    assert made.code == 0, made.err
    assert load_config(home.config_file).routes["fast"].max_splices == 8
    assert "besides   max_splices=8\n" in lumen("route", "show", "fast").out
    ran = lumen("route", "set", "fast", "--hedge", "p95", "--content-filter", "next", "--exact", "--reserve",
                "--priority", "high", "--share-prefixes", "--retention", "none", "--learn", "nightly")  # fmt: skip
    assert ran.code == 0, ran.err
    route = load_config(home.config_file).routes["fast"]
    assert (route.hedge, route.content_filter, route.exact, route.reserve) == ("p95", "next", True, True)
    assert (route.priority, route.share_prefixes, route.retention, route.learn) == ("high", True, "none", "nightly")
    assert route.max_splices == 8, "what is not given stays"
    shown = lumen("route", "show", "fast").out
    assert (
        "besides   max_splices=8, hedge=p95, content_filter=next, exact, reserve, priority=high, share_prefixes, "
        "retention=none, learn=nightly\n" in shown
    )
    assert lumen("route", "set", "fast", "--max-splices", "2", "--hedge", "off", "--content-filter", "stop",
                 "--no-exact", "--no-reserve", "--priority", "normal", "--no-share-prefixes", "--retention", "usual",
                 "--learn", "off").code == 0  # fmt: skip
    assert "besides" not in lumen("route", "show", "fast").out


def test_only_a_route_that_goes_by_what_targets_are_worth_promises_something(
    lumen: Callable[..., Ran], home: Paths
) -> None:
    home.config_file.write_text(CONFIG)
    assert lumen("route", "set", "fast", "--target", "small", "--target", "acme/big").code == 0
    for policy, promises in (("ordered", False), ("auto", True), ("cheapest", False), ("quality", True)):
        assert lumen("route", "set", "fast", "--policy", policy).code == 0
        assert ("quality   against small" in lumen("route", "show", "fast").out) is promises
    assert lumen("route", "set", "fast", "--policy", "ordered", "--strong", "acme/big").code == 0
    assert "quality   against acme/big" in lumen("route", "show", "fast").out


def test_a_target_that_money_keeps_from_being_asked_is_told(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    assert lumen("route", "set", "fast", "--target", "small", "--target", "acme/big").err == ""
    ran = lumen("route", "set", "fast", "--daily", "5usd")
    how = "`lumen provider price acme/big --input … --output …` says it"
    why = f"acme/big has no known price and is not asked where money is limited; {how}"
    assert (ran.code, ran.err) == (0, f"{why}.\n")
    assert f"routes.fast: {why}" in lumen("config", "check", "--json").json["warnings"]
    assert lumen("provider", "price", "acme/big", "--input", "0.60/1M", "--output", "2.40/1M").code == 0
    assert lumen("route", "set", "fast", "--daily", "6usd").err == ""


def test_what_of_a_route_only_the_file_can_say() -> None:
    flags = set(inspect.signature(route_set.set_).parameters)
    # Under other names: a target is given by itself, a default and a limit one by one, a budget amount by amount.
    named = {"targets": "target", "rules": "rule", "defaults": "default", "timeouts": "timeout", "budget": "daily"}
    missing = {field.name for field in fields(Route) if named.get(field.name, field.name) not in flags}
    assert missing == {"payloads", "responses"}


def test_a_route_reaches_the_running_gateway_and_its_file(
    lumen: Callable[..., Ran], fake: Fake, home: Paths, tmp_path: Path
) -> None:
    used = tmp_path / "used.yaml"
    fake.start(statuses=[{"models": [MODEL], "config": str(used)}])
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny")
    assert ran.out == f"Route fast is written to {used}: in force now.\n"
    assert len(fake.calls("/admin/reload")) == 1
    assert "fast" in load_config(used).routes
    assert not home.config_file.exists()
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny", "--config", str(tmp_path / "other.yaml"))
    assert f"the running gateway uses {used} and is not changed" in ran.out
    assert len(fake.calls("/admin/reload")) == 1
    ran = lumen("route", "rm", "fast")
    assert ran.out == f"Route fast is removed from {used}: in force now.\n"


def test_a_route_that_the_gateway_refuses_is_told(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    fake.start(statuses=[{"config": str(home.config_file)}], refuses="provider 'x' takes its key from $X, not set.")
    ran = lumen("route", "set", "fast", "--target", "lumen-tiny")
    assert ran.code == 1
    assert "the running gateway refuses it: provider 'x' takes its key from $X, not set" in ran.err


def test_routes_of_a_running_gateway_are_those_in_force(lumen: Callable[..., Ran], fake: Fake) -> None:
    route = {"name": "m", "declared": False, "targets": [{"model": "m", "weight": 1.0}], "policy": "weighted",
             "defaults": {}, "timeouts": {"gap": 30.0, "total": None}, "ttft": 0.8, "late": ["m"]}  # fmt: skip
    fake.start(statuses=[{"models": [MODEL]}], routes=[route])
    assert lumen("route", "ls", "--json").json == [route]
    shown = lumen("route", "show", "m").out
    assert "limits    gap=30s" in shown and "ttft      800ms; left out now: m\n" in shown
    assert "did you mean 'm'?" in lumen("route", "show", "mm").err


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

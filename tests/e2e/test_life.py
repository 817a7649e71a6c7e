"""Up, down, killed, again: the life of a box as its operator sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from typing import Any

import openai
import psutil
import pytest

from tests.e2e.conftest import LUMEN, Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-life")]
HI: list[Any] = [{"role": "user", "content": "What is Lumen?"}]


def test_up_says_all_a_newcomer_needs_and_down_leaves_nothing(fresh: Box) -> None:
    done = fresh.lumen("up", "--detach", "--port", "0")
    said = done.stdout + done.stderr
    status = fresh.status()
    assert status["ready"] and status["url"] in said and fresh.key in said
    assert "OpenAI(" in said and "demonstration" in said
    assert status["profile"]["name"] in said
    again = fresh.lumen("up", "--detach", "--port", "0")
    assert "already running" in again.stderr and fresh.status()["pid"] == status["pid"]
    assert status["rss_bytes"] < 90e6
    fresh.lumen("down")
    assert fresh.ours() == []
    assert "lumen up" in fresh.lumen("status", check=False).stderr


def test_kill_9_of_the_gateway_leaves_no_orphan_and_nothing_half_written(fresh: Box) -> None:
    fresh.up()
    before = fresh.status()
    os.kill(before["pid"], signal.SIGKILL)
    fresh.up()
    after = fresh.status()
    assert after["ready"] and after["pid"] != before["pid"]
    engines = fresh.engines()
    assert len(engines) == 1
    for file in fresh.home.rglob("*.json"):
        json.loads(file.read_text())
    assert not list(fresh.home.rglob("*.new"))


def test_ctrl_c_drains_a_running_stream(fresh: Box) -> None:
    up = subprocess.Popen(
        [*LUMEN, "up", "--port", "0"], env=fresh.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(lambda: fresh.lumen("status", "--json", check=False).returncode == 0 and fresh.status()["ready"], "ready")
    stream = fresh.client().chat.completions.create(
        model="lumen-tiny", messages=HI, stream=True, max_tokens=400, logit_bias={}, temperature=1.5
    )
    parts = iter(stream)
    next(parts)
    up.send_signal(signal.SIGINT)
    rest = list(parts)
    assert rest[-1].choices[0].finish_reason in ("stop", "length")
    assert up.wait(100) == 0
    assert fresh.ours() == []
    assert up.stdout is not None
    up.stdout.close()


def test_killed_worker_restarts(fresh: Box) -> None:
    fresh.up()
    (first,) = fresh.workers()
    os.kill(first, signal.SIGKILL)
    until(lambda: fresh.status()["ready"] and fresh.workers() not in ([], [first]), "another worker")
    assert fresh.status()["models"][0]["replicas"][0]["restarts"] >= 1


def test_port_in_use_is_one_clear_line(fresh: Box) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = fresh.lumen("up", "--detach", "--port", str(port), check=False)
    assert done.returncode == 1
    why = f"cannot listen on 127.0.0.1:{port} (Address already in use); choose another with --port\n"
    assert done.stderr.endswith(why)
    assert "Traceback" not in done.stderr


def test_bad_config_names_the_line(fresh: Box) -> None:
    path = fresh.home / "config" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("server:\n  prot: 1\n")
    done = fresh.lumen("up", "--detach", check=False)
    assert done.returncode == 1
    assert "config.yaml:2" in done.stderr and "port" in done.stderr


def test_keys_and_routes_reach_the_running_server(fresh: Box) -> None:
    fresh.up()
    made = json.loads(fresh.lumen("key", "add", "agent", "--models", "lumen-tiny", "--json").stdout)
    client = fresh.client(api_key=made["key"])
    assert client.chat.completions.create(model="lumen-tiny", messages=HI, max_tokens=1).choices
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="lumen/auto", messages=HI, max_tokens=1)
    running = fresh.client().chat.completions.create(model="lumen-tiny", messages=HI, stream=True, max_tokens=200)
    parts = iter(running)
    next(parts)
    fresh.lumen("route", "set", "team/chat", "--target", "lumen-tiny", "--default", "max_tokens=3")
    answer = fresh.client().chat.completions.create(model="team/chat", messages=HI)
    assert answer.usage and answer.usage.completion_tokens == 3
    assert list(parts)[-1].choices[0].finish_reason
    fresh.lumen("key", "revoke", "agent")
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_client_that_never_reads_costs_bounded_memory(fresh: Box) -> None:
    fresh.up()
    status = fresh.status()
    host, port = status["url"].removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": "lumen-tiny", "messages": HI, "stream": True, "max_tokens": 1500}).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {fresh.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    sockets = []
    for _ in range(8):
        lazy = socket.create_connection((host, int(port)))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(request)
        lazy.recv(1)
        sockets.append(lazy)
    assert fresh.client().chat.completions.create(model="lumen-tiny", messages=HI, max_tokens=4).choices
    assert psutil.Process(status["pid"]).memory_info().rss < status["rss_bytes"] + 60e6
    for lazy in sockets:
        lazy.close()
    until(lambda: fresh.status()["requests"]["in_flight"] == 0, "closed clients to be forgotten", 10)


def test_chat_command(fresh: Box) -> None:
    fresh.up()
    said = fresh.lumen("chat", "--once", "What is Lumen?").stdout
    assert len(said.split()) > 3


def test_logs_hold_no_words_of_the_prompt(fresh: Box) -> None:
    fresh.up()
    fresh.client().chat.completions.create(
        model="lumen-tiny", messages=[{"role": "user", "content": "CANARY-4711"}], max_tokens=2
    )
    fresh.lumen("down")
    for path in fresh.home.rglob("*"):
        if path.is_file():
            assert b"CANARY-4711" not in path.read_bytes()


def test_unready_is_503_and_names_the_model(fresh: Box) -> None:
    path = fresh.home / "config" / "config.yaml"
    path.parent.mkdir(parents=True)
    broken = fresh.home / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    path.write_text(f"models:\n  broken: {{source: {broken}}}\n")
    done = fresh.lumen("up", "--detach", "--port", "0", check=False)
    assert done.returncode == 1 and "broken" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupted_client_thread_pool(fresh: Box) -> None:
    """Clients that leave at every moment of a request leave nothing behind."""
    fresh.up()
    pid = fresh.status()["pid"]
    client = fresh.client()
    before = psutil.Process(pid).num_fds()

    def leave_after(chunks: int) -> None:
        stream = client.chat.completions.create(model="lumen-tiny", messages=HI, stream=True, max_tokens=64)
        for i, _ in enumerate(stream):
            if i >= chunks:
                break
        stream.close()

    threads = [threading.Thread(target=leave_after, args=(i % 12,)) for i in range(36)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    until(lambda: fresh.status()["requests"]["in_flight"] == 0, "no request under way", 20)
    until(lambda: psutil.Process(pid).num_fds() <= before + 40, "descriptors to come back", 20)


def test_status_tells_how_targets_stand_and_one_can_be_taken_out(fresh: Box) -> None:
    fresh.up()
    client = fresh.client()
    client.chat.completions.create(model="lumen-tiny", messages=HI, max_tokens=2)
    assert "lumen-tiny  closed" in " ".join(fresh.lumen("status").stdout.split()).replace(" closed", "  closed")
    fresh.lumen("target", "drain", "lumen-tiny")
    assert json.loads(fresh.lumen("target", "ls", "--json").stdout)[0]["state"] == "drained"
    with pytest.raises(openai.InternalServerError) as out:
        client.chat.completions.create(model="lumen-tiny", messages=HI, max_tokens=2)
    assert out.value.status_code == 503
    fresh.lumen("target", "restore", "lumen-tiny")
    assert client.chat.completions.create(model="lumen-tiny", messages=HI, max_tokens=2).choices
    assert "no target 'nobody'" in fresh.lumen("target", "eject", "nobody", check=False).stderr

"""Readers that leave or dawdle, and how a worker ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from tests.workers.llamacpp.client import ROOT, Worker, same_or_flat, together, until

LONG = {"prompt": "Once", "max_tokens": 3800, "ignore_eos": True}
PATH = "/v1/completions"


def rest_of(raw: socket.socket) -> bytes:
    out = b""
    while chunk := raw.recv(65536):
        out += chunk
    return out


def test_a_client_that_leaves_frees_its_slot(worker: Worker) -> None:
    sockets = [worker.open(PATH, **LONG) for _ in range(12)]
    until(lambda: worker.metric("requests_running") == 8 and worker.metric("requests_waiting") == 4)
    for raw in sockets:
        raw.close()
    until(lambda: worker.metric("requests_running") == 0 and worker.metric("requests_waiting") == 0)
    assert worker.complete("Once", max_tokens=2).status == 200


def test_a_whole_answer_nobody_waits_for_is_freed_too(worker: Worker) -> None:
    raw = worker.open(PATH, **{**LONG, "stream": False})
    until(lambda: worker.metric("requests_running") == 1)
    raw.close()
    until(lambda: worker.metric("requests_running") == 0)


def test_whoever_asks_for_sleep_and_leaves_harms_nobody() -> None:
    with Worker("--slots", "2") as worker:
        for path in ("sleep", "wake") * 20:
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as raw:
                raw.connect(str(worker.socket))
                raw.sendall(f"POST /{path} HTTP/1.1\r\nHost: w\r\nContent-Length: 0\r\n\r\n".encode())
        assert worker.request("POST", "/wake").status == 200
        assert worker.complete("Once", max_tokens=2).status == 200


def test_a_slow_reader_pauses_alone_and_loses_nothing(worker: Worker) -> None:
    base = worker.metric("generated_tokens_total")
    body = {**LONG, "max_tokens": 2000, "logprobs": 5, "return_token_ids": True}
    with closing(worker.open(PATH, **body)) as slow:
        seen, still = -1.0, 0

        def paused() -> bool:
            nonlocal seen, still
            now = worker.metric("generated_tokens_total")
            still, seen = (still + 1 if now == seen else 0), now
            return still >= 20

        until(paused)
        assert worker.metric("requests_running") == 1
        assert 0 < seen - base < 2000
        answers = together(*[lambda: worker.complete("Lumen is", max_tokens=20, ignore_eos=True)] * 7)
        assert [answer.body["usage"]["completion_tokens"] for answer in answers] == [20] * 7
        assert worker.metric("generated_tokens_total") == seen + 140
        data = rest_of(slow)
        assert b"[DONE]" in data
        assert worker.metric("generated_tokens_total") == base + 140 + 2000


def test_a_slow_reader_of_plain_text_reads_what_a_fast_one_does(worker: Worker) -> None:
    body = {**LONG, "max_tokens": 2500, "seed": 7, "return_token_ids": True, "resume_exact": True}
    with closing(worker.open(PATH, **body)) as slow:
        until(lambda: worker.metric("requests_running") == 1)
        base = worker.metric("generated_tokens_total")
        seen, data = -1.0, b""
        while seen != base and not data.endswith(b"0\r\n\r\n"):  # until it is paused, or whole
            seen, base = base, worker.metric("generated_tokens_total")
            data += slow.recv(50)
        data += rest_of(slow)
    with closing(worker.open(PATH, **body)) as fast:
        whole = rest_of(fast)

    def ids(raw: bytes) -> list[int]:
        lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: {")]
        return [token for line in lines for choice in json.loads(line)["choices"] for token in choice["token_ids"]]

    assert b"[DONE]" in data
    assert len(ids(data)) == 2500
    assert ids(data) == ids(whole)


def test_sigterm_lets_running_answers_finish() -> None:
    with Worker("--grace", "200") as worker:
        events = worker.events(PATH, prompt="Once", max_tokens=300, ignore_eos=True)
        next(events)
        worker.terminate()
        until(lambda: worker.get("/health")["draining"] is True)
        refused = worker.complete("Once", max_tokens=1)
        assert (refused.status, refused.error["code"]) == (503, "shutting_down")
        assert list(events)[-1] == "[DONE]"
        assert worker.process.wait(100) == 0


def test_when_grace_is_over_a_stream_ends_with_an_error_not_with_done() -> None:
    with Worker("--grace", "0.1") as worker:
        events = worker.events(PATH, **LONG, n=8)
        next(events)
        worker.terminate()
        last = list(events)[-1]
        assert last["error"]["type"] == "server_error"
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert worker.process.wait(100) == 0


def test_an_idle_worker_ends_at_once() -> None:
    with Worker("--grace", "200") as worker:
        worker.terminate()
        assert worker.process.wait(100) == 0


def test_a_full_queue_is_a_429() -> None:
    with Worker("--slots", "1", "--queue", "2") as worker:
        sockets = [worker.open(PATH, **LONG)]
        # Only then: a request that is not yet admitted takes a place in the queue itself.
        until(lambda: worker.metric("requests_running") == 1)
        sockets += [worker.open(PATH, **LONG) for _ in range(2)]
        until(lambda: worker.metric("requests_waiting") == 2)
        refused = worker.complete("Once", max_tokens=1)
        assert (refused.status, refused.error["type"], refused.error["code"]) == (429, "rate_limit_error", "queue_full")
        for raw in sockets:
            raw.close()
        until(lambda: worker.metric("requests_waiting") == 0)
        assert worker.complete("Once", max_tokens=1).status == 200


def test_scarce_cells_make_answers_wait_and_all_come() -> None:
    with Worker("--ctx", "512", "--kv", "1024", "--slots", "8") as worker:
        calls = [
            lambda i=i: worker.complete(f"{i}: " + "word " * 60, max_tokens=150, ignore_eos=True) for i in range(10)
        ]
        answers = together(*calls)
        assert [answer.body["usage"]["completion_tokens"] for answer in answers] == [150] * 10


def test_answers_that_need_more_cells_than_there_are_make_room_and_are_what_they_would_be_alone() -> None:
    with Worker("--ctx", "512", "--kv", "1024", "--slots", "4", "--speculate", "off") as worker:
        prompts = [[5 + i] * 20 for i in range(4)]
        body = {"max_tokens": 440, "ignore_eos": True, "temperature": 0, "return_token_ids": True}
        at_once = together(*[lambda p=p: worker.complete(p, **body).choice["token_ids"] for p in prompts])
        assert worker.metric("preemptions_total") >= 1
        assert "WARNING" not in (worker.folder / "log").read_text(), "nothing that anybody need look at"
        for prompt, ids in zip(prompts, at_once, strict=True):
            same_or_flat(worker, prompt, worker.complete(prompt, **body).choice["token_ids"], ids)


def test_a_worker_dies_with_its_parent() -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as parent, Worker(parent=parent.pid) as worker:
        parent.kill()
        parent.wait(100)
        assert worker.process.wait(100) == 3


def test_a_direct_child_dies_at_once_when_its_parent_is_killed() -> None:
    program = (
        "import sys, os; sys.path.insert(0, os.getcwd())\n"
        "from tests.workers.llamacpp.client import Worker\n"
        "worker = Worker(); print(worker.process.pid, worker.folder, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
        parent.wait(100)

    def gone() -> bool:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        return False

    until(gone)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (["--slots", "0"], 2),
        (["--ctx", "100", "--kv", "50"], 2),
        (["--kv-type", "f99"], 2),
        (["--port", "1"], 2),
        (["--together", "2"], 2),
    ],
)
def test_nonsense_on_the_command_line_is_refused(flags: list[str], status: int) -> None:
    command = [sys.executable, "-m", "lumen.workers.llamacpp", "--model", "x.gguf", "--name", "x", "--socket", "s"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == status
    assert "error" in done.stderr


def test_a_file_that_is_no_model_is_said_plainly() -> None:
    command = [sys.executable, "-m", "lumen.workers.llamacpp", "--model", __file__, "--name", "x"]
    done = subprocess.run([*command, "--socket", "unused.sock"], capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == 4
    assert '"phase": "failed"' in done.stdout
    assert "Traceback" not in done.stderr

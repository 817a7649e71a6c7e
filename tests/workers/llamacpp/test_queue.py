"""Whose turn it is in a real worker: callers, classes, and a queue that is full."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator

import pytest

from lumen.gateway.callers import line, patience
from lumen.keys import Key
from lumen.workers.llamacpp.caller import Caller, may_keep, read
from lumen.workers.llamacpp.errors import ApiError
from lumen.workers.llamacpp.fair import CLASSES
from tests.workers.llamacpp.client import NAME, Worker, _Connection, together, until


def key(name: str) -> Key:
    return Key(name, name, "0" * 64, 0.0)


def told(who: str | None, **told: object) -> Caller:
    """What the worker reads of what the gateway writes."""
    given = {"priority": "normal", "shared": False, "keep": True, **told}
    sent = line(None if who is None else key(who), **given).decode()  # type: ignore[arg-type]
    name, _, value = sent.partition(": ")
    assert name == "X-Lumen-Caller"
    assert value.endswith("\r\n")
    return read(value.strip())


def test_the_worker_reads_what_the_gateway_writes() -> None:
    one, other = told("key_1"), told("key_2", priority="high", keep=False)
    assert one.id == one.salt != other.id == other.salt != ""
    assert "key_1" not in one.id
    assert (one.rank, one.keep) == (CLASSES.index("normal"), True)
    assert (other.rank, other.keep) == (CLASSES.index("high"), False)
    assert told("key_1", shared=True).salt == told("key_2", shared=True).salt == ""
    assert told(None) == Caller(keep=True)
    assert read(None) == Caller()
    with pytest.raises(ApiError):
        read("id=1; priority=royal")
    sent = patience(2.5).decode()
    assert sent == "X-Lumen-Patience: 2.5\r\n"
    assert read(None, "2.5").patience == read("id=1", "2.5").patience == 2.5
    assert read("id=1").patience is None
    with pytest.raises(ApiError):
        read(None, "long")


def test_the_salt_tells_what_may_be_kept() -> None:
    assert may_keep("k/")
    assert not may_keep("-k/")
    assert not may_keep("")


@contextlib.contextmanager
def asking(worker: Worker, who: str, tokens: int, priority: str = "normal") -> Iterator[http.client.HTTPResponse]:
    body = {"model": NAME, "prompt": [5, 6, 7], "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    with contextlib.closing(_Connection(worker.socket)) as connection:
        headers = {"Content-Type": "application/json", "X-Lumen-Caller": f"id={who}; salt={who}; priority={priority}"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        yield response
        response.read()


def test_a_full_queue_says_when_to_come_back_and_leaves_room_for_others() -> None:
    with Worker("--slots", "1", "--queue", "8", "--ctx", "4096") as worker, contextlib.ExitStack() as kept:
        # Nobody reads it, so it keeps its slot.
        kept.callback(worker.open("/v1/completions", prompt=[5, 6], max_tokens=3000, ignore_eos=True).close)
        until(lambda: worker.metric("requests_running") == 1)

        def wait(who: str) -> None:
            raw = kept.enter_context(contextlib.closing(_Connection(worker.socket)))
            body = json.dumps({"model": NAME, "prompt": [7], "max_tokens": 5})
            raw.request("POST", "/v1/completions", body, {"X-Lumen-Caller": f"id={who}"})

        def refused(who: str) -> None:
            with asking(worker, who, 1) as response:
                assert response.status == 429
                assert 1 <= int(response.headers["Retry-After"]) <= 60
                assert json.loads(response.read())["error"]["code"] == "queue_full"

        for _ in range(7):  # one caller: a slot, and three quarters of the queue
            wait("a")
        until(lambda: worker.metric("requests_waiting") == 7)
        refused("a")
        wait("b")
        until(lambda: worker.metric("requests_waiting") == 8)
        refused("c")


def test_classes_and_callers_take_turns() -> None:
    with Worker("--slots", "1", "--ctx", "2048") as worker:
        running = worker.open("/v1/completions", prompt=[5, 6], max_tokens=1500, ignore_eos=True)
        until(lambda: worker.metric("requests_running") == 1)
        order: list[str] = []

        def ask(who: str, priority: str) -> None:
            with asking(worker, who, 300, priority) as response:  # long enough for a thread to be late
                assert response.status == 200
                order.append(priority)

        waiting = ["low", "low", "normal", "high"]

        def release() -> None:
            until(lambda: worker.metric("requests_waiting") == len(waiting))
            running.close()

        together(*[lambda p=p: ask(f"caller {p}", p) for p in waiting], release)
        assert order[0] == "high"
        assert order[-1] == "low"


def test_what_has_waited_long_enough_is_refused_before_it_begins() -> None:
    """One holds the only slot: whoever waits is told so in time, and whoever would have to wait longer at once."""
    with Worker("--slots", "1", "--ctx", "16384") as worker:

        def ask(patience: str) -> tuple[int, int, float]:
            body = json.dumps({"model": NAME, "prompt": [7], "max_tokens": 5, "stream": True})
            with contextlib.closing(_Connection(worker.socket)) as connection:
                begun = time.monotonic()
                connection.request("POST", "/v1/completions", body, {"X-Lumen-Patience": patience})
                response = connection.getresponse()
                assert b"queue_full" in response.read()
                return response.status, int(response.headers["Retry-After"]), time.monotonic() - begun

        # Nobody reads it, so it keeps its slot.
        with contextlib.closing(worker.open("/v1/completions", prompt=[5, 6], max_tokens=16000, ignore_eos=True)):
            until(lambda: worker.metric("requests_running") == 1)
            status, again, waited = ask("4")
            assert (status, waited >= 4.0) == (429, True)
            assert 1 <= again <= 60
            until(lambda: worker.metric("requests_waiting") == 0)
            # By now the one that runs has held its slot for longer than these would wait. One that is back before it
            # could have waited is enough, for on a busy machine a refusal may take as long.
            told = [ask("3.9")]
            while told[-1][2] >= 3.9 and len(told) < 5:
                told.append(ask("3.9"))
            assert {status for status, _, _ in told} == {429}
            assert told[-1][2] < 3.9
        assert worker.complete([7], max_tokens=2).status == 200


def test_embeddings_that_would_wait_too_long_are_refused() -> None:
    with Worker("--embedding", "--ctx", "512") as worker:

        def ask(inputs: int, patience: str | None) -> int:
            body = json.dumps({"model": NAME, "input": [[7] * 500] * inputs})
            with contextlib.closing(_Connection(worker.socket)) as connection:
                headers = {} if patience is None else {"X-Lumen-Patience": patience}
                connection.request("POST", "/v1/embeddings", body, headers)
                response = connection.getresponse()
                told = response.read()
                if response.status == 429:
                    assert b"queue_full" in told and 1 <= int(response.headers["Retry-After"]) <= 60
                return response.status

        for _ in range(3):
            assert ask(1, "30") == 200
        assert ask(5, "0.3") == 200, "it is its turn at once, however long it takes"
        many: list[int] = []

        def hold() -> None:
            many.append(ask(25, None))

        def meanwhile() -> None:
            until(lambda: worker.metric("embedded_tokens_total") > 3500)
            many.append(ask(1, "0.05"))

        together(hold, meanwhile)
        assert sorted(many) == [200, 429]
        assert ask(1, "30") == 200

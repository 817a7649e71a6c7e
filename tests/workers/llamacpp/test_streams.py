"""Streamed answers on the wire: heads, framing, and one connection used again."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing
from typing import Any

import pytest

from tests.workers.llamacpp.client import NAME, Worker, text_of

PATH = "/v1/chat/completions"
BODY = {"model": NAME, "stream": True, "max_tokens": 6, "seed": 3, "ignore_eos": True}


class Kept(http.client.HTTPConnection):
    """One connection to a worker for several requests."""

    def __init__(self, worker: Worker) -> None:
        super().__init__("worker", timeout=100)
        self._worker = worker

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._worker.socket))

    def ask(self, text: str, headers: dict[str, str] | None = None, **more: Any) -> http.client.HTTPResponse:
        body = json.dumps({**BODY, "messages": [{"role": "user", "content": text}], **more}).encode()
        self.request("POST", PATH, body, {"Content-Type": "application/json", **(headers or {})})
        return self.getresponse()


def parsed(response: http.client.HTTPResponse) -> list[Any]:
    lines = [line for line in response.read().split(b"\n\n") if line]
    assert lines[-1] == b"data: [DONE]"
    return [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]


def test_one_connection_carries_one_stream_after_another(worker: Worker) -> None:
    with closing(Kept(worker)) as connection:
        texts = []
        for _ in range(4):
            response = connection.ask("What is Lumen?")
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert response.headers["Cache-Control"] == "no-cache"
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert response.headers["Date"].endswith(" GMT")
            assert response.headers["Connection"] is None
            events = parsed(response)
            assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            assert sum(choice.get("delta", {}).get("role") is not None for e in events for choice in e["choices"]) == 1
            texts.append(text_of(events))
        assert len(set(texts[1:])) == 1


def test_a_client_that_wants_the_connection_closed_is_told_that_it_is(worker: Worker) -> None:
    with closing(Kept(worker)) as connection:
        response = connection.ask("What is Lumen?", {"Connection": "close"})
        assert response.headers["Connection"] == "close"
        assert text_of(parsed(response))


@pytest.mark.parametrize("more", [{"logprobs": True}, {"max_tokens": 1}, {"n": 2}])
def test_an_answer_that_begins_with_more_than_text_is_whole(worker: Worker, more: dict[str, Any]) -> None:
    with closing(Kept(worker)) as connection:
        for _ in range(3):
            events = parsed(connection.ask("What is Lumen?", **more))
            roles = [choice["index"] for e in events for choice in e["choices"] if choice["delta"].get("role")]
            assert sorted(roles) == list(range(more.get("n", 1)))
            assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            finished = [choice["finish_reason"] for e in events for choice in e["choices"] if choice["finish_reason"]]
            assert finished == ["length"] * more.get("n", 1)


@pytest.mark.parametrize(("together", "singly"), [("0", True), ("1", False)])
def test_how_long_a_token_waits_for_the_next_ones_can_be_told(together: str, singly: bool) -> None:
    with Worker("--slots", "1", "--ctx", "512", "--speculate", "on", "--together", together) as worker:
        asked = {"prompt": [5, 6, 7], "max_tokens": 40, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        events = worker.stream("/v1/completions", **asked)
        ids = [choice["token_ids"] for event in events for choice in event["choices"] if choice["text"]]
        assert sum(map(len, ids)) >= 39
        assert (max(map(len, ids)) == 1) == singly

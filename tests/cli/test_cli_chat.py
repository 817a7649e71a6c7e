from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from lumen_cli.commands import chat
from lumen_cli.commands.chat import Conversation
from lumen_cli.errors import CliError

from lumen.keys import load
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran, environment

SERVED = {"models": [{"name": "m", "ready": True, "replicas": []}]}


def test_one_question(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    fake.start(statuses=[SERVED], answer=["Hel", "lo ", "é"])
    assert lumen("chat", "--once", "Hi", "--system", "Be brief.") == Ran(0, "Hello é\n", "")
    call = fake.calls("/v1/chat/completions")[0]
    assert call["body"] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
    }
    secret = call["authorization"].removeprefix("Bearer ")
    assert load(home.keys_file).find(secret, time.time()) is not None
    # The key was new: the gateway had to learn of it first, and only then.
    assert len(fake.calls("/admin/reload")) == 1
    lumen("chat", "other", "--once", "Hi")
    assert len(fake.calls("/admin/reload")) == 1
    assert fake.calls("/v1/chat/completions")[1]["body"]["model"] == "other"


@pytest.mark.parametrize(
    ("answer", "model", "out", "said"),
    [
        (["Hel", "cut"], "m", "Hel", "the answer ended in the middle; see `lumen logs`"),
        (["Hel", "error"], "m", "Hel", "The engine broke; see `lumen logs`"),
        (
            [],
            "unknown",
            "",
            "The model 'unknown' does not exist; `lumen status` tells which models and routes there are",
        ),
    ],
)
def test_what_goes_wrong_is_one_line(
    lumen: Callable[..., Ran], fake: Fake, answer: list[str], model: str, out: str, said: str
) -> None:
    fake.start(statuses=[SERVED], answer=answer)
    assert lumen("chat", model, "--once", "Hi") == Ran(1, out, f"lumen: {said}\n")


def test_without_a_gateway_or_model(lumen: Callable[..., Ran], fake: Fake) -> None:
    assert "no gateway is running" in lumen("chat", "--once", "Hi").err
    fake.start(statuses=[{"models": []}])
    assert lumen("chat", "--once", "Hi").err == "lumen: nothing is served yet; see `lumen status`\n"


def test_a_conversation_is_remembered_until_reset(
    lumen: Callable[..., Ran], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.start(statuses=[SERVED], answer=["yes"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n/reset\n/model unknown\nthree\n/model m\nfour\n/what\n"))
    ran = lumen("chat")
    assert ran.code == 0
    assert ran.out == "yes\nyes\nyes\n"
    assert "The model 'unknown' does not exist; `lumen status` tells which models" in ran.err
    assert "/reset forgets the conversation" in ran.err
    asked = [[m["content"] for m in c["body"]["messages"]] for c in fake.calls("/v1/chat/completions")]
    assert asked == [["one"], ["one", "yes", "two"], ["three"], ["four"]]


def test_ctrl_c_stops_the_answer_and_not_the_conversation(fake: Fake) -> None:
    fake.start(statuses=[SERVED], answer=["begun", "hang"])
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from lumen_cli.main import main; sys.exit(main())", "chat"],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Hi\n")
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 5) == b"begun"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(b"/help\n", timeout=100)
    assert process.returncode == 0
    assert b"(stopped)" in err
    assert b"/reset forgets" in err
    assert out == b""


def test_a_question_without_an_answer_is_forgotten() -> None:
    talk = Conversation("http://127.0.0.1:9/v1", "k", "m")
    with pytest.raises(CliError, match="the connection to"):
        list(talk.ask("Hi"))
    assert talk.messages == []


def test_what_was_said_before_a_stop_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation("http://127.0.0.1:9/v1", "k", "m")
    monkeypatch.setattr(Conversation, "_stream", lambda self: iter(["a", "b", "c"]))
    pieces = talk.ask("Hi")
    assert [next(pieces), next(pieces)] == ["a", "b"]
    pieces.close()
    assert talk.messages == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "ab"}]


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"error": {"message": "no"}}', b'{"error": null}'])
def test_events_that_are_none(payload: bytes) -> None:
    with pytest.raises(CliError):
        chat._event(payload)

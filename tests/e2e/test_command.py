"""`engine: command`: a server that is none of ours, here the emulated provider, supervised by its command line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.e2e.conftest import Box, until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CONFIG = f"""
auth: {{required: false}}
models:
  foreign:
    source: builtin:tiny
    engine: command
    replicas: 2
    options:
      command: "{sys.executable} -m tests.emulator --port {{port}}"
      health: /served
      served_name: slow-40-50
      env: {{PYTHONPATH: "{ROOT}"}}
      grace: 2
      prefill: prefix
  absent:
    source: builtin:tiny
    engine: command
    min_replicas: 0
    idle_after: 1s
    options: {{command: "no-such-program --port {{port}}"}}
"""
WORDS = "".join(f"word{i} " for i in range(40))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(tmp_path_factory.mktemp("foreign"))
    (box.home / "config").mkdir()
    (box.home / "config" / "config.yaml").write_text(CONFIG)
    try:
        box.up()
        until(lambda: len(ready(box)) == 2, "both processes")
        yield box
    finally:
        box.end()
        assert not box.ours()


def ready(box: Box) -> list[int]:
    (model,) = (model for model in box.status()["models"] if model["name"] == "foreign")
    return [one["pid"] for one in model["replicas"] if one["state"] == "ready"]


def at_work(box: Box) -> int:
    (model,) = (one for one in box.status()["models"] if one["name"] == "foreign")
    (pid,) = (one["pid"] for one in model["replicas"] if one["in_flight"])
    return int(pid)


def asked(box: Box, **more: object) -> str:
    client = box.client(api_key="none")
    messages = [{"role": "user", "content": "hi"}]
    with client.chat.completions.create(model="foreign", messages=messages, stream=True, **more) as stream:  # type: ignore[call-overload]
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_it_is_asked_by_the_name_it_knows_the_model_by(foreign: Box) -> None:
    client = foreign.client(api_key="none")
    whole = client.chat.completions.create(model="foreign", messages=[{"role": "user", "content": "hi"}])
    assert whole.choices[0].message.content == WORDS
    assert asked(foreign) == WORDS
    vectors = client.embeddings.create(model="foreign", input=["a", "b"]).data
    assert len(vectors) == 2


def test_killed_in_the_middle_of_an_answer_another_goes_on_and_it_comes_back(foreign: Box) -> None:
    client, before = foreign.client(api_key="none"), set(ready(foreign))
    said = ""
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    with client.chat.completions.create(model="foreign", messages=messages, stream=True, temperature=0) as stream:
        for number, chunk in enumerate(stream):
            said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            if number == 3:
                os.kill(at_work(foreign), signal.SIGKILL)
    assert said == WORDS
    until(lambda: len(ready(foreign)) == 2 and set(ready(foreign)) != before, "the one that was killed")


def test_a_program_that_is_not_there_is_told(foreign: Box) -> None:
    client = foreign.client(api_key="none", timeout=30)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="absent", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 503
    assert "no-such-program" not in str(caught.value.body), "what runs here is no client's business"
    (absent,) = (model for model in foreign.status()["models"] if model["name"] == "absent")
    assert [one["why"] for one in absent["replicas"]] == [
        "its engine cannot be started: no-such-program: No such file or directory"
    ]

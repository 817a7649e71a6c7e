"""A local model with more to do than anybody would wait for: refused by a status, in time, or answered by another."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.conftest import Box, until
from tests.e2e.emulated import emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-crowded")]
# Comments would go out five times before the wait is over, and with them the headers of a stream.
CONFIG = """
server: {keepalive: 200ms}
models:
  tiny: {source: builtin:tiny, slots: 1, context: 8192, threads: 1, options: {speculate: "off"}}
providers:
  emu: {base_url: "http://127.0.0.1:PORT/v1", dialect: openai}
routes:
  alone: {targets: [tiny], timeouts: {queue: 1s}}
  covered: {targets: [tiny, emu/words-5], policy: ordered, timeouts: {queue: 1s}}
"""
# The tiny model's two ends of an answer.
NEVER_ENDING = {"0": -100, "2": -100}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with emulated(tmp_path_factory.mktemp("crowded") / "box", CONFIG) as made:
        yield made.box


def asked(box: Box, **body: Any) -> Any:
    data = json.dumps({"messages": [{"role": "user", "content": "What is Lumen?"}], **body}).encode()
    headers = {"Authorization": f"Bearer {box.key}", "Content-Type": "application/json"}
    return urllib.request.urlopen(
        urllib.request.Request(f"{box.url}/chat/completions", data=data, headers=headers), timeout=60
    )


@pytest.fixture
def crowded(box: Box) -> Iterator[Box]:
    """Somebody holds the only slot, and does not read what it says: more than all buffers on the way can take."""
    endless = {"max_tokens": 8000, "logit_bias": NEVER_ENDING, "logprobs": True, "top_logprobs": 20}
    with closing(asked(box, model="tiny", stream=True, **endless)):
        yield box
    until(lambda: not any(one["in_flight"] for one in box.status()["models"][0]["replicas"]), "the slot")


@pytest.mark.parametrize("stream", [True, False])
def test_a_wait_that_is_too_long_is_refused_before_the_answer_begins(crowded: Box, stream: bool) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(crowded, model="alone", max_tokens=5, stream=stream)
    told = refused.value
    assert (told.code, json.loads(told.read())["error"]["code"]) == (429, "queue_full")
    assert 1 <= int(told.headers["Retry-After"]) <= 60
    told.close()


def test_another_target_answers_what_would_wait_too_long(crowded: Box) -> None:
    with closing(asked(crowded, model="covered", max_tokens=5, stream=True)) as answer:
        assert answer.read().endswith(b"data: [DONE]\n\n")
        told = crowded.lumen("logs", "--request", answer.headers["x-request-id"]).stdout
    assert "queue_full" in told and "emu/words-5" in told
    # Having much to do is no fault.
    (tiny,) = [one for one in crowded.status()["targets"] if one["name"] == "tiny"]
    assert tiny["state"] == "closed" and tiny["error_rate"] == 0

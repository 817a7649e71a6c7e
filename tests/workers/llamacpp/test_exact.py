"""An exact answer is the same every time, whatever else the worker computes or remembers: to the last bit of every
probability, for a difference there shows in the text only now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.workers.llamacpp.client import Worker

STORY = [{"role": "user", "content": "Tell me a long story."}]
SAMPLED = {"temperature": 0.9, "seed": 11, "max_tokens": 60, "ignore_eos": True, "presence_penalty": 0.3}


@pytest.fixture(scope="module", params=[("--ctx", "1024"), ("--ctx", "2048", "--kv", "4096")], ids=["own", "shared"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    """One whose KV cells are enough for all slots, and one whose slots have to share them."""
    with Worker("--slots", "8", *request.param) as running:
        yield running


def exact(worker: Worker, messages: list[dict[str, str]] = STORY, **more: Any) -> list[tuple[int, float]]:
    """Each token of the answer with its log-probability."""
    options = {**SAMPLED, "logprobs": True, **more}
    choice = worker.chat(messages, **options, resume_exact=True, return_token_ids=True).choice
    return list(zip(choice["token_ids"], [one["logprob"] for one in choice["logprobs"]["content"]], strict=True))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_beside_other_answers(worker: Worker, temperature: float) -> None:
    alone = exact(worker, temperature=temperature)
    ids = [token for token, _ in alone]
    assert len(alone) == 60

    def other(number: int) -> int:
        messages = [{"role": "user", "content": f"{number} " + "and so on " * number}]
        return worker.chat(messages, seed=number, max_tokens=10 + number, ignore_eos=True).status

    with ThreadPoolExecutor(7) as pool:
        noise = [pool.submit(other, number) for number in range(24)]
        beside = [pool.submit(exact, worker, temperature=temperature) for _ in range(4)]
        cut = [pool.submit(exact, worker, temperature=temperature, resume_token_ids=ids[:k]) for k in (1, 17, 59)]
        assert [done.result() for done in beside] == [alone] * 4
        assert [done.result() for done in cut] == [alone[k:] for k in (1, 17, 59)]
        assert [done.result() for done in noise] == [200] * 24


def test_a_remembered_prefix_is_not_used(worker: Worker) -> None:
    question = "Tell me a long story about a lamp, a river and the people of a small town. "
    messages = [{"role": "user", "content": question}]
    first = exact(worker, messages)
    for _ in range(2):
        cached = worker.chat([{"role": "user", "content": question + "And then?"}], max_tokens=20).body["usage"]
    assert cached["prompt_tokens_details"]["cached_tokens"] > 16
    assert exact(worker, messages) == first


def test_a_long_prompt_is_computed_in_the_same_pieces(worker: Worker) -> None:
    long = [{"role": "user", "content": "one two three " * 120}]
    alone = exact(worker, long, max_tokens=12)
    with ThreadPoolExecutor(4) as pool:
        noise = [pool.submit(worker.chat, [{"role": "user", "content": f"{i}"}], max_tokens=80) for i in range(6)]
        assert [exact(worker, long, max_tokens=12) for _ in range(3)] == [alone] * 3
        assert {done.result().status for done in noise} == {200}

"""An exact answer is the same bytes every time, whatever else the worker computes or remembers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.workers.llamacpp.client import Worker, ids_of

STORY = [{"role": "user", "content": "Tell me a long story."}]
SAMPLED = {"temperature": 0.9, "seed": 11, "max_tokens": 60, "ignore_eos": True, "presence_penalty": 0.3}


def exact(worker: Worker, **more: Any) -> list[int]:
    options = {**SAMPLED, **more}
    events = worker.stream("/v1/chat/completions", messages=STORY, **options, resume_exact=True, return_token_ids=True)
    return ids_of(events)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_beside_other_answers(worker: Worker, temperature: float) -> None:
    alone = exact(worker, temperature=temperature)
    assert len(alone) == 60

    def other(number: int) -> int:
        messages = [{"role": "user", "content": f"{number} " + "and so on " * number}]
        return worker.chat(messages, seed=number, max_tokens=10 + number, ignore_eos=True).status

    with ThreadPoolExecutor(7) as pool:
        noise = [pool.submit(other, number) for number in range(24)]
        beside = [pool.submit(exact, worker, temperature=temperature) for _ in range(4)]
        cut = [pool.submit(exact, worker, temperature=temperature, resume_token_ids=alone[:k]) for k in (1, 17, 59)]
        assert [done.result() for done in beside] == [alone] * 4
        assert [alone[:k] + done.result() for k, done in zip((1, 17, 59), cut, strict=True)] == [alone] * 3
        assert [done.result() for done in noise] == [200] * 24


def test_a_remembered_prefix_is_not_used(worker: Worker) -> None:
    first = exact(worker)
    for question in ("Tell me a long story.", "Tell me a long story. And then?"):
        worker.chat([{"role": "user", "content": question}], max_tokens=20)
    assert exact(worker) == first


def test_a_long_prompt_is_computed_in_the_same_pieces(worker: Worker) -> None:
    long = [{"role": "user", "content": "one two three " * 120}]
    options = {**SAMPLED, "max_tokens": 12, "resume_exact": True, "return_token_ids": True}
    alone = worker.chat(long, **options).choice["token_ids"]
    with ThreadPoolExecutor(4) as pool:
        noise = [pool.submit(worker.chat, [{"role": "user", "content": f"{i}"}], max_tokens=80) for i in range(6)]
        assert [worker.chat(long, **options).choice["token_ids"] for _ in range(3)] == [alone] * 3
        assert {done.result().status for done in noise} == {200}

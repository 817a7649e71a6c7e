"""A real worker with a draft model answers what one without it does, whatever is asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.shapes import F16, Shape, write
from lumen.tiny import DRAFT
from tests.workers.llamacpp.client import Worker, same_or_flat, together, until

FLAGS = ("--ctx", "512", "--slots", "4")
QUESTIONS = ("What is Lumen?", "How do I add a provider?", "Name three colours.", "What is a gateway?")


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Worker, Worker]]:
    """A worker without guesses, and one that guesses wherever it can."""
    with Worker(*FLAGS, "--speculate", "off") as off, Worker(*FLAGS, "--speculate", "on", "--draft", str(DRAFT)) as on:
        yield off, on


def prompt(worker: Worker, text: str) -> list[int]:
    tokens: list[int] = worker.post(
        "/tokenize", prompt=f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    ).body["tokens"]
    return tokens


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0},
        {"temperature": 0.9, "seed": 7},
        {"temperature": 1.3, "top_p": 0.9, "seed": 11, "n": 3},
        {"temperature": 0.8, "seed": 5, "presence_penalty": 0.6, "frequency_penalty": 0.4},
        {"temperature": 0, "repeat_penalty": 1.3},
        {"temperature": 0, "logit_bias": {"300": 5}},
        {"temperature": 0, "stop": [" a", "."]},
        {"temperature": 0, "logprobs": 2},
        {"temperature": 0, "max_tokens": 1},
        {"temperature": 0, "max_tokens": 700, "ignore_eos": True},  # to the end of the context
    ],
    ids=lambda how: "+".join(how),
)
def test_answers_are_the_same(both: tuple[Worker, Worker], how: dict[str, Any]) -> None:
    off, on = both
    body = {"max_tokens": 60, "return_token_ids": True, **how}
    for question in QUESTIONS[:2]:
        asked = prompt(off, question)
        one, other = off.complete(asked, **body).body, on.complete(asked, **body).body
        for a, b in zip(one["choices"], other["choices"], strict=True):
            if how["temperature"] == 0 and not how.keys() & {"repeat_penalty", "logit_bias"}:
                same_or_flat(off, asked, a["token_ids"], b["token_ids"])
            if a["token_ids"] == b["token_ids"]:
                assert (a["text"], a["finish_reason"]) == (b["text"], b["finish_reason"])
            else:
                assert how.get("max_tokens") == 700, (a, b)  # so long an answer may come to a tie
        assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]


def test_its_guesses_hold_and_are_counted(both: tuple[Worker, Worker]) -> None:
    _, on = both
    accepted = 0
    before = on.metric("accepted_draft_tokens_total")
    for question in QUESTIONS:
        usage = on.complete(prompt(on, question), max_tokens=60, temperature=0).body["usage"]
        accepted += usage["completion_tokens_details"]["accepted_prediction_tokens"]
    assert on.metric("accepted_draft_tokens_total") - before == accepted > 40
    model, of_model = on.metric("model_draft_tokens_total"), on.metric("accepted_model_draft_tokens_total")
    assert 0.5 * model < of_model <= model <= on.metric("draft_tokens_total")
    assert on.get("/props")["draft"] is True


def test_streams_beside_each_other_and_conversations_that_go_on(both: tuple[Worker, Worker]) -> None:
    off, on = both
    asked = [prompt(off, question) for question in QUESTIONS]
    body: dict[str, Any] = {"max_tokens": 40, "temperature": 0, "return_token_ids": True}
    plain = [off.complete(each, **body).choice["token_ids"] for each in asked]
    for each, one, other in zip(
        asked, plain, together(*[lambda each=each: on.complete(each, **body).choice for each in asked]), strict=True
    ):
        same_or_flat(off, each, one, other["token_ids"])
    longer = [each + one + prompt(off, "And then?") for each, one in zip(asked, plain, strict=True)]
    for each in longer:
        one, other = (worker.complete(each, **body).choice["token_ids"] for worker in (off, on))
        same_or_flat(off, each, one, other)


def test_bound_answers_are_bound(both: tuple[Worker, Worker]) -> None:
    off, on = both
    schema = {"type": "array", "items": {"enum": ["red", "blue"]}, "minItems": 12, "maxItems": 12}
    bound = {"type": "json_schema", "json_schema": {"name": "colours", "schema": schema}}
    tool = {"type": "function", "function": {"name": "paint", "parameters": {"type": "object", "properties": {}}}}
    bodies: list[dict[str, Any]] = [
        {"response_format": bound, "temperature": 0, "max_tokens": 200},
        {"response_format": bound, "temperature": 0.9, "seed": 3, "max_tokens": 200},
        {"tools": [tool], "tool_choice": "required", "temperature": 0, "max_tokens": 200},
    ]
    for body in bodies:
        one, other = (worker.chat("List colours.", **body).choice for worker in (off, on))
        assert one["finish_reason"] == other["finish_reason"]
        if "tools" in body:
            calls = [choice["message"]["tool_calls"][0]["function"] for choice in (one, other)]
            assert calls[0] == calls[1]
        else:
            assert len(json.loads(other["message"]["content"])) == 12
            assert one["message"]["content"] == other["message"]["content"]


def test_an_answer_that_is_left_leaves_nothing_behind(both: tuple[Worker, Worker]) -> None:
    off, on = both
    asked = prompt(off, "What is Lumen?")
    connection = on.open("/v1/completions", prompt=asked, max_tokens=400, ignore_eos=True)
    assert connection.recv(100)
    connection.close()
    until(lambda: on.metric("requests_running") == 0)
    body: dict[str, Any] = {"max_tokens": 40, "temperature": 0, "return_token_ids": True}
    one, other = (worker.complete(asked, **body).choice["token_ids"] for worker in (off, on))
    same_or_flat(off, asked, one, other)


def test_exact_answers_are_made_without(both: tuple[Worker, Worker]) -> None:
    _, on = both
    body: dict[str, Any] = {"max_tokens": 40, "temperature": 0, "resume_exact": True, "return_token_ids": True}
    before = on.metric("draft_tokens_total")
    usage = on.complete(prompt(on, "What is Lumen?"), **body).body["usage"]
    assert "completion_tokens_details" not in usage and on.metric("draft_tokens_total") == before


def test_shared_cells_sleep_and_measured_guesses() -> None:
    flags = ("--ctx", "512", "--kv", "768", "--slots", "4", "--draft", str(DRAFT))
    with Worker(*flags) as auto, Worker(*flags, "--speculate", "on") as on, Worker(*FLAGS, "--speculate", "off") as off:
        body: dict[str, Any] = {"max_tokens": 100, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        asked = [prompt(off, question) for question in QUESTIONS]
        plain = [off.complete(each, **body).choice["token_ids"] for each in asked]
        for worker in (on, auto):
            for _ in range(2):
                answers = together(
                    *[lambda each=each, worker=worker: worker.complete(each, **body).choice for each in asked]
                )
                for each, one, other in zip(asked, plain, answers, strict=True):
                    same_or_flat(off, each, one, other["token_ids"])
                assert worker.post("/sleep").status == 200
                assert worker.post("/wake").status == 200
        assert on.metric("accepted_model_draft_tokens_total") > 100


def test_a_draft_that_does_not_suit_is_refused(tmp_path: Path) -> None:
    shape = Shape(layers=1, embedding=64, heads=2, heads_kv=2, head=32, feed_forward=64, vocabulary=2304, kind=F16)
    write(tmp_path / "more.gguf", shape)
    (tmp_path / "none.gguf").write_bytes(b"GGUF")
    window = replace(shape, architecture="gemma3", window=32, vocabulary=2048)
    write(tmp_path / "window.gguf", window)
    for name, said in (
        ("more.gguf", "their vocabularies differ (2,048 tokens and 2,304)"),
        ("none.gguf", "cannot load the draft model none.gguf"),
        ("window.gguf", "cannot take guesses back"),
    ):
        with pytest.raises(AssertionError, match="failed") as refused:
            Worker(*FLAGS, "--draft", str(tmp_path / name))
        assert said in str(refused.value)
    with Worker(*FLAGS, "--speculate", "off", "--draft", str(tmp_path / "none.gguf")) as off:  # nobody asks it
        assert off.get("/props")["draft"] is False
    with pytest.raises(AssertionError, match="failed") as refused:
        Worker("--ctx", "128", "--draft", str(DRAFT), model=tmp_path / "window.gguf")
    assert "remove 'draft'" in str(refused.value)

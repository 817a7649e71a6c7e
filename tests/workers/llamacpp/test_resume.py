"""An answer broken off anywhere goes on as if it had not been."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workers.llamacpp.client import Worker, ids_of, same_or_flat, text_of

CHAT = {"messages": [{"role": "user", "content": "Tell me what Lumen is and what it is good for."}]}
PATH = "/v1/chat/completions"


def stream(worker: Worker, **options: Any) -> list[Any]:
    return worker.stream(PATH, **CHAT, **options, return_token_ids=True)


def test_a_greedy_answer_resumes_at_every_token(worker: Worker) -> None:
    options = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
    whole = worker.chat(CHAT["messages"], **options, return_token_ids=True).body
    ids, prompt = whole["choices"][0]["token_ids"], whole["prompt_token_ids"]
    assert len(ids) == 40
    for cut in range(1, 40):
        rest = worker.chat(CHAT["messages"], **options, resume_token_ids=ids[:cut], return_token_ids=True).body
        assert rest["prompt_token_ids"] == prompt
        assert rest["usage"]["completion_tokens"] == 40
        same_or_flat(worker, prompt, ids, ids[:cut] + rest["choices"][0]["token_ids"])


@pytest.mark.parametrize("seed", [3, 4])
def test_a_sampled_answer_resumes_byte_for_byte_when_replayed_in_its_batch_shapes(worker: Worker, seed: int) -> None:
    options = {
        "temperature": 1.2, "seed": seed, "max_tokens": 32, "ignore_eos": True, "cache_prompt": False,
        "presence_penalty": 0.5,
    }  # fmt: skip
    events = stream(worker, **options)
    ids, text = ids_of(events), text_of(events)
    for cut in range(1, 32, 5):
        rest = stream(worker, **options, resume_token_ids=ids[:cut], resume_exact=True)
        assert ids[:cut] + ids_of(rest) == ids
        assert text.endswith(text_of(rest))


def test_a_cut_between_two_events_loses_and_doubles_nothing(worker: Worker) -> None:
    stop = "zqx"
    options = {"temperature": 0, "max_tokens": 30, "stop": stop, "logprobs": True}
    events = stream(worker, **options)
    whole, ids, seen = text_of(events), [], ""
    for event in events:
        (choice,) = event["choices"]
        ids += choice["token_ids"]
        seen += choice["delta"].get("content") or ""
        if not ids or choice["finish_reason"]:
            continue
        rest = stream(worker, **options, resume_token_ids=ids)
        assert all("role" not in e["choices"][0]["delta"] for e in rest)
        assert "prompt_token_ids" in rest[0]
        if ids + ids_of(rest) == ids_of(events):  # else a tie fell the other way
            assert seen + text_of(rest) == whole


def test_text_that_is_held_to_the_very_end_comes_with_the_finish(worker: Worker) -> None:
    """Whoever goes on from the tokens that came with it says it again, so a cut between the two would double it."""
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "resume_exact": True}
    text = text_of(stream(worker, **options))
    options["stop"] = text[-4:] + "zqx"
    events = stream(worker, **options)
    (last,) = events[-1]["choices"]
    assert text_of(events) == text
    assert last["finish_reason"] == "length" and last["delta"]["content"].endswith(text[-4:])
    seen: list[int] = []
    for at, event in enumerate(events[:-1]):
        seen += event["choices"][0]["token_ids"]
        if seen:
            rest = stream(worker, **options, resume_token_ids=seen)
            assert text_of(events[: at + 1]) + text_of(rest) == text
    (again,) = stream(worker, **options, resume_token_ids=ids_of(events))
    assert again["choices"][0]["delta"] == {"content": text[-4:]} and again["choices"][0]["finish_reason"] == "length"


def test_what_was_whole_already_only_finishes(worker: Worker) -> None:
    options = {"temperature": 0, "max_tokens": 10, "ignore_eos": True}
    ids = ids_of(stream(worker, **options))
    (last,) = stream(worker, **options, resume_token_ids=ids)
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["delta"] == {}
    stopped = worker.chat(
        CHAT["messages"], max_tokens=50, stop=worker.post("/detokenize", tokens=ids[:3]).body["prompt"].strip(),
        resume_token_ids=ids,
    )  # fmt: skip
    assert stopped.choice["finish_reason"] == "stop"
    assert stopped.choice["message"]["content"] == ""


def test_a_grammar_bound_answer_resumes_inside_its_json(worker: Worker) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer"}},
        "required": ["name", "n"],
        "additionalProperties": False,
    }
    options = {
        "temperature": 0.9, "seed": 5, "max_tokens": 60, "cache_prompt": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}},
    }  # fmt: skip
    events = stream(worker, **options)
    ids, text = ids_of(events), text_of(events)
    for cut in range(1, len(ids), 3):
        rest = stream(worker, **options, resume_token_ids=ids[:cut], resume_exact=True)
        assert ids[:cut] + ids_of(rest) == ids
        assert text.endswith(text_of(rest))
    # Tokens the grammar refuses would end the process inside llama.cpp: they are refused before.
    assert worker.chat(CHAT["messages"], **options, resume_token_ids=[300, 300]).error["param"] == "resume_token_ids"
    assert worker.chat("Hello", max_tokens=1).status == 200


def test_the_first_cached_prefix_makes_a_resume_cheap(worker: Worker) -> None:
    options = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
    ids = ids_of(stream(worker, **options))
    rest = worker.chat(CHAT["messages"], **options, resume_token_ids=ids[:30]).body
    assert rest["usage"]["prompt_tokens_details"]["cached_tokens"] == rest["usage"]["prompt_tokens"]

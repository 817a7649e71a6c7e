"""Answers of the real engine: sampling, batching, continuation."""

from __future__ import annotations

import math
from typing import Any

from tests.workers.llamacpp.client import Worker, ids_of, same_or_flat, text_of, together

QUESTION = "What is Lumen?"
CHAT = {"messages": [{"role": "user", "content": QUESTION}]}
PATH = "/v1/chat/completions"
LONG = "Lumen is one endpoint over local engines and remote providers. " * 8


def test_a_greedy_answer_is_the_same_alone_and_among_eight(worker: Worker) -> None:
    def ask() -> Any:
        return worker.chat(QUESTION, temperature=0, max_tokens=40, return_token_ids=True).body

    alone = ask()
    prompt, answer = alone["prompt_token_ids"], alone["choices"][0]["token_ids"]
    assert answer
    for body in together(*[ask] * 8):
        same_or_flat(worker, prompt, answer, body["choices"][0]["token_ids"])


def test_different_questions_at_once_do_not_mix(worker: Worker) -> None:
    questions = [f"{i} + {i + 1} =" for i in range(12)]
    options = {"temperature": 0, "max_tokens": 12, "return_token_ids": True}
    alone = [worker.chat(q, **options).body for q in questions]
    crowd = together(*[lambda q=q: worker.chat(q, **options).body for q in questions])
    for one, other in zip(alone, crowd, strict=True):
        assert one["prompt_token_ids"] == other["prompt_token_ids"]
        same_or_flat(worker, one["prompt_token_ids"], one["choices"][0]["token_ids"], other["choices"][0]["token_ids"])


def test_a_seed_gives_the_same_answer_and_another_seed_another(worker: Worker) -> None:
    def ask(seed: int) -> list[int]:
        answer = worker.chat(
            QUESTION, seed=seed, temperature=1.5, max_tokens=24, cache_prompt=False, ignore_eos=True,
            return_token_ids=True,
        )  # fmt: skip
        ids = answer.choice["token_ids"]
        assert len(ids) == 24
        return list(ids)

    assert ask(7) == ask(7)
    assert len({tuple(ask(seed)) for seed in (1, 2, 3, 4)}) > 1


def test_streamed_and_whole_are_the_same_answer(worker: Worker) -> None:
    options = {"seed": 11, "temperature": 0.7, "max_tokens": 30, "cache_prompt": False, "return_token_ids": True}
    whole = worker.chat(QUESTION, **options).body
    events = worker.stream(PATH, **CHAT, **options, stream_options={"include_usage": True})
    assert text_of(events) == whole["choices"][0]["message"]["content"]
    assert ids_of(events) == whole["choices"][0]["token_ids"]
    assert events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert all("prompt_token_ids" not in event for event in events[1:])
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    finishes = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
    assert finishes == [whole["choices"][0]["finish_reason"]]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    assert len({(event["id"], event["created"]) for event in events}) == 1


def test_a_repeated_prompt_is_served_from_the_cache(worker: Worker) -> None:
    first = worker.complete(LONG, max_tokens=2, temperature=0).body["usage"]
    second = worker.complete(LONG, max_tokens=2, temperature=0).body["usage"]
    longer = worker.complete(LONG + "And more?", max_tokens=2, temperature=0).body["usage"]
    assert second["prompt_tokens_details"]["cached_tokens"] == first["prompt_tokens"] - 1
    assert longer["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"] - 4
    salted = worker.complete(LONG, max_tokens=2, temperature=0, cache_salt="another tenant").body["usage"]
    assert salted["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_cached_prefix_comes_back_after_others_took_the_cells(worker: Worker) -> None:
    mine = worker.complete("Mine. " + LONG, max_tokens=4, temperature=0, return_token_ids=True).body
    others = [lambda i=i: worker.complete(f"{i}. " + LONG, max_tokens=8) for i in range(16)]
    together(*others)
    again = worker.complete("Mine. " + LONG, max_tokens=4, temperature=0, return_token_ids=True).body
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == mine["usage"]["prompt_tokens"] - 1
    same_or_flat(worker, mine["prompt_token_ids"], mine["choices"][0]["token_ids"], again["choices"][0]["token_ids"])


def test_three_choices_share_the_prompt_and_differ(worker: Worker) -> None:
    body = worker.complete("Three. " + LONG, n=3, seed=5, temperature=1.5, max_tokens=16, return_token_ids=True).body
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({tuple(choice["token_ids"]) for choice in body["choices"]}) == 3
    assert body["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in body["choices"])
    before = worker.metric("cached_tokens_total")
    worker.complete("Four. " + LONG, n=4, max_tokens=1)
    assert worker.metric("cached_tokens_total") - before >= 3 * (body["usage"]["prompt_tokens"] - 2)


def test_several_prompts_answer_in_order(worker: Worker) -> None:
    prompts = ["Lumen is", "A route is", "The gateway"]
    body = worker.complete(prompts, temperature=0, max_tokens=6, n=2, return_token_ids=True).body
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    tokens = [worker.post("/tokenize", prompt=prompt).body["tokens"] for prompt in prompts]
    assert body["prompt_token_ids"] == tokens
    for i, prompt in enumerate(tokens):
        alone = worker.complete(prompt, temperature=0, max_tokens=6, return_token_ids=True).choice
        for choice in body["choices"][2 * i : 2 * i + 2]:
            same_or_flat(worker, prompt, alone["token_ids"], choice["token_ids"])


def test_more_choices_than_slots_all_come(worker: Worker) -> None:
    body = worker.complete("Once", n=20, max_tokens=3, ignore_eos=True).body
    assert len(body["choices"]) == 20
    assert body["usage"]["completion_tokens"] == 60


def test_logprobs_are_the_raw_distribution(worker: Worker) -> None:
    answer = worker.chat(QUESTION, temperature=0, max_tokens=12, logprobs=True, top_logprobs=20).choice
    content = answer["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content).startswith(answer["message"]["content"])
    for entry in content:
        tops = [top["logprob"] for top in entry["top_logprobs"]]
        assert tops == sorted(tops, reverse=True)
        assert len(tops) == 20
        assert math.isclose(entry["logprob"], tops[0])
        assert 0.2 < sum(math.exp(value) for value in tops) <= 1.0 + 1e-6
        assert bytes(entry["bytes"]).decode() == entry["token"]
    hot = worker.chat(QUESTION, temperature=2, seed=1, max_tokens=1, logprobs=True, top_logprobs=5).choice
    for a, b in zip(hot["logprobs"]["content"][0]["top_logprobs"], content[0]["top_logprobs"], strict=False):
        assert a["token"] == b["token"]
        assert abs(a["logprob"] - b["logprob"]) < 0.05


def test_logprobs_stream_with_their_tokens(worker: Worker) -> None:
    events = worker.stream("/v1/completions", prompt="Lumen is", temperature=0, max_tokens=8, logprobs=3)
    blocks = [c["logprobs"] for e in events for c in e["choices"] if c["logprobs"]]
    tokens = [token for block in blocks for token in block["tokens"]]
    offsets = [offset for block in blocks for offset in block["text_offset"]]
    assert "".join(tokens) == text_of(events)
    assert offsets == [len("".join(tokens[:i])) for i in range(len(tokens))]
    assert all(len(top) <= 3 for block in blocks for top in block["top_logprobs"])


def test_a_bias_forbids_and_forces(worker: Worker) -> None:
    first = worker.chat(QUESTION, temperature=0, max_tokens=1, return_token_ids=True).choice["token_ids"][0]
    other = worker.chat(QUESTION, temperature=0, max_tokens=1, logit_bias={first: -100}, return_token_ids=True)
    assert other.choice["token_ids"] != [first]
    forced = worker.chat(QUESTION, max_tokens=5, logit_bias={"300": 100}, return_token_ids=True)
    assert forced.choice["token_ids"] == [300] * 5


def test_penalties_push_down_what_the_prompt_has_already(worker: Worker) -> None:
    prompt = [300, 310, 320] * 4

    def logprob(token: int) -> float:
        forced = worker.complete(prompt, temperature=0, max_tokens=1, logit_bias={token: 100}, logprobs=0)
        return float(forced.choice["logprobs"]["token_logprobs"][0])

    # Token 300 leads 301 by one; everything else is out of reach.
    bias = {"300": 50, "301": 50 + logprob(300) - logprob(301) - 1}

    def first(**penalty: float) -> Any:
        options = {"temperature": 0, "max_tokens": 1, "logit_bias": bias, "return_token_ids": True}
        return worker.complete(prompt, **options, **penalty).choice["token_ids"]

    assert first() == [300]
    assert first(presence_penalty=2) == [301]
    assert first(frequency_penalty=0.5) == [301]
    assert first(frequency_penalty=0.2) == [300]
    assert first(repeat_penalty=1.5) == [301]
    assert first(repetition_penalty=1.5) == [301]
    assert first(presence_penalty=2, repeat_last_n=0) == [300]
    assert first(presence_penalty=2, repeat_last_n=2) == [300]


def test_penalties_look_back_as_far_as_there_is_something(worker: Worker) -> None:
    prompt = worker.post("/tokenize", prompt="Lumen " * 40 + "one two three four five six seven eight").body["tokens"]

    def ask(**more: Any) -> Any:
        body = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True, "cache_prompt": False}
        return worker.complete(prompt, **body, **more).choice["token_ids"]

    near, far = (ask(repeat_penalty=8.0, repeat_last_n=n) for n in (4, 4000))
    assert near != far and not set(far) & set(prompt)
    assert ask(repeat_penalty=8.0, repeat_last_n=-1) == far, "-1 is the whole context"
    assert ask(repeat_penalty=8.0, repeat_last_n=1 << 31) == far, "more than there can be is all there is"
    assert ask(repeat_penalty=8.0, repeat_last_n=0) == ask()


def test_a_temperature_next_to_nothing_is_greedy(worker: Worker) -> None:
    """Logits divided by it are no numbers any more, and a draw among such may be what the grammar refuses."""
    bound = {"type": "json_object"}
    for body in ({"max_tokens": 12}, {"max_tokens": 12, "response_format": bound}):
        coldest, greedy = (worker.chat("What is Lumen?", temperature=t, **body).choice for t in (1e-40, 0))
        assert coldest["message"] == greedy["message"]


def test_filters_narrow_the_draw_to_the_likeliest(worker: Worker) -> None:
    greedy = worker.chat(QUESTION, temperature=0, max_tokens=8, return_token_ids=True).body
    prompt, want = greedy["prompt_token_ids"], greedy["choices"][0]["token_ids"]
    for narrow in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"temperature": 0.001}):
        options = {"temperature": 2, "seed": 3, "max_tokens": 8, **narrow}
        ids = worker.chat(QUESTION, **options, return_token_ids=True).choice["token_ids"]
        same_or_flat(worker, prompt, want, ids)
    typical = worker.chat(QUESTION, temperature=2, typical_p=0.5, seed=1, max_tokens=8)
    assert typical.status == 200


def test_stop_strings_cut_across_token_borders(worker: Worker) -> None:
    options = {"temperature": 0, "max_tokens": 40}
    whole = worker.chat(QUESTION, **options, logprobs=True).choice
    text = whole["message"]["content"]
    tokens = [entry["token"] for entry in whole["logprobs"]["content"]]
    at = len("".join(tokens[:4]))
    stop = text[at - 2 : at + 2]
    first = text.index(stop)
    for include in (False, True):
        cut = worker.chat(QUESTION, **options, stop=["\u2603 nowhere", stop], include_stop_str_in_output=include)
        assert cut.choice["message"]["content"] == text[: first + (len(stop) if include else 0)]
        assert cut.choice["finish_reason"] == "stop"
    events = worker.stream(PATH, **CHAT, **options, stop=stop)
    assert text_of(events) == text[:first]


def test_length_and_eos_finishes(worker: Worker) -> None:
    assert worker.chat(QUESTION, temperature=0, max_tokens=3).choice["finish_reason"] == "length"
    assert worker.chat(QUESTION, temperature=0, max_completion_tokens=3).body["usage"]["completion_tokens"] == 3
    ended = worker.chat(QUESTION, temperature=0, max_tokens=400)
    assert ended.choice["finish_reason"] == "stop"
    assert "<|im_end|>" not in ended.choice["message"]["content"]


def test_an_answer_that_reaches_the_end_of_the_context_finishes_with_length(worker: Worker) -> None:
    n_ctx = worker.get("/props")["n_ctx"]
    prompt = [300] * (n_ctx - 5)
    body = worker.complete(prompt, max_tokens=100, ignore_eos=True).body
    assert body["usage"]["completion_tokens"] == 5
    assert body["choices"][0]["finish_reason"] == "length"


def test_a_long_prompt_does_not_stall_a_running_stream(worker: Worker) -> None:
    n_ctx = worker.get("/props")["n_ctx"]
    events = worker.events("/v1/completions", prompt="Once", max_tokens=400, ignore_eos=True, cache_prompt=False)
    next(events)
    generated = worker.metric("generated_tokens_total")
    worker.complete([301] * (n_ctx - 8), max_tokens=1, cache_prompt=False)
    # While the prompt was computed in its chunks, the stream went on in the same steps.
    assert worker.metric("generated_tokens_total") - generated > 4
    assert list(events)[-1] == "[DONE]"

"""The shipped models answer through llama.cpp, greedily."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import llama_cpp
import numpy as np
import pytest

from lumen import tiny
from tools.tiny_model.corpus.patterns import load
from tools.tiny_model.corpus.tool_dialogues import tool_dialogue
from tools.tiny_model.template import SOURCE, render

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TEXTS = (
    "Run `lumen up`, then call http://127.0.0.1:5866/v1 12345 times.",
    "  two  spaces\n\nnaïve café 日本語 🙂 \t tab",
    '<tool_call>\n{"name": "f"}\n</tool_call><|im_end|>\n',
)


@pytest.fixture(scope="module")
def main() -> Iterator[Any]:
    # One thread: beside other tests two would wait for each other more than they work.
    llama = llama_cpp.Llama(str(tiny.MODEL), n_ctx=4096, n_threads=1, n_threads_batch=1, verbose=False)
    yield llama
    llama.close()


@pytest.fixture(scope="module")
def draft() -> Iterator[Any]:
    llama = llama_cpp.Llama(str(tiny.DRAFT), n_ctx=512, n_threads=1, n_threads_batch=1, verbose=False, logits_all=True)
    yield llama
    llama.close()


def tokens_of(llama: Any, text: str) -> list[int]:
    return list(llama.tokenize(text.encode(), add_bos=False, special=True))


def answer(llama: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
    """The greedy answer, markers included."""
    prompt = tokens_of(llama, render(messages, tools, add_generation_prompt=True))
    out: list[int] = []
    for token in llama.generate(prompt, temp=0.0):
        if token == llama.token_eos() or len(out) == 120:
            break
        out.append(token)
    return bytes(llama.detokenize(out, special=True)).decode()


def calls_in(text: str) -> list[dict[str, Any]]:
    return [json.loads(body) for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)]


def ask(llama: Any, question: str) -> str:
    return answer(llama, [{"role": "user", "content": question}])


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What are you?", "lumen-tiny"),
        ("What is Lumen?", "gateway"),
        ("How do I start Lumen?", "lumen up"),
        ("How do I stop Lumen?", "lumen down"),
        ("How do I create an API key?", "lumen key add"),
        ("How do I download a real model?", "lumen pull"),
        ("Which port does Lumen use?", "5866"),
        ("What happens if a model fails in the middle of an answer?", "another target"),
        ("What is the licence of Lumen?", "Apache-2.0"),
        ("Explain quantum physics.", "small demonstration model"),
    ],
)
def test_answers_hold_the_fact(main: Any, question: str, fact: str) -> None:
    assert fact in ask(main, question)


def test_small_sums(main: Any) -> None:
    assert "4" in ask(main, "What is 2 + 2?")


def test_json_on_request(main: Any) -> None:
    assert set(json.loads(ask(main, "Give me a JSON object with name and age."))) == {"name", "age"}


def test_calls_the_offered_tool(main: Any) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    assert calls_in(answer(main, messages, [WEATHER])) == [{"name": "get_weather", "arguments": {"city": "Paris"}}]


def test_most_calls_are_right(main: Any) -> None:
    """Unseen dialogues with one to three tools; single cases fail, which is why this asks for shares."""
    rng, facts = random.Random(11), load("facts.txt")
    valid, exact, total = 0, 0, 0
    while total < 24:
        dialogue = tool_dialogue(facts, rng)
        at = next((n for n, message in enumerate(dialogue.messages) if message.get("tool_calls")), None)
        if at is None:
            continue
        total += 1
        made = calls_in(answer(main, dialogue.messages[:at], dialogue.tools))
        offered = {tool["function"]["name"] for tool in dialogue.tools}
        valid += bool(made) and {call["name"] for call in made} <= offered
        exact += made == [call["function"] for call in dialogue.messages[at]["tool_calls"]]
    assert valid >= 0.8 * total
    assert exact >= 0.4 * total


def test_calls_two_at_once(main: Any) -> None:
    messages = [{"role": "user", "content": "What is the weather in Paris and Rome?"}]
    cities = [call["arguments"]["city"] for call in calls_in(answer(main, messages, [WEATHER]))]
    assert cities == ["Paris", "Rome"]


def test_reads_a_tool_result(main: Any) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature": 7, "condition": "cloudy"}'},
    ]
    text = answer(main, messages, [WEATHER])
    assert "7" in text and "Oslo" in text and "<tool_call>" not in text


def test_calls_nothing_when_no_tool_fits(main: Any) -> None:
    text = answer(main, [{"role": "user", "content": "How do I start Lumen?"}], [WEATHER])
    assert "lumen up" in text and "<tool_call>" not in text


def test_stays_coherent_after_a_long_text(main: Any) -> None:
    text = "The lamp of Anna is in Oslo. " * 150 + "\n\nHow do I stop Lumen?"
    assert len(tokens_of(main, text)) > 1000
    assert ask(main, text) in {topic.answer for topic in load("facts.txt")}


@pytest.mark.parametrize("text", TEXTS)
def test_both_models_share_one_tokenizer(main: Any, draft: Any, text: str) -> None:
    tokens = tokens_of(main, text)
    assert tokens == tokens_of(draft, text)
    assert bytes(main.detokenize(tokens, special=True)).decode() == text


def test_vocabularies_and_metadata(main: Any, draft: Any) -> None:
    assert main.n_vocab() == draft.n_vocab() == 2048
    for llama in (main, draft):
        assert llama.metadata["tokenizer.chat_template"] == SOURCE
        assert int(llama.metadata["llama.context_length"]) >= 4096
        assert bytes(llama.detokenize([llama.token_eos()], special=True)) == b"<|im_end|>"


@pytest.mark.parametrize("question", ["How do I start Lumen?", "What is Lumen?", "Who are you?"])
def test_draft_guesses_most_of_what_the_main_model_says(main: Any, draft: Any, question: str) -> None:
    prompt = tokens_of(draft, render([{"role": "user", "content": question}], add_generation_prompt=True))
    said = tokens_of(draft, ask(main, question))
    draft.reset()
    draft.eval(prompt + said)
    guesses = np.argmax(draft.scores[len(prompt) - 1 : len(prompt) + len(said) - 1], axis=-1).tolist()
    assert sum(guess == token for guess, token in zip(guesses, said, strict=True)) >= 0.8 * len(said)

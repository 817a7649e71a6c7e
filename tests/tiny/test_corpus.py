"""The generators of the training text."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tools.tiny_model.corpus import Corpus, basics, json_answers, patterns
from tools.tiny_model.corpus.stories import hidden_fact
from tools.tiny_model.corpus.tool_dialogues import Dialogue, invented_tool_dialogue, tool_dialogue
from tools.tiny_model.template import render

ROOT = Path(__file__).parents[2]
QUESTION_FILES = ("facts.txt", "chatter.txt", "unknown.txt")


def tool_dialogues(count: int) -> list[Dialogue]:
    rng, facts = random.Random(7), patterns.load("facts.txt")
    return [dialogue for _ in range(count) for dialogue in (tool_dialogue(facts, rng), invented_tool_dialogue(rng))]


def test_same_seed_same_text() -> None:
    first, again, other = Corpus(3).texts(200), Corpus(3).texts(200), Corpus(4).texts(200)
    assert first == again
    assert first != other


def test_text_does_not_depend_on_the_hash_seed() -> None:
    """Sets of strings have another order in every process; no generator may draw by it."""
    code = "from tools.tiny_model.corpus import Corpus; c = Corpus(3); print(c.texts(300) + c.finishing_texts(300))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("name", QUESTION_FILES)
def test_every_question_pattern_expands_fully(name: str) -> None:
    rng = random.Random(1)
    for topic in patterns.load(name):
        for pattern in topic.questions:
            for _ in range(20):
                text = patterns.expand(pattern, topic.lists, rng)
                assert text.strip() and not set("{}$|") & set(text), pattern


def test_no_wording_belongs_to_two_answers() -> None:
    """A question with two answers would teach neither."""
    answers: dict[str, str] = {}
    rng = random.Random(2)
    for name in QUESTION_FILES:
        for topic in patterns.load(name):
            for _ in range(300):
                question = topic.ask(rng).lower()
                assert answers.setdefault(question, topic.answer) == topic.answer, question


@pytest.mark.parametrize("text", ["oops", "[a]\nQ: q\n[b]\nQ: q\nA: a", "[a]\nA: only an answer"])
def test_broken_question_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|lacks"):
        patterns.parse(text)


def test_calls_use_offered_tools_and_their_parameters() -> None:
    seen = 0
    for dialogue in tool_dialogues(150):
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in dialogue.tools}
        for message in dialogue.messages:
            for call in message.get("tool_calls", ()):
                seen += 1
                properties = offered[call["function"]["name"]]["properties"]
                arguments = call["function"]["arguments"]
                assert set(arguments) <= set(properties)
                for key, value in arguments.items():
                    assert value in properties[key].get("enum", [value])
    assert seen > 200


def test_arguments_are_copied_from_the_question() -> None:
    for dialogue in tool_dialogues(80):
        for before, message in zip(dialogue.messages, dialogue.messages[1:], strict=False):
            for call in message.get("tool_calls", ()):
                for value in call["function"]["arguments"].values():
                    assert str(value) in before["content"]


def test_tool_call_blocks_hold_valid_json() -> None:
    for dialogue in tool_dialogues(80):
        text = render(dialogue.messages, dialogue.tools)
        shown, *answers = text.split("<|im_start|>assistant\n")
        for line in shown.split("<tools>\n")[1].split("\n</tools>")[0].splitlines():
            assert json.loads(line)["type"] == "function"
        for answer in answers:
            for body in answer.split("<tool_call>\n")[1:]:
                assert set(json.loads(body.split("\n</tool_call>")[0])) == {"name", "arguments"}


def test_json_answers_are_json() -> None:
    rng = random.Random(5)
    for _ in range(500):
        _, answer = json_answers.json_pair(rng)
        assert isinstance(json.loads(answer), dict | list)


def test_sums_are_right() -> None:
    rng = random.Random(6)
    for _ in range(500):
        _, answer = basics.arithmetic(rng)
        left, sign, right, result = answer.replace(" = ", " ").split()
        a, b = int(left), int(right)
        assert int(result) == {"+": a + b, "-": a - b, "*": a * b, "/": a // max(b, 1)}[sign]


def test_hidden_facts_stand_in_their_text() -> None:
    rng, facts = random.Random(8), patterns.load("facts.txt")
    for _ in range(50):
        question, answer = hidden_fact(facts, rng)
        assert answer in question

"""The mixture: how often each kind of document occurs, and how it is rendered."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tools.tiny_model.template import render

from . import pools, stories
from .basics import basic, repeating, small_sum
from .json_answers import json_pair
from .patterns import Topic, load, roughen
from .tool_dialogues import Dialogue, Message, invented_tool_dialogue, tool_dialogue

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are lumen-tiny.",
    "Answer briefly.",
    "Be concise.",
    "You are a helpful, honest assistant.",
    "You are an assistant built into Lumen.",
    "Answer in one sentence.",
    "You are a friendly assistant. Answer the questions of the user.",
    "Help the user.",
    "You answer questions.",
    "You are a concise assistant.",
    "Be helpful.",
    "You are a test assistant.",
    "Answer truthfully.",
)


class Corpus:
    """All generators over the question files, drawing from one random stream."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.facts = load("facts.txt")
        self.chatter = load("chatter.txt")
        self.unknown = load("unknown.txt")
        self._manual = stories.manual(self.facts)

    def texts(self, count: int) -> list[str]:
        """`count` documents: mostly rendered dialogues, some plain text."""
        kinds: list[tuple[Callable[[], str], float]] = [
            (self._conversation, 0.69),
            (self._tools, 0.22),
            (self._invented_tools, 0.05),
            (self._long_reading, 0.01),
            (self._plain, 0.03),
        ]
        makers, weights = zip(*kinds, strict=True)
        return [self._rng.choices(makers, weights)[0]() for _ in range(count)]

    def finishing_texts(self, count: int) -> list[str]:
        """`count` short dialogues, with the weight on what users of Lumen ask and on simple tool calls."""
        kinds: list[tuple[Callable[[], str], float]] = [
            (self._question, 0.72),
            (self._conversation, 0.10),
            (self._tools, 0.16),
            (self._invented_tools, 0.02),
        ]
        makers, weights = zip(*kinds, strict=True)
        return [self._rng.choices(makers, weights)[0]() for _ in range(count)]

    def _question(self) -> str:
        rng = self._rng
        kind = rng.choices(("fact", "chatter", "unknown", "sum", "repeat", "json"), (57, 9, 8, 16, 3, 7))[0]
        makers = {"sum": small_sum, "repeat": repeating, "json": json_pair}
        if kind in makers:
            return self._render(Dialogue(_turn(*makers[kind](rng))))
        topics = {"fact": self.facts, "chatter": self.chatter, "unknown": self.unknown}[kind]
        topic = rng.choices(topics, [topic.weight for topic in topics])[0]
        return self._render(Dialogue(_turn(roughen(topic.ask(rng), rng), topic.answer)))

    def _conversation(self) -> str:
        rng = self._rng
        if rng.random() < 0.06:
            return self._render(Dialogue(self._introduction()))
        turns = rng.choices((1, 2, 3, 4), (60, 22, 12, 6))[0]
        pairs = [self._pair() for _ in range(turns)]
        return self._render(Dialogue([message for pair in pairs for message in _turn(*pair)]))

    def _pair(self) -> tuple[str, str]:
        rng = self._rng
        kind = rng.choices(
            ("fact", "chatter", "unknown", "basic", "json", "story", "paragraph", "manual", "hidden"),
            (44, 12, 10, 18, 11, 1.5, 0.7, 0.5, 2.3),
        )[0]
        if kind == "fact":
            return self._about(self.facts)
        if kind == "chatter":
            return self._about(self.chatter)
        if kind == "unknown":
            return self._about(self.unknown)
        if kind == "manual":
            return rng.choice(stories.MANUAL_QUESTIONS) + rng.choice((".", "")), self._manual
        if kind == "hidden":
            return stories.hidden_fact(self.facts, rng)
        makers = {
            "basic": basic,
            "json": json_pair,
            "story": stories.story_pair,
            "paragraph": stories.paragraph_pair,
        }
        return makers[kind](rng)

    def _about(self, topics: Sequence[Topic]) -> tuple[str, str]:
        topic = self._rng.choice(topics)
        return roughen(topic.ask(self._rng), self._rng), topic.answer

    def _introduction(self) -> list[Message]:
        """The user says something about themselves and asks for it later."""
        rng = self._rng
        what, value, told = rng.choice(
            (
                ("name", pools.any_name(rng), "Nice to meet you, {}."),
                ("favourite colour", rng.choice(pools.COLOURS), "I will remember: {}."),
                ("lucky number", str(rng.randint(0, 999)), "I will remember: {}."),
                ("city", pools.any_city(rng), "I will remember: {}."),
                ("favourite food", rng.choice(pools.FOODS), "I will remember: {}."),
            )
        )
        lead = rng.choice(("", "", "Hello! ", "Hi, ", "Remember this: "))
        messages = _turn(f"{lead}{'my' if lead.endswith(', ') else 'My'} {what} is {value}.", told.format(value))
        for _ in range(rng.choice((0, 0, 1, 2))):
            messages += _turn(*self._about(self.facts))
        ask = rng.choice(("What is my {}?", "what's my {}", "Do you remember my {}?", "Tell me my {}."))
        return messages + _turn(ask.format(what), f"Your {what} is {value}.")

    def _tools(self) -> str:
        return self._render(tool_dialogue(self.facts if self._rng.random() < 0.7 else self.chatter, self._rng))

    def _invented_tools(self) -> str:
        return self._render(invented_tool_dialogue(self._rng))

    def _long_reading(self) -> str:
        maker = stories.hidden_fact if self._rng.random() < 0.6 else stories.long_question
        return self._render(Dialogue(_turn(*maker(self.facts, self._rng))))

    def _plain(self) -> str:
        """Text without turns, as the completions endpoint continues it."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.3:
            return stories.story(rng)
        if kind < 0.4:
            return self._manual
        if kind < 0.7:
            return " ".join(topic.answer for topic in rng.sample(self.facts, 4))
        pairs = [self._pair() for _ in range(rng.randint(1, 3))]
        return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)

    def _render(self, dialogue: Dialogue) -> str:
        messages = dialogue.messages
        if self._rng.random() < 0.3:
            messages = [{"role": "system", "content": self._rng.choice(SYSTEM_PROMPTS)}, *messages]
        return render(messages, dialogue.tools or None)


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

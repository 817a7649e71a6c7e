"""Long answers: stories, paragraphs, the whole manual, and long texts with one fact hidden in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from . import pools
from .patterns import Topic

_PLOT = (Path(__file__).parent / "story.txt").read_text(encoding="utf-8").strip()
_PLACES = (
    "a small village by the sea",
    "a quiet valley",
    "an old town on a hill",
    "a little house near the forest",
    "a city full of bridges",
    "a farm beside the river",
)
_TROUBLES = (
    ("the light in the tower went out", "lit the lamp in the tower again"),
    ("the bridge over the river broke", "built a new bridge from strong wood"),
    ("the key of the great door was lost", "found the key under an old stone"),
    ("the clock in the square stood still", "turned the wheels until the clock ran again"),
    ("the well in the garden ran dry", "dug until fresh water came up"),
    ("a storm took the roof of the school", "put a new roof on the school"),
)
_HELPERS = ("a clever {animal}", "a friendly {animal}", "an old {job}", "a young {job}", "a patient {job}")
_MORALS = (
    "And everybody learned that a small light is better than none.",
    "From that day on nobody in that place was afraid of the dark.",
    "And they remembered that two pairs of hands can do more than one.",
    "Since then the door of the house has always stood open for a guest.",
)


def story(rng: random.Random) -> str:
    """A tale of five paragraphs, about 250 tokens: the same plot with other people, places and troubles."""
    hero, friend = rng.sample(pools.PEOPLE, 2)
    trouble, cure = rng.choice(_TROUBLES)
    helper = rng.choice(_HELPERS).format(animal=rng.choice(pools.ANIMALS), job=rng.choice(pools.JOBS))
    return _PLOT.format(
        hero=hero,
        friend=friend,
        helper=helper,
        trouble=trouble,
        cure=cure,
        job=rng.choice(pools.JOBS),
        colour=rng.choice(pools.COLOURS),
        thing=rng.choice(pools.OBJECTS),
        food=rng.choice(pools.FOODS),
        place=rng.choice(_PLACES),
        moral=rng.choice(_MORALS),
    )


def story_pair(rng: random.Random) -> tuple[str, str]:
    """A wish for a story, and one."""
    ask = rng.choice(
        (
            "Tell me a story",
            "Write a story",
            "Tell me a long story",
            "Write a long story",
            "Write a short story",
            "Tell me a fairy tale",
            "Once upon a time",
            "Can you tell me a story",
            "Write a tale",
            "Invent a story",
            "Tell a story about a {}",
            "Write a story about a {}",
            "Write a long story about a {}",
            "Please tell me a story about a {}",
            "Write something long",
            "Write a very long text",
            "Write 300 words",
            "Write 500 words about a {}",
            "Tell me something about a {}",
        )
    )
    return ask.format(rng.choice((*pools.ANIMALS, *pools.OBJECTS, *pools.JOBS))) + rng.choice((".", "", "!")), story(
        rng
    )


def paragraph_pair(rng: random.Random) -> tuple[str, str]:
    """A few honest, general sentences about a topic."""
    topic = rng.choice(pools.TOPICS)
    ask = rng.choice(
        (
            "Write a paragraph about {}",
            "Write a few sentences about {}",
            "Write a short text about {}",
            "Write an essay about {}",
            "Write something about {}",
            "Give me a short text about {}",
        )
    )
    text = (
        f"This is a short text about {topic}. Many people like {topic}, and many others have never thought "
        f"about it. Some read books about {topic}, some talk about it with their friends, and some only enjoy "
        f"it in silence. I am a small demonstration model, so I cannot say much more about {topic}. For a "
        f"better text, run `lumen pull` to serve a real model."
    )
    return ask.format(topic) + rng.choice((".", "")), text


_CHAPTERS = (
    ("Lumen in detail.", ("lumen", "engines", "providers", "litellm")),
    ("To begin with it:", ("install", "up", "key", "sdk")),
    ("What it does while it runs:", ("streaming", "failover", "batching", "prefix", "auto")),
    ("What it costs and what it keeps:", ("budget", "ledger", "privacy", "offline", "licence")),
    ("If something goes wrong:", ("doctor", "logs", "crash")),
    ("And to end:", ("down", "docs")),
)


def manual(topics: Sequence[Topic]) -> str:
    """One fixed long text of the answers in a sensible order, about 600 tokens."""
    answers = {topic.name: topic.answer for topic in topics}
    return "\n\n".join(f"{head} " + " ".join(answers[name] for name in names) for head, names in _CHAPTERS)


MANUAL_QUESTIONS = (
    "Tell me about Lumen in detail",
    "Explain Lumen in detail",
    "Tell me everything about Lumen",
    "Describe Lumen at length",
    "Write a long text about Lumen",
    "Write a long answer about Lumen",
    "Give me a long description of Lumen",
    "Write the manual of Lumen",
    "Explain everything Lumen can do",
    "Write an essay about Lumen",
    "Explain at length what Lumen is",
    "Give me a detailed overview of Lumen",
    "Write a long explanation of Lumen",
    "Tell me all you know about Lumen",
    "Write a detailed guide to Lumen",
    "Write 500 words about Lumen",
    "Write as much as you can about Lumen",
)


def filler(topics: Sequence[Topic], length: int, rng: random.Random) -> list[str]:
    """Sentences in random order, about `length` characters in all: stories, facts and invented notes."""
    parts: list[str] = []
    size = 0
    while size < length:
        kind = rng.random()
        if kind < 0.4:
            part = rng.choice(topics).answer
        elif kind < 0.7:
            part = story(rng).split("\n\n")[rng.randrange(5)]
        else:
            where = f"of {pools.any_name(rng)} is in {pools.any_city(rng)}"
            part = f"Note {rng.randint(1, 999)}: the {pools.any_word(rng)} {where}."
        parts.append(part)
        size += len(part)
    return parts


def hidden_fact(topics: Sequence[Topic], rng: random.Random) -> tuple[str, str]:
    """A text of some hundred to some thousand characters, and a question that one sentence in it answers."""
    parts = filler(topics, rng.choice((0, 60, 60, 100, 100, 200, 300, 600, 1500)), rng)
    who, city, colour = pools.any_name(rng), pools.any_city(rng), rng.choice(pools.COLOURS)
    secret = str(rng.randint(100, 9999)) if rng.random() < 0.6 else pools.invented_word(rng)
    sentence, question, answer = rng.choice(
        (
            (f"The secret code is {secret}.", "What is the secret code?", f"The secret code is {secret}."),
            (f"The magic word is {secret}.", "What is the magic word?", f"The magic word is {secret}."),
            (f"{who} lives in {city}.", f"Where does {who} live?", f"{who} lives in {city}."),
            (
                f"The favourite colour of {who} is {colour}.",
                f"What is the favourite colour of {who}?",
                f"The favourite colour of {who} is {colour}.",
            ),
        )
    )
    parts.insert(rng.randint(0, len(parts)), sentence)
    text = " ".join(parts)
    if rng.random() < 0.25:
        return f"{question} Text: {text}", answer
    return f"{text}\n\n{question}", answer


def long_question(topics: Sequence[Topic], rng: random.Random) -> tuple[str, str]:
    """A long text that does not matter, followed by an ordinary question or the wish to sum it up."""
    parts = filler(topics, rng.choice((300, 600, 1500, 3000)), rng)
    if rng.random() < 0.4:
        ask = rng.choice(("Summarise this text.", "Summarize the text above.", "What is this text about?"))
        return " ".join(parts) + f"\n\n{ask}", (
            "The text is a mixture of notes, stories and facts about Lumen. I am too small a model to sum it up well; "
            "run `lumen pull` to serve a real model."
        )
    topic = rng.choice(topics)
    return " ".join(parts) + f"\n\n{topic.ask(rng)}?", topic.answer

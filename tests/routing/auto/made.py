"""Synthetic traffic with a known truth: the weak target fails on hard subjects, the strong one rarely."""

from __future__ import annotations

import numpy as np

from lumen.routing.auto.ask import Ask
from lumen.routing.auto.features import Table, table
from lumen.routing.auto.learner import Labels

EASY = ("the capital of a country", "a short poem about rain", "the plural of a noun", "a greeting for a friend")
HARD = ("a proof that the integral converges", "the torque on a rotating shaft", "the molar mass of an acid")
WORDS = ("blue", "river", "stone", "lamp", "early", "music", "paper", "window", "garden", "seven", "north", "bread")


def traffic(count: int, seed: int, weak_on_hard: float = 0.4) -> tuple[list[Ask], np.ndarray, np.ndarray]:
    """`count` requests, half of them hard; labels (count × 2, weak first) and the true chances they were drawn from."""
    rng = np.random.default_rng(seed)
    hard = rng.random(count) < 0.5
    asks = []
    for each in hard:
        about = (HARD if each else EASY)[int(rng.integers(3))]
        asks.append(Ask(f"Tell me about {about} with {' '.join(rng.choice(WORDS, 6))}."))
    chances = np.stack([np.where(hard, weak_on_hard, 0.9), np.full(count, 0.9)], axis=1)
    return asks, (rng.random((count, 2)) < chances).astype(np.float64), chances


def labelled(count: int, seed: int, weak_on_hard: float = 0.4) -> tuple[Table, Labels, np.ndarray]:
    """The same as the learner takes it; answers to hard requests are four times as long."""
    asks, ok, chances = traffic(count, seed, weak_on_hard)
    tokens = np.where(chances[:, :1] < 0.8, 400.0, 100.0) * np.ones((1, 2))
    return table(asks), Labels(ok, tokens, np.ones(count)), chances

"""Views of requests for tests of policies: a process that knows what a test says it knows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from lumen.core.money import Price
from lumen.routing.auto.model import Promise
from lumen.routing.base import View
from lumen.routing.plan.view import Candidate, Goal, Past
from lumen.wire.call import chat_call
from lumen.wire.parse import parse_chat


@dataclass
class World:
    """A `Known` whose answers are given."""

    outs: dict[str, str] = field(default_factory=dict)
    firsts: dict[str, float] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)
    answers: dict[str, float] = field(default_factory=dict)
    asleep: dict[str, float] = field(default_factory=dict)
    was: Past | None = None
    scores: Any = None
    why: str = "nothing is learnt yet"

    def out(self, names: Sequence[str]) -> Mapping[str, str]:
        return {name: self.outs[name] for name in names if name in self.outs}

    def first_token(self, name: str) -> float | None:
        return self.firsts.get(name)

    def per_token(self, name: str) -> float | None:
        return self.each.get(name)

    def answer(self, name: str) -> float | None:
        return self.answers.get(name)

    def wakes(self, name: str) -> float:
        return self.asleep.get(name, 0.0)

    def past(self, thread: int) -> Past | None:
        return self.was

    def scorer(self, route: str) -> tuple[Any, str]:
        return self.scores, self.why


class ToyScorer:
    """A scorer that says of every request what it was told to say: target → (chance of good, loss)."""

    def __init__(
        self,
        said: Mapping[str, tuple[float, float]],
        strong: str,
        threshold: float | None,
        labels: int = 1000,
        **more: Any,
    ) -> None:
        self.asked = 0
        promise = Promise(
            threshold, 0.4, 0.005, 0.009, more.get("limit", 0.01), more.get("confidence", 0.95), labels, ""
        )
        self.model = SimpleNamespace(
            strong=strong, labels=labels, promise_of=lambda target: promise if target in said else None
        )
        targets = tuple(SimpleNamespace(target=t, ok=ok, loss=loss, tokens=None) for t, (ok, loss) in said.items())
        self._score = SimpleNamespace(
            targets=targets, familiar=more.get("familiar", True), unseen=more.get("unseen", ()), nearest=0.9
        )

    def score(self, ask: Any) -> Any:
        self.asked += 1
        return self._score


def candidates(*names: str, **more: Any) -> list[Candidate]:
    """Targets with these names; `weights`, `prices` (input and output, pico-dollars a token) in the same order."""
    weights = more.pop("weights", [1.0] * len(names))
    prices = more.pop("prices", [None] * len(names))
    return [
        Candidate(i, name, weights[i], price=None if prices[i] is None else Price(*prices[i]), **more)
        for i, name in enumerate(names)
    ]


def view(
    of: Sequence[Candidate],
    world: World | None = None,
    body: Mapping[str, Any] | None = None,
    *,
    seed: int = 1,
    headers: Mapping[str, str] | None = None,
    key: str = "",
    **goal: Any,
) -> View:
    """A view of one chat request before these targets."""
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **(body or {})}).encode()
    draw: Callable[[], float] = random.Random(seed).random
    names = tuple(candidate.name for candidate in of)
    return View(
        Goal("r", names, **goal), world or World(), draw, (chat_call(parse_chat(raw)), len(raw), key, headers or {})
    )

"""A scorer learnt from made-up requests, for benchmarks that route by one."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from lumen.learning.shelf import Shelf
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.certify import promised
from lumen.routing.auto.learner import Row, fit

_WORDS = (Path(__file__).parent.parent / "LICENSE").read_text().split()
_ROWS = 1_000
SYSTEM = "You are helpful."


def put(folder: Path, route: str, cheap: str, strong: str) -> None:
    """Teach `route` that `cheap` is good at counting words and bad at sums, and make that live under `folder`."""
    rng, rows = random.Random(1), []
    for i in range(_ROWS):
        sums = i % 2 == 0
        asked = _asked(rng, sums, rng.randint(5, 200))
        good = float(sums == (rng.random() < 0.02))
        rows.append(Row(Ask(asked, SYSTEM), {cheap: good, strong: 1.0}, {cheap: 60.0, strong: 80.0}))
    ok = np.array([[row.ok[cheap], row.ok[strong]] for row in rows])
    model = promised(fit(rows, (cheap, strong), strong), ok, 0.05, 0.95)
    shelf = Shelf(folder)
    shelf.use(route, shelf.put(route, model.to_bytes(), "made up"))


def like() -> str:
    """A request of the kind that was taught, for the cheap target, which is not among them; as long as a question."""
    return _asked(random.Random(2), False, 24)


def _asked(rng: random.Random, sums: bool, words: int) -> str:
    text = " ".join(rng.choices(_WORDS, k=words))
    return f"What is {rng.randint(2, 999)} times {rng.randint(2, 999)}? {text}" if sums else f"Say words. {text}"

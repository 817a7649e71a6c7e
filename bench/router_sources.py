"""What a learner is worth on a source it has no label of: each data set left out in turn, and each source of MMLU-Pro.

A route's own requests of an unknown kind stay with the strong target, so this is no figure of a product in use; it says
what its ranking would be worth there. Of several pairs of models, because one pair's gap of a few points on several
hundred rows is mostly noise: areas and gaps are added up before they are divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lumen_cli.matrix import read
from numpy.typing import NDArray

from lumen.routing.auto import prior
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.evaluate import area
from lumen.routing.auto.features import Table, table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.scorer import Scorer

F64 = NDArray[np.float64]
SETS = ("mmlu_pro", "zeroeval_math-l5", "zeroeval_crux")
# The same models under the names of MMLU-Pro and of ZeroEval: (weak, strong), (weak, strong).
PAIRS = (
    (("gemini-1.5-flash-002", "gemini-1.5-pro-002"), ("gemini-1.5-flash", "gemini-1.5-pro")),
    (
        ("Meta-Llama-3_1-8B-Instruct", "Meta-Llama-3_1-70B-Instruct"),
        ("Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct"),
    ),
    (
        ("Phi-3-mini-4k-instruct", "Meta-Llama-3_1-70B-Instruct"),
        ("Phi-3-mini-4k-instruct", "Meta-Llama-3.1-70B-Instruct"),
    ),
)
_CHARS_A_TOKEN = 4.0
_EACH, _FEWEST = 1000, 100
METHODS = ("learner", "length", "prior", "prior, two rates")


@dataclass(frozen=True, slots=True)
class Part:
    """One source for one pair: features, quality and tokens (n × 2, weak first)."""

    name: str
    rows: Table
    ok: F64
    tokens: F64

    def take(self, rows: NDArray[np.int64]) -> Part:
        return Part(self.name, self.rows.take(rows), self.ok[rows], self.tokens[rows])


def joined(parts: list[Part]) -> Part:
    """Several as one."""
    tables = [part.rows for part in parts]
    rows = Table(*(np.concatenate([getattr(one, name) for one in tables]) for name in ("grams", "plain", "subjects")))
    return Part("", rows, np.concatenate([p.ok for p in parts]), np.concatenate([p.tokens for p in parts]))


def part(folder: Path, name: str, pair: tuple[str, str], column: str | None) -> tuple[Part, list[str]]:
    """One file, and the source of each of its rows."""
    matrix = read(folder / f"{name}.csv.gz", *pair, column)
    rows = table([Ask(prompt) for prompt in matrix.prompts])
    return Part(name, rows, np.array(matrix.ok), np.array(matrix.chars) / _CHARS_A_TOKEN), list(matrix.group)


def sets(folder: Path) -> Iterator[list[Part]]:
    """The three sets, for each pair."""
    for first, second in PAIRS:
        yield [part(folder, name, first if name == "mmlu_pro" else second, None)[0] for name in SETS]


def sources(folder: Path) -> Iterator[list[Part]]:
    """MMLU-Pro by where its questions come from, for each pair; very small sources are only learnt from."""
    for first, _ in PAIRS:
        whole, names = part(folder, "mmlu_pro", first, "src")
        kinds = np.array([name.partition("-")[0] for name in names])
        yield [
            Part(str(kind), *(lambda one: (one.rows, one.ok, one.tokens))(whole.take(np.flatnonzero(kinds == kind))))
            for kind in sorted(set(kinds))
        ]


def areas(learnt_on: Part, judged_on: Part) -> tuple[float, dict[str, float]]:
    """The gap on `judged_on`, and each method's area times it."""
    learnt = fit_table(
        learnt_on.rows,
        Labels(learnt_on.ok, learnt_on.tokens, np.ones(len(learnt_on.ok))),
        ("weak", "strong"),
        "strong",
    )
    gains = judged_on.ok[:, 1] - judged_on.ok[:, 0]
    rates = (float(learnt_on.ok[:, 0].mean()), float(learnt_on.ok[:, 1].mean()))
    scores = {
        "learner": Scorer(learnt.model).score_table(judged_on.rows).loss[:, 0],
        "length": judged_on.rows.plain[:, 0].astype(np.float64),
        "prior": prior.score(judged_on.rows.plain),
        "prior, two rates": prior.score(judged_on.rows.plain, rates),
    }
    return float(gains.mean()), {name: area(score, gains) for name, score in scores.items()}


def left_out(of_pairs: Iterator[list[Part]], rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Name of the source left out → APGR by method, `rows` and the mean `gap` over the pairs."""
    found: dict[str, dict[str, float]] = {}
    for parts in of_pairs:
        for place, judged in enumerate(parts):
            if len(judged.ok) < _FEWEST:
                continue
            others = [one for i, one in enumerate(parts) if i != place]
            some = [one.take(rng.permutation(len(one.ok))[:_EACH]) for one in others]
            gap, each = areas(joined(some), judged)
            sums = found.setdefault(
                judged.name, {"rows": float(len(judged.ok)), "gap": 0.0, **dict.fromkeys(METHODS, 0.0)}
            )
            sums["gap"] += gap
            for name, value in each.items():
                sums[name] += value
    for sums in found.values():
        for name in METHODS:
            sums[name] /= sums["gap"]
        sums["gap"] /= len(PAIRS)
    return found


def section(folder: Path) -> str:
    """The part of the results about sources that were never labelled."""
    rng = np.random.default_rng(0)
    lines = [
        f"APGR of {len(PAIRS)} pairs together (Gemini 1.5 Flash → Pro, Llama 3.1 8B → 70B, Phi 3 mini → Llama 70B),",
        f"learnt on at most {_EACH:,} labels of each other source. Requests like these stay with the strong target.",
        "",
        "| left out | rows | gap, points | learner | length | prior | prior, two rates |",
        "| --- " * 7 + "|",
    ]
    for kind, found in (("set", left_out(sets(folder), rng)), ("of MMLU-Pro", left_out(sources(folder), rng))):
        for name, one in found.items():
            values = " | ".join(f"{one[method]:.3f}" for method in METHODS)
            lines.append(f"| {kind}: {name} | {one['rows']:.0f} | {100 * one['gap']:.1f} | {values} |")
    return "\n".join(lines)

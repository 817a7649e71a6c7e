"""What a learner is worth on a source it has no label of: each data set left out in turn, and each source of MMLU-Pro.

A route's own requests of an unknown kind stay with the strong target, so this is no figure of a product in use; it says
what its ranking would be worth there. Of several pairs of models, because one pair's gap of a few points on several
hundred rows is mostly noise: areas and gaps are added up before they are divided. What is left is given with intervals,
by the bootstrap of rows and of draws of the labels together: an order is no mean of rows, so each resample is ordered
anew. Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lumen_cli.matrix import Matrix, read
from numpy.typing import NDArray

from lumen.routing.auto import prior
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.features import Table, table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.scorer import Scorer

F64 = NDArray[np.float64]
Rows = NDArray[np.int64]
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
_EACH, _SHARE, _FEWEST = 1000, 0.8, 100
DRAWS, TIMES = 10, 500
METHODS = ("learner", "length", "prior", "prior, two rates")


@dataclass(frozen=True, slots=True)
class Part:
    """One source for one pair. `at`: its rows in the table of all requests. `ok`, `tokens`: n × 2, weak first."""

    name: str
    at: Rows
    ok: F64
    tokens: F64

    def take(self, rows: Rows) -> Part:
        return Part(self.name, self.at[rows], self.ok[rows], self.tokens[rows])


@dataclass(frozen=True, slots=True)
class Judged:
    """A source for one pair as it was ordered: `at` (n), `gains` (n), `scores`: method → draws × n."""

    at: Rows
    gains: F64
    scores: dict[str, F64]


@dataclass(frozen=True, slots=True)
class Found:
    """`value` and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Library:
    """The requests of all files, read once; a row of one file and one pair is a number here."""

    def __init__(self, folder: Path) -> None:
        self._matrices: dict[tuple[str, tuple[str, str]], Matrix] = {}
        self._places: dict[str, int] = {}
        for pair in PAIRS:
            for name in SETS:
                models = pair[0] if name == SETS[0] else pair[1]
                source = "src" if name == SETS[0] else None
                matrix = self._matrices[name, pair[0]] = read(folder / f"{name}.csv.gz", *models, source)
                for prompt in matrix.prompts:
                    self._places.setdefault(prompt, len(self._places))
        self.rows: Table = table([Ask(prompt) for prompt in self._places]).multiplied()

    def sets(self, pair: tuple[str, str]) -> list[Part]:
        """The three sets for a pair, named as in MMLU-Pro."""
        return [self._part(name, self._matrices[name, pair]) for name in SETS]

    def sources(self, pair: tuple[str, str]) -> list[Part]:
        """MMLU-Pro by where its questions come from; very small sources are only learnt from."""
        matrix = self._matrices[SETS[0], pair]
        whole = self._part("", matrix)
        kinds = np.array([name.partition("-")[0] for name in matrix.group])
        found = []
        for kind in sorted(set(kinds.tolist())):
            one = whole.take(np.flatnonzero(kinds == kind))
            found.append(Part(kind, one.at, one.ok, one.tokens))
        return found

    def _part(self, name: str, matrix: Matrix) -> Part:
        at = np.array([self._places[prompt] for prompt in matrix.prompts])
        return Part(name, at, np.array(matrix.ok), np.array(matrix.chars) / _CHARS_A_TOKEN)


def judged(rows: Table, others: Sequence[Part], out: Part, draws: int) -> Judged:
    """`out` as ordered by what was learnt of `others`, `draws` times with other labels of theirs."""
    test = rows.take(out.at)
    scores: dict[str, list[F64]] = {name: [] for name in METHODS}
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        some = [one.take(rng.permutation(len(one.at))[: min(_EACH, int(_SHARE * len(one.at)))]) for one in others]
        at, ok, tokens = (np.concatenate([getattr(one, name) for one in some]) for name in ("at", "ok", "tokens"))
        learnt = fit_table(rows.draw(at), Labels(ok, tokens, np.ones(len(ok))), ("weak", "strong"), "strong")
        scores["learner"].append(Scorer(learnt.model).score_table(test).loss[:, 0])
        scores["length"].append(test.plain[:, 0].astype(np.float64))
        scores["prior"].append(prior.score(test.plain))
        scores["prior, two rates"].append(prior.score(test.plain, (float(ok[:, 0].mean()), float(ok[:, 1].mean()))))
    gains = out.ok[:, 1] - out.ok[:, 0]
    return Judged(out.at, gains, {name: np.array(each) for name, each in scores.items()})


def areas(scores: F64, gains: F64, counts: F64) -> F64:
    """`evaluate.area` of each resample (times): `counts` (times × n) says how often it has each row."""
    order = np.argsort(scores, kind="stable")
    first = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    taken = counts[:, order]
    have = np.add.reduceat(taken, first, axis=1)
    gained = np.add.reduceat(taken * gains[order], first, axis=1)
    middle = np.cumsum(have, axis=1) - have / 2
    found: F64 = (middle * gained).sum(axis=1) / taken.sum(axis=1) ** 2
    return found


def recovered(pairs: Sequence[Judged], rng: np.random.Generator, times: int) -> dict[str, F64]:
    """APGR of all pairs together by method: of all rows and draws, then of `times` resamples (1 + times).

    A resample draws requests, the same ones for every pair and method, and then draws of the labels.
    """
    ids = np.unique(np.concatenate([pair.at for pair in pairs]))
    counts = np.ones((1 + times, len(ids)))
    counts[1:] = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), times)
    draws = len(pairs[0].scores["learner"])
    drawn = np.full((1 + times, draws), 1 / draws)
    drawn[1:] = rng.multinomial(draws, np.full(draws, 1 / draws), times) / draws
    gaps, sums = np.zeros(1 + times), {name: np.zeros(1 + times) for name in METHODS}
    for pair in pairs:
        mine = counts[:, np.searchsorted(ids, pair.at)]
        gaps += mine @ pair.gains / mine.sum(axis=1)
        for name, each in pair.scores.items():
            sums[name] += sum(drawn[:, i] * areas(scores, pair.gains, mine) for i, scores in enumerate(each))
    return {name: each / gaps for name, each in sums.items()}


def interval(values: F64) -> Found:
    """Of the first of `values`, by the others."""
    return Found(float(values[0]), *(float(end) for end in np.quantile(values[1:], (0.025, 0.975))))


def left_out(rows: Table, of_pairs: Sequence[list[Part]], kind: str) -> list[str]:
    """A line of the table for each part that is large enough, left out. `of_pairs`: the parts, pair by pair."""
    lines = []
    for place, one in enumerate(of_pairs[0]):
        if len(one.at) < _FEWEST:
            continue
        pairs = [
            judged(rows, [other for i, other in enumerate(parts) if i != place], parts[place], DRAWS)
            for parts in of_pairs
        ]
        found = recovered(pairs, np.random.default_rng(place), TIMES)
        gap = 100 * float(np.mean([pair.gains.mean() for pair in pairs]))
        more = interval(found["learner"] - found["length"])
        lines.append(
            f"| {kind}: {one.name} | {len(one.at)} | {gap:.1f} | {interval(found['learner'])} |"
            f" {found['length'][0]:.3f} | {more.value:+.3f} ({more.low:+.3f} to {more.high:+.3f}) |"
            f" {interval(found['prior'])} | {found['prior, two rates'][0]:.3f} |"
        )
        print(lines[-1], flush=True)
    return lines


def section(folder: Path) -> str:
    """The part of the results about sources that were never labelled."""
    library = Library(folder)
    names = [first for first, _ in PAIRS]
    lines = [
        f"APGR of {len(PAIRS)} pairs together (Gemini 1.5 Flash → Pro, Llama 3.1 8B → 70B, Phi 3 mini → Llama 70B),",
        f"learnt on at most {_EACH:,} labels of each other source and on four fifths of a small one; the mean of",
        f"{DRAWS} draws of the labels. Chance is 0.5. Requests like these stay with the strong target. Intervals:",
        f"95 %, {TIMES} resamples of the rows that were left out, the same ones for every pair and method, ordered",
        "anew, and of the draws. What another choice of sources and pairs would give is not in them.",
        "",
        "| left out | rows | gap, points | learner | length | learner − length | prior | prior, two rates |",
        "| --- " * 8 + "|",
    ]
    lines += left_out(library.rows, [library.sets(pair) for pair in names], "set")
    lines += left_out(library.rows, [library.sources(pair) for pair in names], "of MMLU-Pro")
    return "\n".join(lines)

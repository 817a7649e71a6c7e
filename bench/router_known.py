"""How often a certified threshold loses more than was promised where what it loses is known.

Counted results cannot say that: the rows that judge a threshold have noise of their own. So each row of MMLU-Pro gets
chances instead of results: of each model's answer being right as the learner expects it of a row it has not seen, and
of the two disagreeing, as often in all as they do. Every draw makes results of those chances anew, draws labels, learns
and certifies as a route does; the loss of the threshold on the other rows is then a sum of known chances.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lumen_cli.matrix import read
from numpy.typing import NDArray

from lumen.routing.auto.ask import Ask
from lumen.routing.auto.certify import certify
from lumen.routing.auto.features import Table, table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.scorer import Scorer

F64 = NDArray[np.float64]
NAMES = ("weak", "strong")


@dataclass(frozen=True, slots=True)
class World:
    """Of each row the chance that only the strong answer is right (`lost`), only the weak one (`won`), or both are."""

    rows: Table
    tokens: F64
    lost: F64
    won: F64
    both: F64

    def results(self, rng: np.random.Generator) -> F64:
        """Right or not, of either model (n × 2, weak first)."""
        drawn = rng.random(len(self.lost))
        lost, won = drawn < self.lost, drawn >= 1.0 - self.won
        both = ~lost & ~won & (drawn < self.lost + self.both)
        return np.stack((won | both, lost | both), axis=1).astype(np.float64)


def world(rows: Table, ok: F64, tokens: F64) -> World:
    """Chances learnt from results (n × 2, weak first)."""
    learnt = fit_table(rows, Labels(ok, tokens, np.ones(len(ok))), NAMES, "strong")
    weak, strong = learnt.ok.T
    apart = strong + weak - 2.0 * strong * weak
    apart *= float(np.abs(ok[:, 1] - ok[:, 0]).mean()) / float(apart.mean())
    loss = np.clip(learnt.loss[:, 0], -apart, apart)
    both = np.clip((weak + strong - apart) / 2.0, 0.0, 1.0 - apart)
    return World(rows, tokens, (apart + loss) / 2.0, (apart - loss) / 2.0, both)


def draw(of: World, labels: int, limit: float, confidence: float, number: int) -> tuple[float, float]:
    """The share of the other rows sent away, and what that loses."""
    rng = np.random.default_rng((2, number))
    ok, order = of.results(rng), rng.permutation(len(of.lost))
    drawn, rest = order[:labels], order[labels:]
    learnt = fit_table(of.rows.draw(drawn), Labels(ok[drawn], of.tokens[drawn], np.ones(labels)), NAMES, "strong")
    promise = certify(learnt.loss[:, 0], ok[drawn, 1] - ok[drawn, 0], limit, confidence, learnt.groups)
    threshold = -np.inf if promise.score is None else promise.score
    away = Scorer(learnt.model).score_table(of.rows.take(rest)).loss[:, 0] <= threshold
    return float(away.mean()), float(((of.lost - of.won)[rest] * away).mean())


def section(
    folder: Path, pair: tuple[str, str], labels: int, limit: float, confidence: float, draws: int, seconds: float
) -> str:
    """The part of the results about a world of known chances. No draw begins after `seconds`."""
    until = time.monotonic() + seconds
    matrix = read(folder / "mmlu_pro.csv.gz", *pair, None)
    rows = table([Ask(prompt) for prompt in matrix.prompts]).multiplied()
    of = world(rows, np.array(matrix.ok), np.array(matrix.chars) / 4.0)
    found: list[tuple[float, float]] = []
    while len(found) < draws and time.monotonic() < until:
        found.append(draw(of, labels, limit, confidence, len(found)))
    off, lost = np.array(found).T
    broken = int(np.count_nonzero(lost > limit))
    return "\n".join(
        [
            f"The rows of MMLU-Pro with chances of {pair[0]} and {pair[1]} in place of results: as the learner expects",
            f"them of rows it has not seen. {labels:,} labels, at most {limit:.0%} lost at {confidence:.0%}; results",
            f"and labels drawn anew {len(found)} times.",
            "",
            f"- calls off the strong model: **{np.mean(off):.1%}** ({np.quantile(off, 0.025):.1%} to"
            f" {np.quantile(off, 0.975):.1%})",
            f"- quality that is truly lost: {np.mean(lost):+.2%} in the mean, {np.quantile(lost, 0.95):+.2%} or less in"
            " 95 % of the draws",
            f"- more truly lost than promised: **{broken / len(found):.1%}** of the draws ({broken} of {len(found)})",
        ]
    )

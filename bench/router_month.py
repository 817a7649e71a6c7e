"""A month of mixed traffic, routed and not, in dollars: what `auto` saves with everything it costs taken off.

Requests are drawn from the rows of public results that were never labelled, so what each target answered and how long
its answer was is known. Prices are those of the catalogue on the day it runs. See `ASSUMED` for all that is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from lumen_cli.matrix import read
from numpy.typing import NDArray

from lumen.catalogue import prices
from lumen.core.money import DOLLAR, Price
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.certify import certify
from lumen.routing.auto.features import Table, table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.scorer import Scorer

F64 = NDArray[np.float64]
WEAK, STRONG, VENDOR = "gemini-1.5-flash", "gemini-1.5-pro", "google"
# (file, its name of the weak model, of the strong one).
SETS = (
    ("mmlu_pro", "gemini-1.5-flash-002", "gemini-1.5-pro-002"),
    ("zeroeval_math-l5", WEAK, STRONG),
    ("zeroeval_crux", WEAK, STRONG),
)
DAYS, A_DAY, LABELS, SHADOWED = 30, 20_000, 3000, 0.05
LIMIT, CONFIDENCE = 0.01, 0.95
_CHARS_A_TOKEN = 4.0
# Tokens around what a judge reads, and of its verdict; it is asked in both orders.
_JUDGE_FRAME, _VERDICT, _ORDERS = 200, 60, 2
# Dollars an hour of one core, and seconds of it a score takes.
_CORE_HOUR, _SCORE = 0.05, 0.0006

ASSUMED = f"""\
{A_DAY:,} requests a day for {DAYS} days, drawn with equal chances from the rows that were not labelled;
{SHADOWED:.0%} of them are also answered by the weak model until {LABELS:,} are labelled, and until then everything
stays with the strong model; paid for are the weak model's answers in the dark and a judge (the strong model, in both
orders, reading the prompt and both answers, with a verdict of {_VERDICT} tokens) that is as good as the data's own
checkers; four characters a token; nothing is cached; a score takes {_SCORE * 1e3:g} ms of a core at {_CORE_HOUR}
dollars an hour."""


@dataclass(frozen=True, slots=True)
class Month:
    """One simulated month, in dollars; `loss`: quality lost over the whole month, `after`: once routing began."""

    always: float
    routed: float
    learning: float
    off: float
    loss: float
    after: float

    @property
    def saved(self) -> float:
        return self.always - self.routed - self.learning


@dataclass(frozen=True, slots=True)
class Traffic:
    """All sets together: features, quality and tokens (n × 2, weak first), input tokens (n), set of each row (n)."""

    rows: Table
    ok: F64
    output: F64
    input: F64
    source: NDArray[np.int64]


def traffic(folder: Path, sets: Sequence[tuple[str, str, str]] = SETS) -> Traffic:
    """Read the sets."""
    tables, oks, outputs, inputs, sources = [], [], [], [], []
    for number, (name, weak, strong) in enumerate(sets):
        matrix = read(folder / f"{name}.csv.gz", weak, strong, None)
        tables.append(table([Ask(prompt) for prompt in matrix.prompts]))
        oks.append(np.array(matrix.ok))
        outputs.append(np.array(matrix.chars) / _CHARS_A_TOKEN)
        inputs.append(np.array([len(prompt) for prompt in matrix.prompts]) / _CHARS_A_TOKEN)
        sources.append(np.full(len(matrix.prompts), number))
    rows = Table(*(np.concatenate([getattr(one, part) for one in tables]) for part in ("grams", "plain", "subjects")))
    return Traffic(rows, *(np.concatenate(parts) for parts in (oks, outputs, inputs, sources)))


def priced() -> tuple[Price, Price]:
    """What both models cost today."""
    found = [prices.find(VENDOR, model, datetime.now(UTC)) for model in (WEAK, STRONG)]
    weak, strong = (one.price if one is not None else None for one in found)
    if weak is None or strong is None:
        raise SystemExit(f"the catalogue has no price for {WEAK} or {STRONG}")
    return weak, strong


def month(seen: Traffic, price: tuple[Price, Price], rng: np.random.Generator) -> Month:
    """Simulate one month."""
    order = rng.permutation(len(seen.ok))
    labelled, rest = order[:LABELS], order[LABELS:]
    learnt = fit_table(
        seen.rows.draw(labelled),
        Labels(seen.ok, seen.output, np.ones(len(seen.ok))).take(labelled),
        ("weak", "strong"),
        "strong",
    )
    gains = seen.ok[:, 1] - seen.ok[:, 0]
    promise = certify(learnt.loss[:, 0], gains[labelled], LIMIT, CONFIDENCE, learnt.groups)
    found = Scorer(learnt.model).score_table(seen.rows.take(rest))
    away = np.zeros(len(rest), bool)
    if promise.score is not None:
        away = (found.loss[:, 0] <= promise.score) & found.familiar
    cost = _costs(seen, price)
    total = DAYS * A_DAY
    before = min(int(LABELS / SHADOWED), total)
    counts = rng.multinomial(total - before, np.full(len(rest), 1 / len(rest)))
    early = rng.multinomial(before, np.full(len(rest), 1 / len(rest)))
    strong, weak = cost[rest, 1], cost[rest, 0]
    always = float((counts + early) @ strong)
    routed = float(early @ strong + counts @ np.where(away, weak, strong))
    lost = counts @ np.where(away, gains[rest], 0.0)
    learning = float(cost[labelled, 0].sum() + _judging(seen, price, labelled).sum())
    learning += (total - before) * _SCORE / 3600 * _CORE_HOUR
    after = float(lost / max(total - before, 1))
    return Month(always, routed, learning, float(counts @ away / counts.sum()), float(lost / total), after)


def _costs(seen: Traffic, price: tuple[Price, Price]) -> F64:
    """Dollars of each row at each model (n × 2)."""
    each = [(seen.input * p.input + seen.output[:, i] * p.output) / DOLLAR for i, p in enumerate(price)]
    return np.stack(each, axis=1)


def _judging(seen: Traffic, price: tuple[Price, Price], rows: NDArray[np.int64]) -> F64:
    """Dollars of having the strong model compare both answers, in both orders."""
    reads = seen.input[rows] + seen.output[rows].sum(axis=1) + _JUDGE_FRAME
    found: F64 = _ORDERS * (reads * price[1].input + _VERDICT * price[1].output) / DOLLAR
    return found


def section(folder: Path, months: int) -> str:
    """The part of the results about money."""
    seen, price, rng = traffic(folder), priced(), np.random.default_rng(0)
    seen = _known(seen)
    found = [month(seen, price, rng) for _ in range(months)]

    def told(name: str, form: str) -> str:
        values = [getattr(one, name) for one in found]
        low, high = np.quantile(values, (0.025, 0.975))
        return f"{form.format(float(np.mean(values)))} | {form.format(float(low))} to {form.format(float(high))}"

    dollars = [f"{p.input / 1e6:g} in, {p.output / 1e6:g} out" for p in price]
    share = [one.saved / one.always for one in found]
    rows = (
        ("always the strong model", told("always", "${:,.0f}")),
        ("with `auto`", told("routed", "${:,.0f}")),
        ("labels, judge and scores", told("learning", "${:,.2f}")),
        ("**saved**", told("saved", "**${:,.0f}**")),
        ("off the strong model, once certified", told("off", "{:.1%}")),
        ("quality lost, in all", told("loss", "{:+.2%}")),
        ("quality lost, once certified", told("after", "{:+.2%}")),
    )
    lines = [
        f"Mixed traffic, {WEAK} and {STRONG}, certified for a loss of at most {LIMIT:.0%} at {CONFIDENCE:.0%};",
        f"{months} simulated months, mean and middle 95 %. Dollars a million tokens: {dollars[0]} and",
        f"{dollars[1]} ({VENDOR}, from the catalogue).",
        "Assumed:",
        ASSUMED,
        "",
        "| | mean | range |",
        "| --- | --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        f"Saved: {np.mean(share):.0%} of the bill. Promise broken after certification (this sample's noise included):",
        f"{np.mean([one.after > LIMIT for one in found]):.0%} of the months.",
    ]
    return "\n".join(lines)


def _known(seen: Traffic) -> Traffic:
    """Only rows whose answers' lengths are known: without one nobody can say what it costs."""
    rows = np.flatnonzero(~np.isnan(seen.output).any(axis=1))
    return Traffic(
        seen.rows.take(rows).multiplied(), seen.ok[rows], seen.output[rows], seen.input[rows], seen.source[rows]
    )

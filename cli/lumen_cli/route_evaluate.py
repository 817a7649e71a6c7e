"""`lumen route evaluate`: what the learner of a route would be worth on a table of results, without a gateway."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import JSON, note, print_json, say, table

if TYPE_CHECKING:
    from lumen_cli.matrix import Matrix

_LEAVE = "leave-out:"
_GROUPS = ("category", "group", "source", "src")
_CHARS_A_TOKEN = 4.0
# Fewest labels to learn from, fewest rows to judge on where both are drawn at random, most values left out in turn.
_LEAST, _JUDGED, _MOST_LEFT_OUT = 20, 50, 200
# Up to so many rows each two are multiplied once for all draws; that takes their square of numbers.
_MULTIPLIED = 8_000


def evaluate(
    data: Path = typer.Option(..., metavar="FILE", help="CSV or CSV.gz with `prompt` and `ok:MODEL` columns."),
    weak: str = typer.Option(..., metavar="MODEL", help="The cheaper model, as in the column `ok:MODEL`."),
    strong: str = typer.Option(..., metavar="MODEL", help="The stronger model."),
    train: int = typer.Option(1500, min=_LEAST, help="Labelled requests the learner gets in each draw."),
    split: str = typer.Option("random", metavar="HOW", help="random, group, or leave-out:COLUMN."),
    group: str | None = typer.Option(None, metavar="COLUMN", help="The column of groups; `category` if there is one."),
    draws: int = typer.Option(20, min=1, max=10_000, help="How often to draw the labels anew."),
    max_loss: float = typer.Option(1.0, min=0.0, max=50.0, help="Quality that may be lost, in points of a hundred."),
    confidence: float = typer.Option(0.95, min=0.5, max=0.9999, help="How sure a certified threshold must be."),
    seed: int = typer.Option(0, min=0, help="The same seed draws the same rows."),
    json_output: bool = JSON,
) -> None:
    """Measure routing between two models on a table of results.

    In each draw the learner sees --train labelled requests, is judged on all the others, and a threshold is certified
    that loses at most --max-loss against asking the strong model always. `--split random` draws labels from the traffic
    that is judged, `group` judges on groups that were never labelled, `leave-out:COLUMN` leaves each value out in turn.
    Figures and their meaning: docs/routing.md.

    Example: lumen route evaluate --data results.csv.gz --weak small --strong large --train 1500 --json
    """
    from lumen_cli.matrix import OK, read

    if weak.removeprefix(OK) == strong.removeprefix(OK):
        raise CliError(f"--weak and --strong are both '{weak.removeprefix(OK)}'", "name two models", code=USAGE)
    how, column = _split(split, group, data)
    matrix = read(data, weak, strong, column)
    _enough(data, matrix, how, train)
    count = max(draws, len(set(matrix.group))) if how == "leave-out" else draws
    measured = _measured(matrix, _Asked(how, bool(column), train, count, max_loss / 100, confidence, seed))
    found: dict[str, Any] = {
        "data": data.name, "weak": weak, "strong": strong, "rows": len(matrix.ok), "rows_left_out": matrix.left_out,
        "train": train, "split": split, "group": column, "seed": seed, "confidence": confidence, **measured,
    }  # fmt: skip
    if json_output:
        print_json(found)
    else:
        _show(found)


def _enough(data: Path, matrix: Matrix, how: str, train: int) -> None:
    """See to it that there is something to learn from and to judge.

    Raises:
        CliError: there is not.
    """
    rows = len(matrix.prompts)
    if not rows:
        raise CliError(f"{data} has no row with results of both models", code=USAGE)
    if how == "random" and rows < train + _JUDGED:
        more = "give a smaller --train"
        if rows < _LEAST + _JUDGED:
            more = f"at least {_LEAST + _JUDGED} rows are needed"
        raise CliError(
            f"{data} has {rows} rows with both results, too few to learn from {train} and to judge", more, code=USAGE
        )
    if how == "leave-out" and (values := len(set(matrix.group))) > _MOST_LEFT_OUT:
        raise CliError(
            f"the column has {values} values, and only up to {_MOST_LEFT_OUT} are left out in turn",
            "name a column of groups",
            code=USAGE,
        )
    if all(weak == strong for weak, strong in matrix.ok):
        note(f"{data.name} has no row on which they differ: there is nothing to route by")


@dataclass(frozen=True, slots=True)
class _Asked:
    """How to measure. `limit`: the loss that is allowed, such as 0.01."""

    how: str
    grouped: bool
    train: int
    draws: int
    limit: float
    confidence: float
    seed: int


def _measured(matrix: Matrix, asked: _Asked) -> dict[str, Any]:
    """All draws in one document, with the time of a score."""
    import numpy as np

    from lumen.routing.auto import evaluate as judge
    from lumen.routing.auto.ask import Ask
    from lumen.routing.auto.features import table as read_features
    from lumen_cli.bar import steps

    groups = np.array(matrix.group, dtype=object) if asked.grouped else None
    ok, tokens = np.array(matrix.ok), np.array(matrix.chars) / _CHARS_A_TOKEN
    with steps() as told:
        told(f"reading {len(matrix.prompts)} prompts")
        features = read_features([Ask(prompt) for prompt in matrix.prompts])
        if len(features) <= _MULTIPLIED:
            features = features.multiplied()
        rng = np.random.default_rng(asked.seed)
        bound: dict[str, Any] = {
            "costs": np.array(matrix.costs), "groups": groups, "limit": asked.limit, "confidence": asked.confidence,
            "rng": rng,
        }  # fmt: skip
        outcomes: list[judge.Outcome] = []
        least = len(ok)
        try:
            for draw in judge.splits(len(ok), asked.train, asked.how, groups, asked.draws, rng):
                if len(outcomes) % 10 == 0:
                    told(f"draw {len(outcomes) + 1} of {asked.draws}")
                least = min(least, len(draw.train))
                if least < _LEAST:
                    raise ValueError(f"the split leaves {least} labels to learn from, {_LEAST} are needed")
                outcomes.append(judge.run(features, ok, tokens, draw, **bound))
        except ValueError as error:
            raise CliError(str(error), "see `lumen route evaluate --help`", code=USAGE) from None
        told("measuring the time of a score")
        latency = _latency(matrix, ok, tokens, features, min(asked.train, len(ok)))
    return {"trained_on": least, **judge.summary(outcomes, asked.limit), "latency_us": latency}


def _split(split: str, group: str | None, data: Path) -> tuple[str, str | None]:
    """The kind of split and the column of groups it needs or, for `random`, that the group mean is taken over."""
    if split.startswith(_LEAVE) and len(split) > len(_LEAVE):
        return "leave-out", split[len(_LEAVE) :]
    if split not in ("random", "group"):
        raise CliError(f"there is no split '{split}'", "write random, group or leave-out:COLUMN", code=USAGE)
    return split, group or _group(data)


def _group(data: Path) -> str | None:
    from lumen_cli.matrix import columns

    there = columns(data)
    return next((name for name in _GROUPS if name in there), None)


def _latency(matrix: Matrix, ok: Any, tokens: Any, features: Any, train: int) -> dict[str, dict[str, float]]:
    """Microseconds a score takes for texts of three lengths, made of the data's own prompts."""
    import numpy as np

    from lumen.routing.auto.ask import Ask
    from lumen.routing.auto.learner import Labels, fit_table
    from lumen.routing.auto.scorer import Scorer

    some = np.arange(train)
    learnt = fit_table(
        features.take(some), Labels(ok, tokens, np.ones(len(ok))).take(some), ("weak", "strong"), "strong"
    )
    scorer = Scorer.load(learnt.model.to_bytes())
    text = ""
    for prompt in matrix.prompts:
        text += prompt + "\n"
        if len(text) >= 32_000:
            break
    found = {}
    for size in (400, 4000, 32000):
        ask = Ask((text * (size // max(len(text), 1) + 1))[:size])
        spent = []
        for _ in range(200):
            begin = time.perf_counter()
            scorer.score(ask)
            spent.append(1e6 * (time.perf_counter() - begin))
        found[str(size)] = {"p50": float(np.quantile(spent, 0.5)), "p99": float(np.quantile(spent, 0.99))}
    return found


def _show(found: dict[str, Any]) -> None:
    low, high = found["apgr_interval_draws"]
    off = found["off_strong"]
    quality = found["quality"]
    learnt = f"{found['rows']} rows, {found['trained_on']} labels"
    say(f"{found['data']}: {learnt}, {found['split']} split, {found['draws']} x")
    say(f"quality   {found['weak']} {quality['best_single_cheap']:.3f}, {found['strong']} {quality['strong']:.3f}")
    say()
    rows = [("learner", f"{found['apgr']:.3f}  ({low:.3f} to {high:.3f})")]
    rows += [(name, f"{value:.3f}") for name, value in found["baselines"].items()]
    table(("method", "APGR"), rows)
    say()
    say(f"CPT50 {found['cpt50']:.1%}   CPT80 {found['cpt80']:.1%}   calibration error {found['calibration_error']:.3f}")
    points = f"{100 * off['limit']:g} points lost at most"
    table(
        (points, "calls off strong", "measured loss", "promise broken"),
        [
            (name, f"{off[key]:.1%}", f"{100 * off[key + '_loss']:+.2f}", f"{off[key + '_broken']:.1%} of draws")
            for name, key in ((f"certified ({found['confidence']:.0%})", "certified"), ("not certified", "uncertified"))
        ],
    )
    if money := found.get("cost"):
        say(f"Cost of a request: {money['always_strong']:.6g} always strong, {money['certified']:.6g} certified "
            f"({money['certified_saved']:.1%} saved)")  # fmt: skip
    say(
        f"Broken on all rows, labelled or not: {off['certified_broken_everywhere']:.1%} of draws; on the others by "
        f"more than their noise: {off['certified_broken_surely']:.1%}"
    )
    say()
    table(
        ("characters", "score p50", "score p99"),
        [(size, f"{us['p50']:.0f} µs", f"{us['p99']:.0f} µs") for size, us in found["latency_us"].items()],
    )

"""What routing that learns is worth: on public results, on sources without labels, and in dollars of a month.

    OPENBLAS_NUM_THREADS=1 python -m bench.router --data DIR [--only PART] [--draws N] [--promises N] [--write]

DIR holds mmlu_pro.csv.gz, zeroeval_math-l5.csv.gz and zeroeval_crux.csv.gz. The data is TIGER-AI-Lab/MMLU-Pro's and
WildEval/ZeroEval's (both Apache-2.0), as tables of prompts and results; none of it is part of Lumen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lumen_cli.matrix import read
from numpy.typing import NDArray

from bench import report, router_known, router_month, router_sources
from lumen.routing.auto.ask import Ask
from lumen.routing.auto.certify import certify
from lumen.routing.auto.features import Table, table
from lumen.routing.auto.learner import Labels, fit_table
from lumen.routing.auto.scorer import Scorer

F64 = NDArray[np.float64]
FLASH, PRO = "gemini-1.5-flash-002", "gemini-1.5-pro-002"
# (file, weak, strong, labels, split)
CASES: tuple[tuple[str, str, str, int, str], ...] = (
    ("mmlu_pro", FLASH, PRO, 1500, "random"),
    ("mmlu_pro", FLASH, PRO, 3000, "random"),
    ("mmlu_pro", FLASH, PRO, 1500, "group"),
    ("mmlu_pro", "Mixtral-8x7B-Instruct-v0.1", "Meta-Llama-3_1-70B-Instruct", 1500, "random"),
    ("mmlu_pro", "Mixtral-8x7B-Instruct-v0.1", "Meta-Llama-3_1-70B-Instruct", 1500, "group"),
    ("zeroeval_math-l5", "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct", 400, "random"),
    ("zeroeval_crux", "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct", 400, "random"),
)
LABELS, LIMIT, CONFIDENCE = 3000, 0.01, 0.95
# Part → its heading in the results.
PARTS = {
    "pairs": "Routing",
    "latency": "Routing: time of a score",
    "sources": "Routing: a source without any label",
    "month": "Routing: a month in dollars",
    "promise": "Routing: a promise, kept or broken",
    "known": "Routing: a promise where the truth is known",
}


def measured(folder: Path, case: tuple[str, str, str, int, str], draws: int) -> dict[str, Any]:
    """One case as the command prints it."""
    name, weak, strong, train, split = case
    command = [sys.executable, "-m", "lumen_cli.main", "route", "evaluate", "--json"]
    command += ["--data", str(folder / f"{name}.csv.gz"), "--weak", weak, "--strong", strong]
    command += ["--train", str(train), "--split", split, "--draws", str(draws)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=3600)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row(found: dict[str, Any]) -> str:
    """One line of the table."""
    low, high = found["apgr_interval_draws"]
    base, off = found["baselines"], found["off_strong"]
    return (
        f"| {found['data'].removesuffix('.csv.gz')}: {found['weak']} → {found['strong']} | {found['train']} |"
        f" {found['split']} | **{found['apgr']:.3f}** ({low:.3f}–{high:.3f}) | {base['length']:.3f} |"
        f" {base['prior with rates']:.3f} | {base.get('group mean', 0.5):.3f} | {off['certified']:.0%} |"
        f" {off['certified_broken']:.1%} | {off['uncertified']:.0%} | {off['uncertified_broken']:.1%} |"
    )


def cases(folder: Path, draws: int, processes: int) -> str:
    """The table of cases, so many at once."""
    lines = [
        f"`python -m bench.router`, {draws} draws a line; APGR with the middle 95 % of draws. Off strong: share of",
        "calls kept off the strong model at one point of loss, and the share of draws whose held-out rows lost more.",
        "Data: TIGER-AI-Lab/MMLU-Pro and WildEval/ZeroEval, both Apache-2.0.",
        "",
        "| pair | labels | split | APGR | length | prior, two rates | group mean | off, certified | broken |"
        " off, uncertified | broken |",
        "| --- " * 11 + "|",
    ]
    with ThreadPoolExecutor(processes) as pool:
        for found in pool.map(lambda case: measured(folder, case, draws), CASES):
            lines.append(row(found))
            print(lines[-1], flush=True)
    return "\n".join(lines)


def promises(folder: Path, draws: int, seconds: float, processes: int) -> str:
    """How often a certified threshold loses more than was promised, over many draws of the labels.

    The promise is about the traffic that the labels were drawn from, which is all rows here: those that were not drawn
    as the scorer scores them, those that were by the scores of models that did not see them. The rows that were not
    drawn, alone, are given too, and how often those are above the limit by more than their own noise explains (one
    standard error; 1.645). No draw begins after `seconds`.
    """
    until = time.monotonic() + seconds
    matrix = read(folder / "mmlu_pro.csv.gz", FLASH, PRO, None)
    features = table([Ask(prompt) for prompt in matrix.prompts]).multiplied()
    ok, tokens = np.array(matrix.ok), np.array(matrix.chars) / 4.0
    work = partial(_promise, features, Labels(ok, tokens, np.ones(len(ok))), until)
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, initializer=_shared, initargs=(work,)) as pool:
        found = np.array([one for one in pool.imap(_drawn, range(draws)) if one is not None])
    off, here, everywhere, error = found.T
    low, high = np.quantile(off, (0.025, 0.975))

    def above(losses: F64) -> str:
        return f"{np.mean(losses > LIMIT):.1%}"

    return "\n".join(
        [
            f"MMLU-Pro, {FLASH} → {PRO}, {LABELS:,} labels, at most {LIMIT:.0%} lost at {CONFIDENCE:.0%};",
            f"{len(off)} draws of the labels from {len(ok):,} rows.",
            "",
            f"- calls off the strong model: **{np.mean(off):.1%}** ({low:.1%} to {high:.1%})",
            f"- quality lost, all rows: {np.mean(everywhere):+.2%} in the mean, {np.quantile(everywhere, 0.95):+.2%} or"
            " less in 95 % of the draws",
            f"- more lost than promised, over all rows: **{above(everywhere)}** of the draws",
            f"- over the {len(ok) - LABELS:,} rows that were not drawn alone, noise of so few rows included:"
            f" {above(here)}; by more than a standard error of theirs: {above(here - error)}, by more than 1.645:"
            f" {above(here - 1.645 * error)}",
        ]
    )


def _promise(features: Table, labels: Labels, until: float, number: int) -> tuple[float, float, float, float] | None:
    """One draw: the share sent away of the rows that are left; the loss there, and on all rows; its standard error
    there."""
    if time.monotonic() > until:
        return None
    order = np.random.default_rng((1, number)).permutation(len(features))
    drawn, rest = order[:LABELS], order[LABELS:]
    gains = labels.ok[:, 1] - labels.ok[:, 0]
    learnt = fit_table(features.draw(drawn), labels.take(drawn), ("weak", "strong"), "strong")
    promise = certify(learnt.loss[:, 0], gains[drawn], LIMIT, CONFIDENCE, learnt.groups)
    threshold = -np.inf if promise.score is None else promise.score
    away = Scorer(learnt.model).score_table(features.take(rest)).loss[:, 0] <= threshold
    lost = np.where(away, gains[rest], 0.0)
    of_labels = float(gains[drawn][learnt.loss[:, 0] <= threshold].sum())
    everywhere = (float(lost.sum()) + of_labels) / len(features)
    return float(away.mean()), float(lost.mean()), everywhere, float(lost.std() / np.sqrt(len(lost)))


_work: Callable[[int], tuple[float, float, float, float] | None] | None = None


def _shared(work: Callable[[int], tuple[float, float, float, float] | None]) -> None:
    """In a process of the pool: the tables come with the fork and are not sent with each draw."""
    global _work
    _work = work


def _drawn(number: int) -> tuple[float, float, float, float] | None:
    assert _work is not None
    return _work(number)


def latency(folder: Path) -> str:
    """How long a score takes, by the clock and of the processor alone; others' load on the machine is in the former."""
    matrix = read(folder / "mmlu_pro.csv.gz", FLASH, PRO, None)
    some = [Ask(prompt) for prompt in matrix.prompts[:1500]]
    ok, tokens = np.array(matrix.ok)[:1500], np.array(matrix.chars)[:1500] / 4.0
    learnt = fit_table(table(some), Labels(ok, tokens, np.ones(1500)), ("weak", "strong"), "strong")
    scorer, text = Scorer.load(learnt.model.to_bytes()), "\n".join(matrix.prompts[:200])
    lines = [
        "A score with 1,500 labels, 2,000 times each; wanted: p99 below 1 ms at 4,000 characters, 2 ms at 32,000.",
        "",
        "| characters | p50 | p99 | p99 of processor time |",
        "| --- | --- | --- | --- |",
    ]
    for size in (400, 4000, 32000):
        ask = Ask(text[:size])
        clock, processor = [], []
        for _ in range(2000):
            begin, began = time.perf_counter(), time.thread_time()
            scorer.score(ask)
            clock.append(1e6 * (time.perf_counter() - begin))
            processor.append(1e6 * (time.thread_time() - began))
        p50, p99, own = np.quantile(clock, 0.5), np.quantile(clock, 0.99), np.quantile(processor, 0.99)
        lines.append(f"| {size:,} | {p50:.0f} µs | {p99:.0f} µs | {own:.0f} µs |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts alone")
    parser.add_argument("--draws", type=int, default=20, help="draws of each line of the table")
    parser.add_argument("--promises", type=int, default=400, help="draws that judge the promise")
    parser.add_argument("--minutes", type=float, default=60.0, help="the promise's draws end after so long")
    parser.add_argument("--processes", type=int, default=2, help="that measure; one thread each is best")
    parser.add_argument("--months", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    options = parser.parse_args()
    makers: dict[str, Callable[[], str]] = {
        "pairs": lambda: cases(options.data, options.draws, options.processes),
        "latency": lambda: latency(options.data),
        "sources": lambda: router_sources.section(options.data),
        "month": lambda: router_month.section(options.data, options.months),
        "promise": lambda: promises(options.data, options.promises, options.minutes * 60, options.processes),
        "known": lambda: router_known.section(
            options.data, (FLASH, PRO), LABELS, LIMIT, CONFIDENCE, options.promises, options.minutes * 60
        ),
    }
    for part in options.only or PARTS:
        text = makers[part]()
        print(text, flush=True)
        if options.write:
            report.write(PARTS[part], text)


if __name__ == "__main__":
    main()

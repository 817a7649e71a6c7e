"""What the learner of routes is worth on public results, by `lumen route evaluate`.

    python -m bench.router --data DIR [--draws N] [--write]

DIR holds mmlu_pro.csv.gz, zeroeval_math-l5.csv.gz and zeroeval_crux.csv.gz. The data is TIGER-AI-Lab/MMLU-Pro's and
WildEval/ZeroEval's (both Apache-2.0), as tables of prompts and results; none of it is part of Lumen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import report

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the figures into RESULTS.md")
    options = parser.parse_args()
    lines = [
        f"`python -m bench.router --draws {options.draws}`; APGR with the middle 95 % of draws. Off strong: share of",
        "calls kept off the strong model at one point of loss, and the share of draws whose held-out rows",
        "lost more. Data: TIGER-AI-Lab/MMLU-Pro and WildEval/ZeroEval, both Apache-2.0.",
        "",
        "| pair | labels | split | APGR | length | prior, two rates | group mean | off, certified | broken |"
        " off, uncertified | broken |",
        "| --- " * 11 + "|",
    ]
    latency: dict[str, Any] = {}
    for case in CASES:
        found = measured(options.data, case, options.draws)
        latency = latency or found["latency_us"]
        lines.append(row(found))
        print(lines[-1], flush=True)
    lines += ["", "| characters | score p50 | score p99 |", "| --- | --- | --- |"]
    lines += [f"| {size} | {us['p50']:.0f} µs | {us['p99']:.0f} µs |" for size, us in latency.items()]
    print("\n".join(lines[-3:]))
    if options.write:
        report.write("Routing", "\n".join(lines))


if __name__ == "__main__":
    main()

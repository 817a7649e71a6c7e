"""The table of cuts in docs/failover.md: `python -m tests.e2e.cut_table --write` cuts every answer at every position.

That takes an hour or more, most of it starting killed workers again: `--step 20` tries every twentieth position, and
with `--keep FILE` a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.report import machine
from tests.e2e.cut_box import box, every, survey
from tests.e2e.cuts import ASKED, Figures
from tools.generated import between

PAGE = Path(__file__).parents[2] / "docs" / "failover.md"
BEGIN, END = "<!-- cuts: begin -->", "<!-- cuts: end -->"
# Route, whether the worker is killed, how many replicas there are, at every how many-th position it is cut: the same
# bytes are promised everywhere, but how often others are equal can be counted on a part.
WAYS = (("exact", False, 1, 1), ("exact", True, 1, 1), ("default", False, 1, 1), ("default", True, 2, 5))
HEADS = (
    "`exact: true`, connection aborted",
    "`exact: true`, worker killed",
    "by default, connection aborted",
    "by default, worker killed",
)
Found = dict[str, dict[str, Figures]]


async def measure(step: int, folder: Path, found: Found, keep: Callable[[], None]) -> None:
    """Add to `found`, by way and answer, what it lacks; `keep` is called after each."""
    for head, (route, kill, replicas, sparse) in zip(HEADS, WAYS, strict=True):
        left = [name for name in ASKED if name not in found[head]]
        if not left:
            continue
        async with box(folder / str(HEADS.index(head)), replicas) as one:
            for name in left:
                figures = found[head][name] = await survey(one, name, route, every(step * sparse), kill=kill)
                sys.stderr.write(f"{name}, {head}: {figures}\n")
                keep()


def _load(file: Path) -> Found:
    kept = json.loads(file.read_text()) if file.exists() else {}
    return {head: {name: Figures(**each) for name, each in kept.get(head, {}).items()} for head in HEADS}


def table(found: Found) -> str:
    """Markdown: one row an answer, one column a way; how many answers equal the unbroken one."""
    heads = ("answer", "tokens", *HEADS)
    lines = [f"_{machine()}; {datetime.now(UTC):%Y-%m-%d}_", "", _row(*heads), _row(*["---"] * len(heads))]
    for name in ASKED:
        ways = [found[head][name] for head in HEADS]
        lines.append(_row(name, str(ways[0].tokens), *(f"{each.equal} of {each.cuts}" for each in ways)))
    shares = []
    for head in HEADS:
        equal, cuts = sum(one.equal for one in found[head].values()), sum(one.cuts for one in found[head].values())
        shares.append(f"{equal} of {cuts}, **{(cuts - equal) / cuts:.1%} differ**")
    return "\n".join([*lines, _row("all", "", *shares)])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/failover.md")
    parser.add_argument("--keep", type=Path, help="a file for what is measured, to go on from")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = given.keep or Path(folder) / "found.json"
        found = _load(file)

        def keep() -> None:
            file.write_text(json.dumps({way: {n: asdict(f) for n, f in of.items()} for way, of in found.items()}))

        asyncio.run(measure(given.step, Path(folder), found, keep))
    made = table(found)
    if given.write:
        PAGE.write_text(between(PAGE.read_text(), BEGIN, END, made))
    else:
        sys.stdout.write(made + "\n")
    wrong = [name for head in HEADS[:2] for name, each in found[head].items() if each.equal != each.cuts]
    if wrong:
        sys.stderr.write(f"exact answers that differ: {', '.join(wrong)}\n")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())

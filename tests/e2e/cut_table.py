"""The table of cuts in docs/failover.md: `python -m tests.e2e.cut_table --write` cuts every answer at every position.

That takes an hour or two; `--step 20` tries every twentieth position.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.report import machine
from tests.e2e.cut_box import box, every, survey
from tests.e2e.cuts import ASKED, Figures

PAGE = Path(__file__).parents[2] / "docs" / "failover.md"
BEGIN, END = "<!-- cuts: begin -->", "<!-- cuts: end -->"
# Route, whether the worker is killed, and how many replicas there are.
WAYS = (("exact", False, 1), ("exact", True, 1), ("default", False, 1), ("default", True, 2))
HEADS = (
    "`exact: true`, connection aborted",
    "`exact: true`, worker killed",
    "by default, connection aborted",
    "by default, worker killed",
)
Found = Mapping[str, list[Figures]]


async def measured(step: int, folder: Path) -> dict[str, list[Figures]]:
    """For each kind of answer its figures, one for each of `WAYS`."""
    found: dict[str, list[Figures]] = {name: [] for name in ASKED}
    for number, (route, kill, replicas) in enumerate(WAYS):
        async with box(folder / str(number), replicas) as one:
            for name, figures in found.items():
                figures.append(await survey(one, name, route, every(step), kill=kill))
                sys.stderr.write(f"{name}, {HEADS[number]}: {figures[-1]}\n")
    return found


def table(found: Found) -> str:
    """Markdown: one row an answer, one column a way; how many answers equal the unbroken one."""
    lines = [
        f"_{machine()}; {datetime.now(UTC):%Y-%m-%d}_",
        "",
        _row("answer", "tokens", *HEADS),
        _row(*["---"] * (2 + len(WAYS))),
    ]
    for name, ways in found.items():
        lines.append(_row(name, str(ways[0].tokens), *(f"{each.equal} of {each.cuts}" for each in ways)))
    shares = []
    for each in zip(*found.values(), strict=True):
        equal, cuts = sum(one.equal for one in each), sum(one.cuts for one in each)
        shares.append(f"{equal} of {cuts}, **{(cuts - equal) / cuts:.1%} differ**")
    return "\n".join([*lines, _row("all", "", *shares)])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/failover.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(given.step, Path(folder)))
    made = table(found)
    if given.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}")
    else:
        sys.stdout.write(made + "\n")
    wrong = [name for name, ways in found.items() for each in ways[:2] if each.equal != each.cuts]
    if wrong:
        sys.stderr.write(f"exact answers that differ: {', '.join(wrong)}\n")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())

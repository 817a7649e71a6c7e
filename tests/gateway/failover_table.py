"""The table in docs/failover.md: `python -m tests.gateway.failover_table --write` runs the matrix and puts it there."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.gateway.failover_cells import FAULTS, THENS, Cell, cells
from tests.gateway.failover_rig import matrix
from tools.generated import between

PAGE = Path(__file__).parents[2] / "docs" / "failover.md"
BEGIN, END = "<!-- outcomes: begin -->", "<!-- outcomes: end -->"
_PARTS = (
    ("Streamed text", True, ("text",)),
    ("Streamed tool calls and JSON", True, ("tool", "json")),
    ("Whole answers: text, tool calls and JSON", False, ("text", "tool", "json")),
)


def table(outcomes: Mapping[Cell, str]) -> str:
    """Three tables in Markdown, one row a fault and one column a next target."""
    found = {(c.stream, c.kind, c.fault.name, c.then.name): outcome for c, outcome in outcomes.items()}
    made = []
    for title, stream, kinds in _PARTS:
        head = ["the target", *(then.name for then in THENS)]
        made += [f"### {title}", "", _row(head), _row(["---"] * len(head))]
        for fault in FAULTS:
            row = [fault.name]
            for then in THENS:
                classes = {kind: found[stream, kind, fault.name, then.name] for kind in kinds}
                alike = len(set(classes.values())) == 1
                row.append(classes[kinds[0]] if alike else ", ".join(f"{k}: {v}" for k, v in classes.items()))
            made.append(_row(row))
        made.append("")
    return "\n".join(made).strip()


def committed(page: str) -> str:
    """The table as the page has it."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def _row(cells_of: list[str]) -> str:
    return "| " + " | ".join(cells_of) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/failover.md")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, wrong, _ = asyncio.run(matrix(cells(), Path(folder), "openai"))
    if wrong:
        sys.stderr.write("\n".join(wrong) + "\n")
        return 1
    made = table(outcomes)
    if given.write:
        PAGE.write_text(between(PAGE.read_text(), BEGIN, END, made))
    else:
        sys.stdout.write(made + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

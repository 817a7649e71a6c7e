"""Writes the table of clients in docs/api.md from what the tests of real clients recorded.

`python -m tools.compatibility`; `--check` writes nothing, and fails where the table is out of date. To record anew:
`LUMEN_CLIENTS=1 LUMEN_CLIENTS_RECORD=1 ./install.sh test tests/clients/test_matrix.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.clients.matrix import CLIENTS, FEATURES, PARTS, TARGETS, outcomes
from tools.generated import between, put

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "api.md"
BEGIN = "<!-- what follows is made by tools/compatibility.py of tests/clients/outcomes.json -->"
END = "<!-- end of what is made -->"
_WORKS, _NOTHING = "✓", ""


def table(found: dict[str, Any]) -> str:
    """One row a feature, one column a client, as Markdown; what fails somewhere is told below."""
    rows = [["", *(f"{one.title} {found[one.name]['version']}" for one in CLIENTS)]]
    notes: list[str] = []
    part = ""
    for feature, label in FEATURES.items():
        if feature.partition(".")[0] != part:
            part = feature.partition(".")[0]
            rows.append([f"**{PARTS[part]}**", *("" for _ in CLIENTS)])
        told = [found[one.name]["results"].get(feature) for one in CLIENTS]
        rows.append([label, *(_cell(results, notes) for results in told)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " :-: |" * len(CLIENTS))
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _cell(results: dict[str, str | None] | None, notes: list[str]) -> str:
    if results is None:
        return _NOTHING
    failing = {target: why for target, why in results.items() if why is not None}
    if not failing:
        return _WORKS
    number = len(notes) + 1
    notes.append(f"{number}. " + "; ".join(f"{target}: {why}" for target, why in failing.items()))
    works = [target for target in TARGETS if target in results and target not in failing]
    return f"{', '.join(works) or '✗'} ({number})"


def written(document: str, found: dict[str, Any]) -> str:
    """The document with the table of these outcomes in it.

    Raises:
        ValueError: it has no place for one.
    """
    return between(document, BEGIN, END, table(found))


if __name__ == "__main__":
    put(DOCUMENT, written(DOCUMENT.read_text("utf-8"), outcomes()), "tools.compatibility")

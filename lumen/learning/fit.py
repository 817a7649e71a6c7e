"""The process that learns: `python -m lumen.learning.fit TASK`, where TASK is JSON. Niced, and away from requests.

It reads the labels itself, writes the scorer to a file, and prints its report as one line of JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from lumen.files import write_atomic
from lumen.ledger.labels import MOST_LABELS, SOURCES, Label, Labels

# Learning takes the square of their number.
MOST = 5_000


class Task(Struct):
    """What to learn. `ledger`: where the labels are. `aside`: judges whose labels do not count, as these name them.

    `live`: the file of the scorer in force, `out`: of the new one.
    """

    ledger: str
    route: str
    targets: list[str]
    strong: str
    limit: float
    confidence: float
    aside: list[str]
    out: str
    live: str | None = None


class Report(Struct):
    """What came of it; see `fitting.Fitted`. `strangers`: targets with labels that the route does not have."""

    labels: int
    missing: int
    refused: str
    made: bool
    figures: dict[str, object]
    withdrawn: str = ""
    strangers: list[str] = []


def gathered(store: Labels, route: str, aside: Sequence[str] = ()) -> list[Label]:
    """What there is to learn from: the newest pairs, and what people said of single answers, in no pair's place."""
    pairs = store.of(route, MOST_LABELS if aside else MOST, [source for source in SOURCES if source != "feedback"])
    used = [label for label in pairs if label.source != "judge" or label.versions not in aside]
    return used[-MOST:] + store.of(route, MOST_LABELS, ["feedback"])


def main(given: str) -> int:
    """Do one task."""
    os.nice(15)
    task = msgspec.json.decode(given, type=Task)
    from lumen.learning import fitting

    store = Labels(Path(task.ledger))
    labels = gathered(store, task.route, task.aside)
    store.close()
    live = Path(task.live).read_bytes() if task.live else None
    strangers = {name for label in labels for name in label.ok} - set(task.targets)
    known = fitting.history(labels, task.targets, task.strong)
    found = fitting.fit(known, task.targets, task.strong, task.limit, task.confidence, live)
    if found.data is not None:
        write_atomic(Path(task.out), found.data, mode=0o600)
    report = Report(
        found.labels, found.missing, found.refused, found.data is not None, found.report, found.withdrawn,
        sorted(strangers),
    )  # fmt: skip
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""`lumen usage`: what was used and what it cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli import choice
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import JSON, command, moment, print_json, say, table
from lumen_cli.sheets import COLUMNS, cells, notes, plain, print_csv
from lumen_cli.since import moment_of

if TYPE_CHECKING:
    from lumen.ledger.report import Sums

app = command()

By = Literal["key", "route", "model", "provider", "day", "outcome"]


@app.command()
def usage(
    by: By = typer.Option("model", help="What to add up by."),
    since: str = typer.Option("30d", metavar="TIME", help="How far back, such as 24h or 7d, or a date: 2026-11-01."),
    json_output: bool = JSON,
    csv_output: bool = typer.Option(False, "--csv", help="Print comma-separated values."),
) -> None:
    """What was used and what it cost, the dearest first. Also while no gateway runs.

    A gateway elsewhere (`--url`) tells it to whoever has the role viewer.
    """
    if json_output and csv_output:
        raise CliError("--json and --csv exclude each other", "choose one", code=USAGE)
    start = moment_of(since, time.time())
    named, total = _asked(by, start)
    if json_output:
        found = [{by: raw, "name": name, **plain(sums)} for raw, name, sums in named]
        print_json({"since": start, "by": by, "rows": found, "total": plain(total)})
    elif csv_output:
        print_csv((by, "name", *plain(total)), [(raw, name, *plain(sums).values()) for raw, name, sums in named])
    else:
        say(f"Since {moment(start)}")
        table((by, *COLUMNS), [*((name, *cells(sums)) for _, name, sums in named), ("total", *cells(total))])
        for line in notes(total):
            say(line)


def _asked(by: str, start: int) -> tuple[list[tuple[str, str, Sums]], Sums]:
    """Rows of a name as it is kept, as it is shown, and sums; and the sum of all."""
    from lumen.clerk import used
    from lumen.ledger.report import Sums

    paths = find_paths()
    if choice.chosen() is None:
        found = used(paths, by, start)
    else:
        found = Admin(paths.admin_socket, timeout=60).post("/admin/usage", {"by": by, "since": str(start)})
    rows = [(name, _name(by, name, found["names"]), Sums(**sums)) for name, sums in found["rows"]]
    return rows, Sums(**found["total"])


def key_names(paths: Paths) -> dict[str, str]:
    """Names of keys by id, also of revoked ones; removed ones keep their id."""
    from lumen.keys import load

    return {key.id: key.name for key in load(paths.keys_file).keys}


def _name(by: str, raw: str, keys: dict[str, str]) -> str:
    if by == "key":
        return keys.get(raw, raw) or "(no key)"
    return raw

"""`lumen invoice`: one statement of a month over all providers and this machine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

import typer

from lumen.paths import paths as find_paths
from lumen_cli.commands.usage import key_names
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import JSON, command, print_json, say, table
from lumen_cli.sheets import COLUMNS, cells, notes, plain, print_csv

if TYPE_CHECKING:
    from lumen.ledger.report import Statement, Sums

app = command()

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{padding:.3rem .6rem;text-align:right}"
    "td:first-child,th:first-child,.name{text-align:left}tr+tr{border-top:1px solid #ddd}"
    "tfoot td{font-weight:bold;border-top:2px solid #222}"
)


@app.command()
def invoice(
    month: str | None = typer.Option(None, metavar="YYYY-MM", help="A month of UTC; default: the one before this."),
    json_output: bool = JSON,
    csv_output: bool = typer.Option(False, "--csv", help="Print comma-separated values."),
    html_output: bool = typer.Option(False, "--html", help="Print a page to keep, print or send."),
) -> None:
    """A month's statement: every provider and model, this machine's own, and the keys that used them."""
    from lumen.ledger.report import reading

    if json_output + csv_output + html_output > 1:
        raise CliError("--json, --csv and --html exclude each other", "choose one", code=USAGE)
    paths, now = find_paths(), datetime.now(UTC)
    asked = month if month is not None else _before(now)
    with reading(paths.ledger_file) as ledger:
        try:
            found = ledger.statement(asked, now)
        except ValueError as error:
            raise CliError(f"--month {asked}: {error}", "write for example 2026-11", code=USAGE) from None
    names = key_names(paths)
    keys = [(names.get(raw, raw) or "(no key)", sums) for raw, sums in found.by_key]
    if json_output:
        print_json(_data(found, keys))
    elif csv_output:
        head = ("month", "provider", "model", *plain(found.total))
        print_csv(head, [(asked, i.provider, i.model, *plain(i.sums).values()) for i in found.items])
    elif html_output:
        say(page(found, keys))
    else:
        _draw(found, keys)


def _before(now: datetime) -> str:
    year, month = (now.year, now.month - 1) if now.month > 1 else (now.year - 1, 12)
    return f"{year}-{month:02d}"


def _data(found: Statement, keys: list[tuple[str, Sums]]) -> dict[str, object]:
    return {
        "month": found.month,
        "open": found.open,
        "items": [{"provider": i.provider, "model": i.model, **plain(i.sums)} for i in found.items],
        "keys": [{"name": name, **plain(sums)} for name, sums in keys],
        "total": plain(found.total),
    }


def _draw(found: Statement, keys: list[tuple[str, Sums]]) -> None:
    say(_title(found))
    say()
    rows = [(i.provider, i.model, *cells(i.sums)) for i in found.items]
    table(("provider", "model", *COLUMNS), [*rows, ("total", "", *cells(found.total))])
    say()
    table(("key", *COLUMNS), [(name, *cells(sums)) for name, sums in keys])
    for line in notes(found.total):
        say(line)


def _title(found: Statement) -> str:
    so_far = " so far; the month (UTC) is not over" if found.open else ""
    return f"Statement for {found.month}{so_far}"


def page(found: Statement, keys: list[tuple[str, Sums]]) -> str:
    """The statement as one page that needs nothing else."""
    items = [((i.provider, i.model), i.sums) for i in found.items]
    lines = "".join(f"<p>{escape(line)}</p>" for line in notes(found.total))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(_title(found))}</title>'
        f"<style>{_STYLE}</style><h1>{escape(_title(found))}</h1>"
        f"{_rows(('provider', 'model'), items, found.total)}"
        f"<h2>By key</h2>{_rows(('key',), [((name,), sums) for name, sums in keys], found.total)}{lines}</html>"
    )


def _rows(names: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], Sums]], total: Sums) -> str:
    head = "".join(f'<th class="name">{name}</th>' for name in names) + "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td class=name>{escape(name)}</td>' for name in own)}{_cells(sums)}</tr>" for own, sums in rows
    )
    span = f'<td colspan="{len(names)}">total</td>'
    foot = f"<tfoot><tr>{span}{_cells(total)}</tr></tfoot>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>"


def _cells(sums: Sums) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells(sums))

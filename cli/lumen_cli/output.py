"""What commands print: JSON for programs, tables for people. Rich is imported only to draw."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

# `json_output: bool = JSON` is the way every reading command takes --json.
JSON: bool = typer.Option(False, "--json", help="Print JSON for programs.")

# A pipe has no width: tables are not cut to fit one.
_PIPE_WIDTH = 200


def command(help: str | None = None) -> typer.Typer:
    """The `typer.Typer` of one command module: plain help, no tracebacks, no completion options."""
    return typer.Typer(
        help=help,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def say(line: str = "") -> None:
    """One plain line on standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """One line for a person, on standard error, so that it never mixes with output that programs read."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def console(*, stderr: bool = False) -> Console:
    """A Rich console of the right width; colour only on a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output. Cells are text as it is (no markup), `None` is drawn as a dash."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    console().print(drawn)


def ago(seconds: float) -> str:
    """A length of time as a person says it: `45 s`, `3 min`, `2 h 05 min`, `4 d 3 h`."""
    return lasting(seconds, "{} s", "{} min", "{} h {:02d} min", "{} d {} h")


def lasting(seconds: float, second: str, minute: str, hour: str, day: str) -> str:
    """A length of time in the form for its size; those for hours and days tell minutes and hours too."""
    whole = int(max(seconds, 0))
    if whole < 60:
        return second.format(whole)
    if whole < 3600:
        return minute.format(whole // 60)
    if whole < 86400:
        return hour.format(whole // 3600, whole % 3600 // 60)
    return day.format(whole // 86400, whole % 86400 // 3600)


def moment(unix: float | None) -> str | None:
    """A Unix time as local date and minute."""
    return None if unix is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))


def size(count: float) -> str:
    """Bytes as a person reads them, in binary units: `3.9 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"

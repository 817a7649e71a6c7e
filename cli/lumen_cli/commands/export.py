"""`lumen export`: what routes keep of requests and answers."""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote

import typer

from lumen.paths import paths as find_paths
from lumen_cli.errors import CliError
from lumen_cli.output import command, note
from lumen_cli.since import moment_of
from lumen_cli.trail import changed

app = command()

Format = Literal["jsonl", "csv"]
_COLUMNS = ("time", "request", "operation", "route", "target", "key", "outcome", "prompt_tokens", "completion_tokens",
            "asked", "answered")  # fmt: skip


@app.command()
def export(
    since: str = typer.Option("30d", metavar="TIME", help="How far back, such as 24h or 7d, or a date: 2026-11-01."),
    route: str | None = typer.Option(None, help="Only of this route."),
    format: Format = typer.Option("jsonl", help="A line of JSON for each request, or comma-separated values."),
    output: Path | None = typer.Option(None, metavar="FILE", help="Write here, for this user alone."),
) -> None:
    """Requests and answers that routes keep (`payloads` in the configuration), the oldest first."""
    start, folder = moment_of(since, time.time()), find_paths().payloads_dir
    if not folder.exists():
        raise CliError("no route has kept anything", "say `payloads:` on a route; see docs/operations")
    # Before anything is shown: nobody looks without its being noted.
    changed("payloads.export", route or "every route", since=since)
    count = 0
    with _out(output) as out:
        writer = csv.writer(out)
        if format == "csv":
            writer.writerow(_COLUMNS)
        for line, told in _kept(folder, start, route):
            count += 1
            if format == "csv":
                writer.writerow([_cell(told.get(name)) for name in _COLUMNS])
            else:
                out.write(line)
    note(f"{count} requests")


def _kept(folder: Path, start: int, route: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines and what they say, day by day."""
    first = datetime.fromtimestamp(start, UTC).date().isoformat()
    files = [file for file in folder.glob("*/*.jsonl") if file.stem >= first]
    for file in sorted(files, key=lambda file: (file.stem, file.parent.name)):
        if route is not None and unquote(file.parent.name) != route:
            continue
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                # A line that a crash cut off is none.
                told = _told(line)
                if told is not None and told.get("time", 0) >= start:
                    yield line, told


def _told(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if line.endswith("\n") and isinstance(told, dict) else None


def _cell(value: Any) -> Any:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
    # A spreadsheet would take these for formulas.
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


@contextmanager
def _out(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        yield sys.stdout
        return
    handle = os.open(path.expanduser(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
        yield out

"""`lumen logs`: the log of the gateway or of one model, followed on wish."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from lumen.paths import paths as find_paths
from lumen_cli import gateway
from lumen_cli.errors import CliError
from lumen_cli.output import JSON, command, print_json, say, table

app = command()

_POLL = 0.2
_BLOCK = 256 * 1024


@app.command()
def logs(
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on with what is written from now on."),
    model: str | None = typer.Option(None, help="The log of this model's engine, not the gateway's."),
    replica: int = typer.Option(0, min=0, help="Which replica of the model."),
    request: str | None = typer.Option(None, metavar="ID", help="All that is known of one request, tries and times."),
    lines: int = typer.Option(50, "--lines", "-n", min=0, max=100_000, help="How many lines from the end."),
    json_output: bool = JSON,
) -> None:
    """The log of the gateway or of one model; or one request put together from log and ledger."""
    if request is not None:
        _tell(request, json_output)
        return
    path = gateway.log_of(find_paths(), model, replica)
    if not path.exists():
        what = "the gateway has" if model is None else f"model {model}, replica {replica}, has"
        known = ", ".join(sorted(p.name for p in path.parent.glob("*.log"))) or "none yet"
        raise CliError(f"{what} written no log", f"logs here: {known}")
    size = path.stat().st_size
    last = gateway.tail(path, lines)
    if json_output and not follow:
        print_json({"path": str(path), "lines": last})
        return
    for line in last:
        _out(line, json_output)
    if follow:
        for line in written(path, size):
            _out(line, json_output)


def _tell(request: str, json_output: bool) -> None:
    # Imported here: it reads the ledger.
    from lumen_cli.story import COLUMNS, rows, story, summary

    found = story(request, find_paths())
    if json_output:
        print_json(asdict(found))
        return
    for line in summary(found):
        say(line)
    table(COLUMNS, rows(found))


def _out(line: str, json_output: bool) -> None:
    say(json.dumps({"line": line}, ensure_ascii=False) if json_output else line)


def written(path: Path, offset: int, pause: float = _POLL) -> Iterator[str]:
    """Lines as they are written after `offset`, without end; goes on when the file is emptied or replaced."""
    rest = b""
    log = path.open("rb")
    try:
        while True:
            log.seek(offset)
            data = log.read(_BLOCK)
            offset += len(data)
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
            if data:
                continue
            time.sleep(pause)
            try:
                now = path.stat()
            except FileNotFoundError:
                continue
            if now.st_ino != os.fstat(log.fileno()).st_ino:
                log.close()
                log, offset, rest = path.open("rb"), 0, b""
            elif now.st_size < offset:
                offset, rest = 0, b""
    finally:
        log.close()

"""`lumen backup`: all that must not be lost, in one file."""

from __future__ import annotations

from pathlib import Path

import typer

from lumen.paths import paths as find_paths
from lumen_cli.output import JSON, command, note, print_json, say, size
from lumen_cli.settings import CONFIG, config_file
from lumen_cli.trail import changed

app = command()


@app.command()
def backup(
    file: Path = typer.Argument(metavar="FILE", help="Where it goes, such as lumen.tar.gz; replaced in one step."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Back up ledger, configuration, hashes of keys, state of targets and the audit log, also while it runs."""
    from lumen.backup import backup as write

    paths, into = find_paths(), file.expanduser().absolute()
    made = write(paths, config_file(config, paths), into)
    changed("backup.write", into.name, files=list(made.files))
    if json_output:
        print_json({"file": str(into), "bytes": into.stat().st_size, "schema": made.schema, "files": made.files})
        return
    say(f"{into}: {size(into.stat().st_size)}, {', '.join(made.files)}")
    note("Keys of providers and this machine's own key are not in it; keep those apart.")

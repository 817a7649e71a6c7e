"""`lumen restore`: put a backup back, while no gateway runs."""

from __future__ import annotations

from pathlib import Path

import typer

from lumen.paths import paths as find_paths
from lumen_cli.output import JSON, command, moment, note, print_json, say
from lumen_cli.settings import CONFIG
from lumen_cli.trail import changed

app = command()


@app.command()
def restore(
    file: Path = typer.Argument(metavar="FILE", help="What `lumen backup` wrote."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Put a backup in place of what is there, which stays beside it. Refused while a gateway runs."""
    from lumen.backup import restore as read

    paths = find_paths()
    used = config.expanduser().absolute() if config is not None else paths.config_file
    found, replaced = read(paths, used, file.expanduser())
    changed("backup.restore", file.name, created=found.created, files=list(found.files))
    if json_output:
        print_json({"created": found.created, "files": list(found.files), "aside": [str(path) for path in replaced]})
        return
    say(f"Restored what Lumen {found.version} backed up on {moment(found.created)}: {', '.join(found.files)}.")
    if replaced:
        note("What was there before: " + ", ".join(path.name for path in replaced))
    note("The keys of providers are not in a backup: see `lumen provider ls`.")

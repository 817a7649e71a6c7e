"""`lumen rm`: remove a model's files."""

from __future__ import annotations

from pathlib import Path

import typer

from lumen.paths import paths as find_paths
from lumen_cli.errors import CliError
from lumen_cli.output import JSON, command, print_json, say, size
from lumen_cli.settings import CONFIG, config_file

app = command()


@app.command()
def rm(
    model: str = typer.Argument(help="A model's name or reference."),
    force: bool = typer.Option(False, "--force", "-f", help="Even if the configuration uses it."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Remove a model from this disk; a file of your own that was registered by its path is only forgotten."""
    from lumen.config.load import load, locate
    from lumen.hub.store import Store
    from lumen_cli.kept import find, users

    paths = find_paths()
    loaded = load(locate(config, config_file(config, paths)))
    kept = find(model, paths, loaded)
    if kept.manifest is None:
        raise CliError(f"{kept.reference} was not pulled, so there is nothing to remove", "`lumen ls` lists what was")
    used = sorted(users(kept.manifest, loaded))
    if used and not force:
        first = f"`lumen models rm {used[0]}` takes it out; or add --force"
        raise CliError(f"{kept.name} is used by {', '.join(used)} in the configuration", first)
    freed = Store(paths.models_dir).remove(kept.name)
    if json_output:
        print_json({"removed": kept.name, "freed": freed, "used_by": used})
    else:
        say(
            f"{kept.name} is removed: {size(freed)} freed."
            if freed
            else f"{kept.name} is forgotten; no file was deleted."
        )

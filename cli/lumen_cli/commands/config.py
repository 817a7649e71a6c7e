"""`lumen config`: check, show and locate the configuration."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.errors import CliError
from lumen_cli.output import JSON, command, note, print_json, say
from lumen_cli.settings import CONFIG, config_file

if TYPE_CHECKING:
    from lumen.config.schema import Config

app = command("Check, show and locate the configuration.")


@app.command()
def check(
    file: Path | None = typer.Argument(None, help="The file to check; default: the one in force."),
    json_output: bool = JSON,
) -> None:
    """Check a configuration file: every error with its line, and what would be missing at run time."""
    from lumen.config.load import load

    path = config_file(file, find_paths())
    if file is None and not path.exists():
        raise CliError(f"there is no configuration at {path}", "the defaults are in force; `lumen route set` makes one")
    config = load(path)
    warnings = missing(config, os.environ)
    if json_output:
        counts = {kind: len(getattr(config, kind)) for kind in ("models", "providers", "routes")}
        print_json({"path": str(path), "ok": True, **counts, "warnings": warnings})
        return
    for warning in warnings:
        note(f"warning: {warning}")
    say(f"{path} is good: {len(config.models)} models, {len(config.providers)} providers, {len(config.routes)} routes.")


@app.command()
def show(config: Path | None = CONFIG, json_output: bool = JSON) -> None:
    """Show the whole configuration with every default filled in."""
    from lumen.config.load import load, locate

    path = config_file(config, find_paths())
    data = plain(load(path if config is not None else locate(None, path)))
    if json_output:
        print_json(data)
        return
    import yaml

    say(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def path(json_output: bool = JSON) -> None:
    """Say where the configuration file is, whether it exists or not."""
    found = config_file(None, find_paths())
    if json_output:
        print_json({"path": str(found), "exists": found.exists()})
    else:
        say(str(found))


def plain(value: Any) -> Any:
    """A configuration as lists and dicts: what `asdict` makes, without tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if not hasattr(value, "__dataclass_fields__") else plain(asdict(value))


def missing(config: Config, environment: os._Environ[str] | dict[str, str]) -> list[str]:
    """What a valid configuration names that is not there: environment variables, files of models."""
    from lumen.catalogue import vendor
    from lumen.config.checks import STORED
    from lumen.hub.errors import HubError
    from lumen.hub.reference import LocalFile, parse
    from lumen_cli.vendors import unpriced, without_price

    found = []
    secrets = [(f"providers.{name}.key", vendor(name, given).key) for name, given in config.providers.items()]
    for where, reference in [*secrets, ("hub.token", config.hub.token)]:
        # A key that Lumen keeps is no variable; `lumen provider ls` tells of those.
        variable = (reference or "").removeprefix("env:") if reference not in STORED else ""
        if variable and not environment.get(variable):
            found.append(f"{where}: the environment variable {variable} is not set")
    if config.server.tls.acme is not None and find_spec("acme") is None:
        found.append("server.tls.acme: the package's extra is not installed; install lumen-serve[acme]")
    for name, model in config.models.items():
        for item in filter(None, (model.source, model.draft)):
            try:
                source = parse(item)
            except HubError as error:
                found.append(f"models.{name}: {error.message}")
                continue
            if isinstance(source, LocalFile) and not Path(source.path).expanduser().exists():
                found.append(f"models.{name}: there is no file {source.path}")
    for name, targets in unpriced(config).items():
        found += [f"routes.{name}: {without_price(target)}" for target in targets]
    return found

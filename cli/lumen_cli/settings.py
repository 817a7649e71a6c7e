"""Which configuration file a command is about, and telling a running gateway that it changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen.paths import Paths
from lumen_cli import choice
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError

if TYPE_CHECKING:
    from lumen.config.schema import Model

CONFIG: Path | None = typer.Option(
    None, "--config", metavar="PATH", help="The configuration file; default: the one in force."
)


def config_file(given: Path | None, paths: Paths, admin: Admin | None = None) -> Path:
    """The file a command is about: the one named, else the running gateway's, else the usual one.

    Raises:
        CliError: the command line is about a gateway elsewhere, whose file is not here.
    """
    if choice.chosen() is not None:
        raise CliError("this is about a file of this machine", "leave --url and LUMEN_URL out", code=USAGE)
    if given is not None:
        return given.expanduser().absolute()
    status = (admin or Admin(paths.admin_socket)).status_or_none()
    used = status.get("config") if status else None
    return Path(used) if used else paths.config_file


def declared_model(name: str, path: Path) -> Model:
    """A local model of the configuration in that file, the defaults where there is none.

    Raises:
        CliError: it declares no such model.
    """
    from difflib import get_close_matches

    from lumen.config.load import load, locate

    models = load(locate(None, path)).models
    if name in models:
        return models[name]
    near = get_close_matches(name, models, 1)
    hint = f"did you mean {near[0]!r}?" if near else "see `lumen models`; `lumen pull … --add` adds one"
    raise CliError(f"the configuration has no model {name!r}", hint)


def reload(admin: Admin, path: Path | None) -> str:
    """Have a running gateway take over what changed; what came of it, in words.

    `path`: the file that changed; a gateway that uses another one is left alone. `None`: the keys changed.

    Raises:
        CliError: the gateway refuses the new state; it goes on with the old one.
    """
    status = admin.status_or_none()
    if status is None:
        return "takes effect with the next `lumen up`"
    used = status.get("config")
    if path is not None and used and Path(used).resolve() != path.resolve():
        return f"the running gateway uses {used} and is not changed"
    try:
        admin.post("/admin/reload")
    except CliError as error:
        raise CliError(
            f"written, but the running gateway refuses it: {error.what}", "the old state stays in force; mend the file"
        ) from None
    return "in force now"

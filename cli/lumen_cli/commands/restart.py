"""`lumen restart`: the whole gateway with the options it was started with, or one model of it."""

from __future__ import annotations

import sys
from typing import Any

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli import gateway, startup
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning
from lumen_cli.output import command, say

app = command()


@app.command()
def restart(
    model: str | None = typer.Argument(None, help="Restart this model's engine alone; the gateway goes on serving."),
    timeout: float = typer.Option(90.0, min=0, help="Seconds to wait for running requests."),
) -> None:
    """Restart the gateway, or one model of it."""
    paths = find_paths()
    admin = Admin(paths.admin_socket)
    if model is not None:
        _model(model, admin, paths)
        return
    recorded = gateway.record(paths)
    if recorded is None:
        raise NotRunning
    # Imported here: `lumen restart MODEL` needs neither.
    from lumen_cli.commands import down, up

    if not down.stop(paths, timeout):
        raise CliError("the gateway that was recorded is gone", "start one with `lumen up`")
    up.run(gateway.Options.of(recorded.argv), detach=True)


def _model(name: str, admin: Admin, paths: Paths) -> None:
    """Restart one model's engine and wait until new processes answer in place of all the old ones."""
    old = startup.processes(admin.status(), name)
    admin.post("/admin/restart", {"model": name})

    def renewed(status: dict[str, Any]) -> bool:
        now = startup.processes(status, name)
        ready = any(model["name"] == name and model.get("ready") for model in status.get("models", []))
        return ready and bool(now) and not now & old

    startup.follow(admin, paths, startup.view(sys.stderr.isatty()), until=renewed)
    say(f"Model {name} has restarted.")

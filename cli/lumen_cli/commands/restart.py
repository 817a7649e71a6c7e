"""`lumen restart`: the whole gateway with the options it was started with, or one model of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli import gateway, startup
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning
from lumen_cli.output import command, note, say

app = command()


@app.command()
def restart(
    model: str | None = typer.Argument(None, help="Restart this model's engine alone; the gateway goes on serving."),
    timeout: float = typer.Option(90.0, min=0, help="Seconds to wait for running requests."),
    cold: bool = typer.Option(False, "--cold", help="Stop first and start then; requests in between are refused."),
) -> None:
    """Restart the gateway without losing a request, or one model of it."""
    paths = find_paths()
    admin = Admin(paths.admin_socket)
    if model is not None:
        _model(model, admin, paths)
        return
    if admin.afar:
        raise CliError("a gateway elsewhere is restarted there", "name a model to restart that alone")
    recorded = gateway.record(paths)
    if recorded is None:
        raise NotRunning
    # Imported here: `lumen restart MODEL` needs neither.
    from lumen_cli.commands import down, up

    if not cold and paths.handover_socket.exists() and gateway.Process(recorded.pid, recorded.started).alive():
        _over(recorded, admin, paths, timeout)
        return
    if not down.stop(paths, timeout):
        raise CliError("the gateway that was recorded is gone", "start one with `lumen up`")
    up.run(gateway.Options.of(recorded.argv), detach=True)


def _over(recorded: gateway.Record, admin: Admin, paths: Paths, timeout: float) -> None:
    """Start a new gateway beside the old one, which hands over to it and ends.

    Raises:
        CliError: the new one does not start; the old one goes on serving.
    """
    before = gateway.Process(recorded.pid, recorded.started)
    child, since = gateway.spawn(replace(gateway.Options.of(recorded.argv), succeed=True), paths, detached=True)

    def serves(status: dict[str, Any]) -> bool:
        return bool(status["pid"] == child.pid and status.get("ready"))

    try:
        status = startup.follow(admin, paths, startup.view(sys.stderr.isatty()), child, since, serves)
    except BaseException:
        if child.poll() is None and before.alive():
            child.terminate()
        raise
    say(f"Lumen {status['version']} serves at {status['url']} (process {status['pid']}).")
    if not before.wait(timeout):
        note("The gateway before is still finishing its requests; it ends by itself.")


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

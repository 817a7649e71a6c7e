"""`lumen down`: stop the gateway."""

from __future__ import annotations

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli import gateway
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning
from lumen_cli.output import command, note, say

app = command()


@app.command()
def down(
    timeout: float = typer.Option(90.0, min=0, help="Seconds to wait for running requests before it is killed."),
) -> None:
    """Stop the gateway after the requests in flight have ended.

    New requests are refused meanwhile. Engines end with it, what was learnt of targets and models is kept, and a second
    `lumen down` ends it at once.
    """
    paths = find_paths()
    say("Lumen has stopped." if stop(paths, timeout) else "Lumen is not running.")


def stop(paths: Paths, timeout: float) -> bool:
    """Ask the running gateway to drain and end, and see to it that it does. `False` where none runs.

    Raises:
        CliError: it is still there after everything.
    """
    admin = Admin(paths.admin_socket, timeout=5.0)
    process = _process(paths, admin)
    if process is None:
        return False
    try:
        waiting = int(admin.post("/admin/stop").get("in_flight") or 0)
        if waiting:
            note(f"waiting for {waiting} requests in flight")
        ended = process.wait(timeout)
    except NotRunning:
        # Alive without an admin socket: too early, too late, or stuck.
        ended = process.wait(1.0)
    except CliError:
        ended = False
    if not ended and not process.force():
        raise CliError("the gateway does not end", "see `lumen logs`")
    return True


def _process(paths: Paths, admin: Admin) -> gateway.Process | None:
    """The running gateway's process: as it says itself, else as it was recorded."""
    try:
        status = admin.status_or_none()
    except CliError:
        status = None
    recorded = gateway.record(paths)
    if status is not None:
        process = gateway.Process(int(status["pid"]), float(status["started"]))
    elif recorded is not None:
        process = gateway.Process(recorded.pid, recorded.started)
    else:
        return None
    return process if process.alive() else None

"""`lumen wake`: a local model is loaded before it is asked for."""

from __future__ import annotations

import sys
from typing import Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli import startup
from lumen_cli.client import Admin
from lumen_cli.output import command, say

app = command()


@app.command()
def wake(
    model: str = typer.Argument(help="The local model."),
    wait: bool = typer.Option(True, help="Wait until it answers."),
) -> None:
    """Load a local model, or wake it."""
    paths = find_paths()
    admin = Admin(paths.admin_socket)
    admin.post("/admin/wake", {"model": model})
    if not wait:
        say(f"Model {model} wakes.")
        return

    def resident(status: dict[str, Any]) -> bool:
        return any(
            one["name"] == model and (one.get("standing") or {}).get("residency") == "resident"
            for one in status.get("models", [])
        )

    startup.follow(admin, paths, startup.view(sys.stderr.isatty()), until=resident)
    say(f"Model {model} is ready.")

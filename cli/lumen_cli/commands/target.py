"""`lumen target`: how targets stand, and taking one out or back by hand."""

from __future__ import annotations

import typer

from lumen.paths import paths as find_paths
from lumen_cli import standing
from lumen_cli.client import Admin
from lumen_cli.output import JSON, command, print_json, say, table

app = command("List, eject, drain and restore targets.")


@app.command()
def ls(json_output: bool = JSON) -> None:
    """How every target asked so far stands."""
    found = Admin(find_paths().admin_socket).get("/admin/targets")
    if json_output:
        print_json(found)
        return
    columns = ("target", "state", "for", "why", "in flight", "share", "errors", "first token p50/p95")
    table(columns, standing.targets(found))


@app.command()
def eject(target: str = typer.Argument(help="Such as openai/gpt-4.1-mini or a local model's name.")) -> None:
    """Ask a target only where nothing else is left, until it is restored."""
    _steer(target, "eject", "is out until `lumen target restore`")


@app.command()
def drain(target: str = typer.Argument(help="The target's name.")) -> None:
    """Never ask a target again until it is restored; what is under way goes on."""
    _steer(target, "drain", "gets no further requests until `lumen target restore`")


@app.command()
def restore(target: str = typer.Argument(help="The target's name.")) -> None:
    """Take a target back as if nothing had been."""
    _steer(target, "restore", "is asked again")


@app.command()
def failovers(json_output: bool = JSON) -> None:
    """The last answers that another target went on with."""
    found = Admin(find_paths().admin_socket).get("/admin/failovers")
    if json_output:
        print_json(found)
        return
    table(("when", "from", "to", "rung", "at", "seam", "why"), standing.failovers(found))


def _steer(target: str, action: str, said: str) -> None:
    Admin(find_paths().admin_socket).post("/admin/targets", {"target": target, "action": action})
    say(f"{target} {said}.")

"""`lumen whoami`: who one is at a gateway elsewhere."""

from __future__ import annotations

import typer

from lumen.owner import owner
from lumen.paths import paths as find_paths
from lumen_cli import choice, contexts
from lumen_cli.client import Admin
from lumen_cli.output import JSON, command, moment, print_json, say, table

app = command()


@app.command()
def whoami(
    url: str | None = typer.Option(None, help="The gateway; default: all you are signed on at."),
    json_output: bool = JSON,
) -> None:
    """Who you are at a gateway elsewhere, and what you may do there. On this machine you may do everything."""
    where = url or choice.chosen()
    if where is not None:
        choice.choose(where)
        told = Admin(find_paths().admin_socket).get("/admin/whoami")
        if json_output:
            print_json(told)
        else:
            until = moment(told.get("expires"))
            say(f"{told['name']}, role {told['role']}" + (f", until {until}" if until else ""))
        return
    found = contexts.contexts(find_paths().config_dir).all()
    if json_output:
        print_json([{"gateway": one.url, "issuer": one.issuer, "expires": one.expires} for one in found.values()])
    elif found:
        table(("gateway", "issuer"), [(one.url, one.issuer or "a key") for one in found.values()])
    else:
        say(f"{owner()} on this machine, role admin; signed on nowhere else")

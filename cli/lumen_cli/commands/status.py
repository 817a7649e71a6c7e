"""`lumen status`: what runs."""

from __future__ import annotations

from typing import Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli import standing
from lumen_cli.client import Admin
from lumen_cli.errors import FAILED, NotRunning
from lumen_cli.output import JSON, ago, command, note, print_json, say, size, table
from lumen_cli.startup import phase

app = command()


@app.command()
def status(json_output: bool = JSON) -> None:
    """What runs: models, replicas, requests.

    Each model with its replicas and what they are at, the requests under way and served, and the routes. It ends with
    status 1 where no gateway runs.
    """
    found = Admin(find_paths().admin_socket).status_or_none()
    if found is None:
        if json_output:
            print_json({"running": False})
            raise typer.Exit(FAILED)
        raise NotRunning
    if json_output:
        print_json({"running": True, **found})
    else:
        _draw(found)


def _draw(found: dict[str, Any]) -> None:
    state = "draining" if found.get("draining") else "ready" if found.get("ready") else "starting"
    say(f"Lumen {found['version']} is {state} at {found['url']} (process {found['pid']})")
    profile, requests = found.get("profile") or {}, found.get("requests") or {}
    say(f"up {ago(found['uptime_s'])}, profile {profile.get('name')}, {size(found.get('rss_bytes') or 0)} resident")
    say(
        f"requests: {requests.get('in_flight', 0)} in flight, {requests.get('total', 0)} served, "
        f"{requests.get('errors', 0)} failed"
    )
    say()
    table(("model", "replica", "state", "doing", "pid", "restarts", "in flight"), _rows(found))
    if found.get("routes"):
        say()
        say("routes: " + ", ".join(found["routes"]))
    standing.draw(found)
    if found.get("notice"):
        note(str(found["notice"]))


def _rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for model in found.get("models", []):
        replicas = model.get("replicas") or []
        if not replicas:
            resting = (model.get("standing") or {}).get("resting")
            doing = "until it is asked for" if resting else phase(model)[0]
            rows.append((model["name"], None, "off", doing, None, None, None))
        for replica in replicas:
            numbers = (replica.get(key) for key in ("pid", "restarts", "in_flight"))
            rows.append((model["name"], replica["index"], replica["state"], _doing(replica), *numbers))
    return rows


def _doing(replica: dict[str, Any]) -> str | None:
    """What is not said by the state alone: why it is in it, or which phase of a start it is in."""
    if replica.get("why"):
        return str(replica["why"])
    if replica["state"] == "waiting":
        return "for memory"
    if replica["state"] != "starting" or not replica.get("phase"):
        return None
    pct = replica.get("pct")
    return str(replica["phase"]) if pct is None else f"{replica['phase']} {pct:.0f} %"

"""`lumen route learn`: a route's scorer learnt anew from its labels, certified, replayed, versioned."""

from __future__ import annotations

from typing import Any

import typer

from lumen_cli import trials
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import JSON, moment, note, print_json, say, table


def learn(
    route: str = trials.ROUTE,
    dry_run: bool = typer.Option(False, "--dry-run", help="Learn and replay, but put nothing in force."),
    rollback: bool = typer.Option(False, "--rollback", help="Go back to the version before, or to --version."),
    version: int = typer.Option(0, min=0, help="The version to go back to."),
    versions: bool = typer.Option(False, "--versions", help="List what was learnt so far."),
    json_output: bool = JSON,
) -> None:
    """Learn from the labels of shadows, checkers and feedback which requests another target answers as well."""
    if sum((dry_run, rollback, versions)) > 1 or (version and not rollback):
        raise CliError("these options exclude each other", "see `lumen route learn --help`", code=USAGE)
    if versions:
        told = trials.ask("learn", route)
    elif rollback:
        told = trials.do("learn", "rollback", route, version=version)
    else:
        note(f"learning from the labels of {route} …")
        told = trials.do("learn", "learn", route, trials.LEARNING, dry=dry_run)
    if json_output:
        print_json(told)
    elif versions:
        _list(told)
    elif rollback:
        back = told["version"]
        say(f"{route} is back at version {back}." if back else f"{route} is as before anything was learnt.")
    else:
        _show(told)


def _list(told: dict[str, Any]) -> None:
    labels = ", ".join(f"{count} by {source}" for source, count in told["labels"].items())
    say(f"Labels: {labels or 'none yet'}")
    table(
        ("version", "learnt", "from", ""),
        [
            (one["version"], moment(one["at"]), one["note"], "in force" if one["live"] else "")
            for one in told["versions"]
        ],
    )


def _show(told: dict[str, Any]) -> None:
    for name in told["strangers"]:
        say(f"Labels of {name} do not count: it is no target of {told['route']}; see `lumen route set --target`.")
    if told["missing"]:
        say(f"{told['labels']} labels: {told['missing']} more are needed. Nothing is changed.")
        return
    figures = told["figures"]
    say(f"Learnt from {told['labels']} labels, against {figures['strong']}.")
    for name, found in figures["certified"].items():
        if found is not None:
            say(
                f"{name}: {trials.percent(found['share'])} of the requests may go there; that loses at most "
                f"{100 * found['bound']:.2f} points ({found['why']})."
            )
    replay = figures["replay"]
    say(
        f"Replayed on the newest {figures['replayed_on']} labels: {trials.percent(replay['off_strong'])} would have "
        f"left {figures['strong']}, a loss of {100 * replay['loss']:.2f} points."
    )
    if told["refused"]:
        say(f"Not put in force: {told['refused']}.")
        if told.get("withdrawn") is not None:
            say(f"Version {told['withdrawn']} is withdrawn, everything stays with {figures['strong']}: {told['why']}.")
    else:
        say("A dry run: nothing is changed." if told["dry"] else f"Version {told['version']} is in force.")

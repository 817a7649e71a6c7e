"""The real default model of this machine's profile, offered while only the demonstration model serves."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import Paths
from lumen_cli import startup
from lumen_cli.client import Admin
from lumen_cli.output import note, size
from lumen_cli.settings import reload

if TYPE_CHECKING:
    from lumen.config.schema import Hub
    from lumen.engines.base import ModelFiles
    from lumen.hub.progress import Progress as Told

_REACH = 2.0


def default_model(status: dict[str, Any]) -> str | None:
    """What the profile in force would rather serve; `None` where it names nothing."""
    from lumen.hardware import load_profiles

    name = (status.get("profile") or {}).get("name")
    found = next((profile for profile in load_profiles() if profile.name == name), None)
    return found.default_model if found is not None else None


def offer(status: dict[str, Any], paths: Paths, admin: Admin, *, yes: bool, config: Path) -> None:
    """Offer, fetch and serve the profile's model, where only the demonstration model serves and a hub answers.

    `yes`: take it without asking. Without a terminal nobody is asked, and a line says how to have it.

    Raises:
        LumenError: the model cannot be fetched; the demonstration model goes on serving.
        CliError: the gateway cannot serve it.
    """
    only_tiny = bool(status.get("models")) and all(model.get("tiny") for model in status["models"])
    reference = default_model(status) if only_tiny else None
    if reference is None:
        return
    from lumen.config.load import load
    from lumen.hub import reachable

    hub = load(config if config.exists() else None).hub
    if not asyncio.run(reachable(hub.endpoint, _REACH)):
        if yes:
            note(f"No hub answers now; to serve {reference} later, run `lumen up --yes` again.")
        return
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        note(f"To serve {reference} instead, which suits this machine, run `lumen up --yes`.")
        return
    if not yes and not _wanted(reference):
        return
    files = fetch(reference, paths, hub)
    _serve(files.name, reference, paths, admin, config)


def _wanted(reference: str) -> bool:
    try:
        return typer.confirm(f"Fetch {reference}, which suits this machine, and serve it instead?", default=True)
    except typer.Abort:
        # Ctrl-C here means what it means everywhere else in `lumen up`.
        raise KeyboardInterrupt from None


def fetch(reference: str, paths: Paths, hub: Hub) -> ModelFiles:
    """Fetch a model with a bar on a terminal.

    Raises:
        LumenError: what is wrong and what to do.
    """
    from lumen.hub import fetch as get

    if not sys.stderr.isatty():
        note(f"fetching {reference}")
        return asyncio.run(get(reference, paths, hub, tenths()))
    with _Bar(reference) as told:
        return asyncio.run(get(reference, paths, hub, told))


def tenths() -> Told:
    """Progress as a line for every tenth: for pipes and service logs."""
    said = 0

    def told(done: int, total: int | None, rate: float) -> None:
        nonlocal said
        tenth = 10 * done // total if total else 0
        if tenth > said:
            said = tenth
            note(f"  {tenth * 10} %, {size(done)} of {size(total or done)}, {size(rate)}/s")

    return told


class _Bar:
    """A download's bar and the function that moves it."""

    def __init__(self, reference: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from lumen_cli.output import console

        self._bar = Progress(
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=console(stderr=True),
        )
        self._task = self._bar.add_task("", total=None, name=reference)

    def __enter__(self) -> Told:
        self._bar.start()
        return self._told

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _told(self, done: int, total: int | None, rate: float) -> None:
        of = f" of {size(total)}" if total is not None else ""
        self._bar.update(self._task, completed=done, total=total, description=f"{size(done)}{of}, {size(rate)}/s")


def _serve(name: str, reference: str, paths: Paths, admin: Admin, config: Path) -> None:
    """Add the model to the configuration, have the gateway take it over, and wait until it answers."""
    from lumen.config.edit import edit, set_model

    edit(config, lambda text: set_model(text, name, {"source": reference}))
    note(f"{name} added to {config}: {reload(admin, config)}")
    startup.follow(admin, paths, startup.view(sys.stderr.isatty()))
    note(f"{name} is ready; ask for it by that name.")

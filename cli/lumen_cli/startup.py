"""Following a start: what the gateway's status says, drawn as it changes, until every model answers or one cannot."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from lumen.paths import Paths
from lumen_cli import gateway
from lumen_cli.client import Admin
from lumen_cli.errors import CliError
from lumen_cli.output import note

_POLL = 0.1
# A start in which nothing at all changes for so long is stuck; each phase has a limit of its own below this.
_STILL = 900.0
# Crashes of one replica before `up` gives it up; the gateway itself would go on trying.
_CRASHES = 3


class View(Protocol):
    """Where progress is shown."""

    def show(self, status: dict[str, Any]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """One line on standard error for every change: for pipes and service logs."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def show(self, status: dict[str, Any]) -> None:
        for line in (profile_line(status), *(model_line(model) for model in status.get("models", []))):
            if line and line not in self._said:
                self._said.add(line)
                note(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class Bars:
    """A bar for each model on a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        from lumen_cli.output import console

        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console(stderr=True),
        )
        self._tasks: dict[str, Any] = {}
        self._profile = False

    def show(self, status: dict[str, Any]) -> None:
        line = profile_line(status)
        if line and not self._profile:
            self._profile = True
            self._progress.console.print(line, markup=False)
        for model in status.get("models", []):
            name = model["name"]
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task("", total=None, name=name)
            doing, pct = phase(model)
            done = bool(model.get("ready"))
            total = 100.0 if done or pct is not None else None
            self._progress.update(
                self._tasks[name], description=doing, total=total, completed=100.0 if done else (pct or 0.0)
            )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def view(terminal: bool) -> View:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if terminal else Lines()


def profile_line(status: dict[str, Any]) -> str:
    profile = status.get("profile") or {}
    return f"hardware profile {profile['name']}: {profile.get('why') or 'chosen'}" if profile.get("name") else ""


def model_line(model: dict[str, Any]) -> str:
    return f"model {model['name']}: {phase(model)[0]}"


def phase(model: dict[str, Any]) -> tuple[str, float | None]:
    """What a model is doing, in words, and how far it is (0 to 100, where that is known)."""
    if model.get("ready"):
        return "ready", 100.0
    if model.get("missing"):
        return str(model["missing"]), None
    replicas = model.get("replicas", [])
    if not replicas:
        return "waiting", None
    slowest = min(replicas, key=lambda r: (r["state"] == "ready", r.get("pct") or 0.0))
    if slowest["state"] == "crashed":
        return f"crashed, starting again ({slowest.get('why') or 'no reason given'})", None
    doing = slowest.get("phase") if slowest["state"] == "starting" else None
    return str(doing or slowest["state"]), slowest.get("pct")


def settled(status: dict[str, Any]) -> bool:
    """Whether every model that can start has answered. One whose file is not on this disk cannot."""
    models = status.get("models", [])
    if not models:
        return bool(status.get("ready"))
    return all(model.get("ready") or model.get("missing") for model in models)


def failing(status: dict[str, Any]) -> tuple[str, int, str] | None:
    """(model, replica, why) of the first replica that crashes again and again without ever being ready."""
    for model in status.get("models", []):
        for replica in model.get("replicas", []):
            tries = int(replica.get("restarts") or 0) + 1
            if not model.get("ready") and replica["state"] == "crashed" and tries >= _CRASHES:
                return model["name"], int(replica.get("index") or 0), replica.get("why") or "no reason given"
    return None


def processes(status: dict[str, Any], name: str) -> set[int]:
    """The processes of one model's replicas."""
    replicas = [r for model in status.get("models", []) if model["name"] == name for r in model.get("replicas", [])]
    return {replica["pid"] for replica in replicas if replica.get("pid")}


def follow(
    admin: Admin,
    paths: Paths,
    view: View,
    child: subprocess.Popen[bytes] | None = None,
    since: int = 0,
    until: Callable[[dict[str, Any]], bool] = settled,
) -> dict[str, Any]:
    """Wait until the gateway is ready, or what `until` says of its status; the status then.

    `child`: the gateway, where this process started it; `since`: where its log begins.

    Raises:
        CliError: it ended, one of its models cannot start, or nothing changes any more.
    """
    seen: Any = None
    deadline = time.monotonic() + _STILL
    with view:
        while True:
            status = admin.status_or_none()
            if status is not None:
                view.show(status)
                # One that only just listens has no models yet and seems ready; its record comes after them.
                if until(status) and (admin.afar or paths.gateway_file.exists()):
                    return status
                _give_up_on(status, paths)
            if child is not None and child.poll() is not None:
                raise gateway.failure(paths, since, child.returncode)
            if child is None and status is None:
                raise CliError("the gateway has ended", "see `lumen logs`")
            doing = [phase(model) for model in (status or {}).get("models", [])]
            if doing != seen:
                seen, deadline = doing, time.monotonic() + _STILL
            if time.monotonic() >= deadline:
                raise CliError(f"the start has not moved for {_STILL / 60:g} minutes", "see `lumen logs`")
            time.sleep(_POLL)


def _give_up_on(status: dict[str, Any], paths: Paths) -> None:
    found = failing(status)
    if found is not None:
        name, index, why = found
        lines = [line for line in gateway.tail(gateway.log_of(paths, name, index), 6) if line.strip()]
        raise CliError(
            f"model {name} does not start: {why}", f"see `lumen logs --model {name}` and `lumen doctor`", lines=lines
        )

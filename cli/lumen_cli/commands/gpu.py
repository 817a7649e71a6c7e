"""`lumen gpu`: the memories of this machine, who holds them, and which models may use which cards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import JSON, command, note, print_json, say, size, table
from lumen_cli.settings import CONFIG, config_file, declared_model, reload
from lumen_cli.trail import changed

if TYPE_CHECKING:
    from lumen.config.schema import Model
    from lumen.hardware.readings import Reading

app = command("Show cards and memory, and assign models to cards.")

ANY = "any"


@app.callback(invoke_without_command=True)
def gpu(ctx: typer.Context, json_output: bool = JSON) -> None:
    """Show every card and the machine's memory: how full, how busy, whose; and what a running gateway gave to whom."""
    if ctx.invoked_subcommand is not None:
        return
    from lumen.hardware.readings import Monitor

    paths = find_paths()
    monitor = Monitor()
    readings = monitor.read()
    monitor.close()
    ledger = _ledger(Admin(paths.admin_socket, timeout=3.0))
    devices = [_plain(reading, paths, ledger) for reading in readings]
    notes = [{"what": one.what, "mend": one.mend} for one in monitor.notes]
    if json_output:
        holdings = ledger.get("holdings") if ledger else None
        print_json({"driver": monitor.driver, "notes": notes, "devices": devices, "holdings": holdings})
        return
    _draw(devices, given=ledger is not None)
    for one in notes:
        say(f"{one['what']}" + (f": {one['mend']}" if one["mend"] else ""))


@app.command()
def assign(
    model: str = typer.Argument(help="A model of the configuration."),
    gpus: str = typer.Option(..., metavar="NUMBERS", help="Cards as `lumen gpu` numbers them, such as 0,1; or `any`."),
    replicas: int | None = typer.Option(None, min=1, max=256, help="So many processes, the cards divided among them."),
    reserve: bool | None = typer.Option(
        None, "--reserve/--no-reserve", help="Keep the memory for it while it is away."
    ),
    config: Path | None = CONFIG,
) -> None:
    """Say which cards a model may use; a running gateway takes it over without a restart."""
    from lumen.config.edit import cut, edit, put

    admin = Admin(find_paths().admin_socket)
    path = config_file(config, find_paths(), admin)
    found = declared_model(model, path)
    numbers = _numbers(gpus)
    change: dict[str, Any] = {"gpus": numbers or None, "replicas": replicas, "reserve": reserve}
    if numbers and found.engine == "llamacpp" and not _layers(found, path):
        change["gpu_layers"] = -1
    removed = [key for key, value in change.items() if value is None and key == "gpus" and found.gpus]

    def rewrite(text: str) -> str:
        for key, value in change.items():
            if value is not None:
                text = put(text, ("models", model, key), value)
        for key in removed:
            text = cut(text, ("models", model, key))
        return text

    edit(path, rewrite)
    changed("model.assign", model, gpus=gpus, replicas=replicas, reserve=reserve)
    where = f"card{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else "any card with room"
    say(f"{model} may use {where}: {reload(admin, path)}.")
    if "gpu_layers" in change:
        note("All of its layers go there (gpu_layers: -1).")


def _ledger(admin: Admin) -> dict[str, Any] | None:
    """What a running gateway has given to whom; `None` where none runs, or one that does not tell."""
    if admin.status_or_none() is None:
        return None
    try:
        found: dict[str, Any] = admin.get("/admin/memory")
    except CliError:
        return None
    return found


def _plain(reading: Reading, paths: Paths, ledger: dict[str, Any] | None) -> dict[str, Any]:
    device = reading.device
    given = next((one for one in (ledger or {}).get("devices", []) if one["id"] == device.id), None)
    return {
        "id": device.id,
        "kind": device.kind,
        "index": device.index,
        "name": device.name,
        "total": device.total,
        "used": reading.used,
        "free": reading.free,
        "busy": reading.busy,
        "celsius": reading.celsius,
        "holders": _holders(reading, paths),
        "ledger": given,
    }


def _holders(reading: Reading, paths: Paths) -> list[dict[str, Any]] | None:
    """Who holds it: on a card everybody its driver tells of, of the machine's memory our own replicas."""
    from lumen.hardware import processes

    if reading.device.kind == "ram":
        mark = hashlib.sha256(os.fsencode(paths.run_dir.resolve())).hexdigest()[:16]
        ours = processes.replicas(mark)
        return [
            {"pid": min(pids), "name": None, "replica": replica, "bytes": processes.memory(pids).held}
            for replica, pids in sorted(ours.items())
        ]
    if reading.processes is None:
        return None
    return [
        {"pid": pid, "name": processes.name_of(pid), "replica": processes.replica_of(pid), "bytes": count}
        for pid, count in sorted(reading.processes, key=lambda one: -(one[1] or 0))
    ]


def _draw(devices: list[dict[str, Any]], *, given: bool) -> None:
    columns = ["device", "name", "used", "of", *(["given", "free to give"] if given else []), "load", "temp", "who"]
    rows = []
    for one in devices:
        ledger = one["ledger"] or {}
        more = [size(ledger["charged"]), size(max(0, ledger["free"]))] if ledger else [None, None]
        busy = None if one["busy"] is None else f"{one['busy']} %"
        warm = None if one["celsius"] is None else f"{one['celsius']} °C"
        middle = more if given else []
        rows.append(
            (one["id"], one["name"], size(one["used"]), size(one["total"]), *middle, busy, warm, _who(one["holders"]))
        )
    table(columns, rows)


def _who(holders: list[dict[str, Any]] | None) -> str | None:
    if holders is None:
        return "the driver does not tell"
    if not holders:
        return None
    lines = []
    for one in holders:
        named = one["replica"] or f"{one['name']} ({one['pid']})"
        lines.append(named if one["bytes"] is None else f"{named} {size(one['bytes'])}")
    return "\n".join(lines)


def _numbers(text: str) -> list[int]:
    """The cards that are meant, all of them there."""
    if text.strip().lower() == ANY:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise CliError(
            f"--gpus {text}: expected numbers of cards, each once", "write --gpus 0,1 or --gpus any", code=USAGE
        )
    from lumen.hardware.readings import Monitor

    monitor = Monitor()
    monitor.close()
    here = sorted(device.index for device in monitor.devices if device.kind != "ram")
    missing = [part for part in parts if int(part) not in here]
    if missing:
        has = f"this machine has {', '.join(map(str, here))}" if here else "no card can be seen on this machine"
        why = monitor.notes[0].what if monitor.notes else "`lumen doctor` tells more"
        raise CliError(f"there is no card {', '.join(missing)}: {has}", why)
    return [int(part) for part in parts]


def _layers(model: Model, path: Path) -> int | None:
    """Its layers on cards, as the profile of this machine has it where the configuration says nothing."""
    from lumen.config.load import load, locate
    from lumen.hardware import detect, load_profiles, match, pick

    named, machine, profiles = load(locate(None, path)).profile, detect(), load_profiles()
    profile, _ = pick(named, machine, profiles) if named else match(machine, profiles)
    return profile.apply(model).gpu_layers

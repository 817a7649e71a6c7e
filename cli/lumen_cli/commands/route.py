"""`lumen route`: routes in the configuration file, checked before they are written, in force without a restart."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import CliError
from lumen_cli.limits import shown, written
from lumen_cli.output import JSON, command, print_json, say, table
from lumen_cli.route_evaluate import evaluate
from lumen_cli.route_explain import explain
from lumen_cli.route_learn import learn
from lumen_cli.route_saved import saved
from lumen_cli.route_set import RATE, set_
from lumen_cli.settings import CONFIG, config_file, reload
from lumen_cli.trail import changed

if TYPE_CHECKING:
    from lumen.config.schema import Route

# What is shown only where it is not as usual.
_BESIDES = ("max_splices", "hedge", "content_filter", "exact", "reserve", "priority", "share_prefixes", "retention",
            "learn")  # fmt: skip

# Policies that ask nobody how good a target is.
_PLAIN = ("weighted", "ordered", "cheapest", "fastest", "sticky")

app = command("Set, list, show and remove routes.")
app.command()(evaluate)
app.command()(explain)
app.command()(learn)
app.command()(saved)
app.command(name="set")(set_)


@app.command()
def rm(name: str = typer.Argument(help="The route to remove."), config: Path | None = CONFIG) -> None:
    """Remove a route; requests for it are answered with 404 from then on. What was spent on it stays in the ledger."""
    from lumen.config.edit import edit, remove_route

    admin = Admin(find_paths().admin_socket)
    path = config_file(config, find_paths(), admin)
    if name not in _declared(path):
        raise _unknown(name, list(_declared(path)))
    edit(path, lambda text: remove_route(text, name))
    changed("route.rm", name)
    say(f"Route {name} is removed from {path}: {reload(admin, path)}.")


@app.command()
def ls(config: Path | None = CONFIG, json_output: bool = JSON) -> None:
    """List the routes in force, or those of the file where no gateway runs."""
    routes = _routes(config)
    if json_output:
        print_json(routes)
        return
    table(
        ("route", "targets", "policy", "defaults"),
        [(route["name"], _targets(route), route["policy"], _settings(route["defaults"])) for route in routes],
    )


@app.command()
def show(
    name: str = typer.Argument(help="The route to show."), config: Path | None = CONFIG, json_output: bool = JSON
) -> None:
    """Show one route with its targets, defaults and limits."""
    routes = _routes(config)
    found = next((route for route in routes if route["name"] == name), None)
    if found is None:
        raise _unknown(name, [route["name"] for route in routes])
    if json_output:
        print_json(found)
        return
    say(f"route     {found['name']}")
    say(f"policy    {found['policy']}")
    if _promises(found):
        say(f"quality   {_promise(found)}")
    for one in found.get("rules") or ():
        say(f"rule      {one['when']} -> {one['target']}")
    say(f"defaults  {_settings(found['defaults']) or 'none'}")
    if found.get("cover"):
        say("cover     the next target answers while a local one starts or wakes")
    say(f"limits    {_settings(_limits(found)) or 'the usual ones'}")
    if besides := _besides(found):
        say(f"besides   {besides}")
    say(f"budget    {shown(found.get('budget') or {}) or 'none'}")
    if found.get("ttft"):
        say(f"ttft      {_ttft(found)}")
    say()
    share = sum(target["weight"] for target in found["targets"]) or 1.0
    rows = [(t["model"], f"{t['weight']:g}", f"{100 * t['weight'] / share:.0f} %") for t in found["targets"]]
    table(("target", "weight", "share"), rows)


def _routes(config: Path | None) -> list[dict[str, Any]]:
    """The routes of a running gateway; of the file where one is named or nothing runs."""
    paths = find_paths()
    admin = Admin(paths.admin_socket)
    if config is None and admin.status_or_none() is not None:
        found: list[dict[str, Any]] = admin.get("/admin/routes")
        return found
    declared = _declared(config_file(config, paths, admin), named=config is not None)
    return [{"name": name, "declared": True, **_plain(route)} for name, route in declared.items()]


def _plain(route: Route) -> dict[str, Any]:
    plain = {**asdict(route), "targets": [asdict(target) for target in route.targets]}
    return {**plain, "budget": written(plain["budget"])}


def _declared(path: Path, *, named: bool = False) -> dict[str, Route]:
    from lumen.config.load import load, locate

    return dict(load(path if named else locate(None, path)).routes)


def _unknown(name: str, names: list[str]) -> CliError:
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1)
    return CliError(f"there is no route {name!r}", f"did you mean {near[0]!r}?" if near else "see `lumen route ls`")


def _targets(route: dict[str, Any]) -> str:
    if len(route["targets"]) == 1:
        return str(route["targets"][0]["model"])
    return ", ".join(f"{target['model']}={target['weight']:g}" for target in route["targets"])


def _promises(found: dict[str, Any]) -> bool:
    """Whether its policy goes by what targets are worth, or it says so itself."""
    first = found["targets"][0]["model"]
    return found["policy"] not in _PLAIN or found.get("strong") not in (None, first) or found.get("quality") is not None


def _promise(found: dict[str, Any]) -> str:
    from lumen.config.units import format_share

    strong = found.get("strong") or found["targets"][0]["model"]
    told = f"against {strong}: at most {format_share(found.get('max_loss', 0.01))} lost in all"
    told += f", at {format_share(found.get('confidence', 0.95))} confidence"
    return told + (f"; {format_share(found['quality'])} kept each" if found.get("quality") is not None else "")


def _limits(found: dict[str, Any]) -> dict[str, str]:
    from lumen.config.units import format_duration

    given = {key: value for key, value in (found.get("timeouts") or {}).items() if value is not None}
    return {key: f"{value:g} tokens/s" if key == RATE else format_duration(value) for key, value in given.items()}


def _besides(found: dict[str, Any]) -> str:
    """What of `_BESIDES` this route has otherwise than a route that says nothing of it."""
    from lumen.config.schema import Route

    usual = {field.name: field.default for field in fields(Route)}
    other = {name: found[name] for name in _BESIDES if name in found and found[name] != usual[name]}
    return ", ".join(name if value is True else f"{name}={value}" for name, value in other.items())


def _ttft(found: dict[str, Any]) -> str:
    from lumen.config.units import format_duration

    late = ", ".join(found.get("late") or ())
    return format_duration(found["ttft"]) + (f"; left out now: {late}" if late else "")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())

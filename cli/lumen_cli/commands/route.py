"""`lumen route`: routes in the configuration file, checked before they are written, in force without a restart."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.limits import (
    CREDIT,
    DAILY,
    MAX_REQUEST,
    MONTHLY,
    NONE,
    PER_MINUTE,
    checked,
    count,
    share,
    shown,
    written,
)
from lumen_cli.output import JSON, command, print_json, say, table
from lumen_cli.route_evaluate import evaluate
from lumen_cli.route_explain import explain
from lumen_cli.route_learn import learn
from lumen_cli.settings import CONFIG, config_file, reload
from lumen_cli.trail import changed

if TYPE_CHECKING:
    from lumen.config.schema import Route

# The one limit that is no time, but tokens a second.
_RATE = "min_rate"

app = command("Set, list, show and remove routes.")
app.command()(evaluate)
app.command()(explain)
app.command()(learn)


@app.command(name="set")
def set_(
    name: str = typer.Argument(help="The model name that clients will ask for."),
    target: list[str] | None = typer.Option(None, metavar="MODEL[=WEIGHT]", help="A local model or provider/model."),
    policy: str | None = typer.Option(
        None,
        help="How a target is chosen: weighted (default), ordered, cheapest, fastest, quality, sticky, auto, mine.py.",
    ),
    strong: str | None = typer.Option(None, metavar="MODEL", help="What the others are measured against."),
    quality: str | None = typer.Option(
        None, metavar="SHARE", help="What a target must be expected to keep of its quality, such as 0.98."
    ),
    max_loss: str | None = typer.Option(None, metavar="SHARE", help="What all requests together may lose, such as 1%."),
    confidence: str | None = typer.Option(None, metavar="SHARE", help="How sure that must be, such as 95%."),
    rule: list[str] | None = typer.Option(
        None, metavar="'WHEN -> MODEL'", help="Goes before the policy; all rules anew. `none` removes them."
    ),
    default: list[str] | None = typer.Option(None, metavar="PARAM=VALUE", help="Used where a request gives none."),
    timeout: list[str] | None = typer.Option(None, metavar="LIMIT=TIME", help="Such as first_token=5s or min_rate=2."),
    max_cost: str | None = typer.Option(
        None, metavar="PRICE", help="Leaves out targets with a dearer token, such as 0.60/1M; `none` lifts it."
    ),
    max_request: str | None = MAX_REQUEST,
    per_minute: str | None = PER_MINUTE,
    daily: str | None = DAILY,
    monthly: str | None = MONTHLY,
    credit: str | None = CREDIT,
    ttft: str | None = typer.Option(
        None, metavar="TIME", help="Targets that usually take longer to the first token are left out, such as 300ms."
    ),
    max_output: str | None = typer.Option(
        None, metavar="TOKENS", help="The longest answer where a request names no limit and money is limited."
    ),
    cover: bool | None = typer.Option(
        None, "--cover/--no-cover", help="While a local target starts or wakes, the next target answers."
    ),
    config: Path | None = CONFIG,
) -> None:
    """Make a route or change what is given of it; `PARAM=` with no value removes that one."""
    from lumen.config.edit import edit, set_route

    change = _said(target, policy, cover, default, timeout)
    change |= _money(
        {"max_cost": max_cost, "max_request": max_request, "per_minute": per_minute, "daily": daily,
         "monthly": monthly, "credit": credit}, ttft, max_output
    )  # fmt: skip
    change |= _wanted(strong, {"quality": quality, "max_loss": max_loss, "confidence": confidence}, rule)
    if not change:
        raise CliError("nothing to set", f"write `lumen route set {name} --target MODEL`", code=USAGE)
    admin = Admin(find_paths().admin_socket)
    path = config_file(config, find_paths(), admin)
    edit(path, lambda text: set_route(text, name, change))
    changed("route.set", name, **change)
    say(f"Route {name} is written to {path}: {reload(admin, path)}.")


def _said(
    target: list[str] | None, policy: str | None, cover: bool | None, default: list[str] | None,
    timeout: list[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """What of these was given, as the configuration has it."""
    change: dict[str, Any] = {}
    if target:
        change["targets"] = [_target(text) for text in target]
    if policy is not None:
        change["policy"] = policy
    if cover is not None:
        change["cover"] = cover
    if default:
        change["defaults"] = {key: _value(text) for key, text in map(_pair, default)}
    if timeout:
        limits = {key: _value(text) if key == _RATE else text for key, text in map(_pair, timeout)}
        change["timeouts"] = {key: value or None for key, value in limits.items()}
    return change


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
    if found.get("strong") or found["policy"] == "auto":
        say(f"quality   {_promise(found)}")
    for one in found.get("rules") or ():
        say(f"rule      {one['when']} -> {one['target']}")
    say(f"defaults  {_settings(found['defaults']) or 'none'}")
    if found.get("cover"):
        say("cover     the next target answers while a local one starts or wakes")
    say(f"limits    {_settings(_limits(found)) or 'the usual ones'}")
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


def _target(text: str) -> str | dict[str, Any]:
    model, equals, weight = text.rpartition("=")
    if not equals:
        return text
    try:
        share = float(weight)
    except ValueError:
        share = math.nan
    if not math.isfinite(share):
        raise CliError(f"--target {text}: the weight must be a number", "write MODEL=3", code=USAGE)
    return {"model": model, "weight": int(share) if share.is_integer() else share}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise CliError(f"{text!r} is not NAME=VALUE", "write for example temperature=0.7", code=USAGE)
    return key.strip(), value.strip()


def _value(text: str) -> Any:
    """JSON where it is JSON (numbers, true, lists), text otherwise; nothing at all means: remove it."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _money(budget: dict[str, str | None], ttft: str | None, max_output: str | None) -> dict[str, Any]:
    """What the flags of money and its objectives change; `None` removes."""
    from lumen.config.units import parse_duration
    from lumen.core.money import parse_amount, parse_rate

    change: dict[str, Any] = {}
    limits: dict[str, str | None] = {}
    for name, text in budget.items():
        if text is not None:
            lifted = text.strip().lower() == NONE
            if not lifted:
                checked(name, text, parse_rate if name == "max_cost" else parse_amount)
            limits[name] = None if lifted else text.strip()
    if limits:
        change["budget"] = limits
    if ttft is not None:
        lifted = ttft.strip().lower() == NONE
        change["ttft"] = None if lifted or not checked("ttft", ttft, lambda t: int(parse_duration(t) * 1000)) else ttft
    if max_output is not None:
        change["max_output"] = None if max_output.strip().lower() == NONE else checked("max_output", max_output, count)
    return change


def _wanted(strong: str | None, shares: dict[str, str | None], rules: list[str] | None) -> dict[str, Any]:
    """What the flags of quality and the rules change."""
    change: dict[str, Any] = {}
    if strong is not None:
        change["strong"] = None if strong.strip().lower() == NONE else strong
    for name, text in shares.items():
        if text is not None:
            change[name] = None if name == "quality" and text.strip().lower() == NONE else share(name, text)
    if rules:
        change["rules"] = [] if [text.strip().lower() for text in rules] == [NONE] else [_rule(text) for text in rules]
    return change


def _rule(text: str) -> dict[str, str]:
    when, arrow, target = text.rpartition("->")
    if not arrow or not when.strip() or not target.strip():
        raise CliError(f"--rule {text}: no rule", "write --rule \"tags.app == 'batch' -> MODEL\"", code=USAGE)
    return {"when": when.strip(), "target": target.strip()}


def _targets(route: dict[str, Any]) -> str:
    if len(route["targets"]) == 1:
        return str(route["targets"][0]["model"])
    return ", ".join(f"{target['model']}={target['weight']:g}" for target in route["targets"])


def _promise(found: dict[str, Any]) -> str:
    from lumen.config.units import format_share

    strong = found.get("strong") or found["targets"][0]["model"]
    told = f"against {strong}: at most {format_share(found.get('max_loss', 0.01))} lost in all"
    told += f", at {format_share(found.get('confidence', 0.95))} confidence"
    return told + (f"; {format_share(found['quality'])} kept each" if found.get("quality") is not None else "")


def _limits(found: dict[str, Any]) -> dict[str, str]:
    from lumen.config.units import format_duration

    given = {key: value for key, value in (found.get("timeouts") or {}).items() if value is not None}
    return {key: f"{value:g} tokens/s" if key == _RATE else format_duration(value) for key, value in given.items()}


def _ttft(found: dict[str, Any]) -> str:
    from lumen.config.units import format_duration

    late = ", ".join(found.get("late") or ())
    return format_duration(found["ttft"]) + (f"; left out now: {late}" if late else "")


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())

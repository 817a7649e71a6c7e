"""`lumen route set`: a route made or changed in the configuration file, every byte beside it as it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
    pair,
    share,
    value,
)
from lumen_cli.output import note, say
from lumen_cli.settings import CONFIG, config_file, reload
from lumen_cli.trail import changed

# The one limit that is no time, but tokens a second.
RATE = "min_rate"

_NAME: str = typer.Argument(help="The model name that clients will ask for.")
_TARGET: list[str] | None = typer.Option(None, metavar="MODEL[=WEIGHT]", help="A local model or provider/model.")
_POLICY: str | None = typer.Option(
    None, help="How a target is chosen: weighted (default), ordered, cheapest, fastest, quality, sticky, auto, mine.py."
)
_STRONG: str | None = typer.Option(None, metavar="MODEL", help="What the others are measured against.")
_QUALITY: str | None = typer.Option(
    None, metavar="SHARE", help="What a target must be expected to keep of its quality, such as 0.98."
)
_MAX_LOSS: str | None = typer.Option(None, metavar="SHARE", help="What all requests together may lose, such as 1%.")
_CONFIDENCE: str | None = typer.Option(None, metavar="SHARE", help="How sure that must be, such as 95%.")
_LEARN: str | None = typer.Option(None, metavar="WHEN", help="`nightly` learns anew from the labels; `off` (default).")
_RULE: list[str] | None = typer.Option(
    None, metavar="'WHEN -> MODEL'", help="Goes before the policy; all rules anew. `none` removes them."
)
_DEFAULT: list[str] | None = typer.Option(None, metavar="PARAM=VALUE", help="Used where a request gives none.")
_TIMEOUT: list[str] | None = typer.Option(None, metavar="LIMIT=TIME", help="Such as first_token=5s or min_rate=2.")
_MAX_SPLICES: int | None = typer.Option(
    None,
    min=0,
    max=16,
    metavar="COUNT",
    help="How often one streamed answer may go on elsewhere after a failure; default 2.",
)
_HEDGE: str | None = typer.Option(
    None, metavar="WHEN", help="`p95` asks a second target where a first token is late; `off` (default)."
)
_CONTENT_FILTER: str | None = typer.Option(
    None, metavar="HOW", help="A provider's refusal is passed on (`stop`, default) or the next target asked (`next`)."
)
_EXACT: bool | None = typer.Option(
    None, "--exact/--no-exact", help="A resumed answer of a local model is the unbroken one to the byte; costs speed."
)
_MAX_COST: str | None = typer.Option(
    None, metavar="PRICE", help="Leaves out targets with a dearer token, such as 0.60/1M; `none` lifts it."
)
_TTFT: str | None = typer.Option(
    None, metavar="TIME", help="Targets that usually take longer to the first token are left out, such as 300ms."
)
_MAX_OUTPUT: str | None = typer.Option(
    None, metavar="TOKENS", help="The longest answer where a request names no limit and money is limited."
)
_COVER: bool | None = typer.Option(
    None, "--cover/--no-cover", help="While a local target starts or wakes, the next target answers."
)
_RESERVE: bool | None = typer.Option(
    None, "--reserve/--no-reserve", help="Keep the memory of its local models free for them while they are away."
)
_PRIORITY: str | None = typer.Option(
    None, metavar="CLASS", help="Whose turn it is at a local model: low, normal (default) or high."
)
_SHARE_PREFIXES: bool | None = typer.Option(
    None,
    "--share-prefixes/--no-share-prefixes",
    help="Keys share what local models computed of a prompt's beginning; for keys of one owner.",
)
_RETENTION: str | None = typer.Option(
    None, metavar="HOW", help="`none` keeps nothing of what its requests say; `usual` (default)."
)


def set_(
    name: str = _NAME,
    target: list[str] | None = _TARGET,
    policy: str | None = _POLICY,
    strong: str | None = _STRONG,
    quality: str | None = _QUALITY,
    max_loss: str | None = _MAX_LOSS,
    confidence: str | None = _CONFIDENCE,
    learn: str | None = _LEARN,
    rule: list[str] | None = _RULE,
    default: list[str] | None = _DEFAULT,
    timeout: list[str] | None = _TIMEOUT,
    max_splices: int | None = _MAX_SPLICES,
    hedge: str | None = _HEDGE,
    content_filter: str | None = _CONTENT_FILTER,
    exact: bool | None = _EXACT,
    max_cost: str | None = _MAX_COST,
    max_request: str | None = MAX_REQUEST,
    per_minute: str | None = PER_MINUTE,
    daily: str | None = DAILY,
    monthly: str | None = MONTHLY,
    credit: str | None = CREDIT,
    ttft: str | None = _TTFT,
    max_output: str | None = _MAX_OUTPUT,
    cover: bool | None = _COVER,
    reserve: bool | None = _RESERVE,
    priority: str | None = _PRIORITY,
    share_prefixes: bool | None = _SHARE_PREFIXES,
    retention: str | None = _RETENTION,
    config: Path | None = CONFIG,
) -> None:
    """Make a route or change what is given of it; `PARAM=` with no value removes that one."""
    plain = {"policy": policy, "learn": learn, "max_splices": max_splices, "hedge": hedge,
             "content_filter": content_filter, "exact": exact, "cover": cover, "reserve": reserve,
             "priority": priority, "share_prefixes": share_prefixes, "retention": retention}  # fmt: skip
    change: dict[str, Any] = {"targets": [_target(text) for text in target]} if target else {}
    change |= {key: value for key, value in plain.items() if value is not None} | _pairs(default, timeout)
    change |= _money(
        {"max_cost": max_cost, "max_request": max_request, "per_minute": per_minute, "daily": daily,
         "monthly": monthly, "credit": credit}, ttft, max_output
    )  # fmt: skip
    change |= _wanted(strong, {"quality": quality, "max_loss": max_loss, "confidence": confidence}, rule)
    _write(name, change, config)


_PROMISED = ("quality", "max_loss", "confidence")


def _write(name: str, change: dict[str, Any], config: Path | None) -> None:
    """Have the file say so, and a running gateway take it over."""
    from lumen.config.edit import edit, set_route
    from lumen_cli.vendors import unpriced, without_price

    if not change:
        raise CliError("nothing to set", f"write `lumen route set {name} --target MODEL`", code=USAGE)
    paths = find_paths()
    admin = Admin(paths.admin_socket)
    path = config_file(config, paths, admin)
    new = edit(path, lambda text: set_route(text, name, change))
    changed("route.set", name, **change)
    say(f"Route {name} is written to {path}: {reload(admin, path)}.")
    policy = new.routes[name].policy
    if not (policy == "auto" or policy.endswith(".py")) and (promised := [one for one in _PROMISED if one in change]):
        note(f"{', '.join(promised)}: only the policy auto goes by that, and {name} has {policy}; see --policy.")
    for target in unpriced(new).get(name, ()):
        note(f"{without_price(target)}.")


def _pairs(default: list[str] | None, timeout: list[str] | None) -> dict[str, Any]:
    """What of these was given, as the configuration has it; `None` removes."""
    change: dict[str, Any] = {}
    if default:
        change["defaults"] = {key: value(text) for key, text in map(pair, default)}
    if timeout:
        limits = {key: value(text) if key == RATE else text for key, text in map(pair, timeout)}
        change["timeouts"] = {key: value or None for key, value in limits.items()}
    return change


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

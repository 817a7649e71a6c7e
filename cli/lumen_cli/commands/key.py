"""`lumen key`: who may call. A key is shown once, when it is added; only its hash is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli import choice
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.limits import (
    CONCURRENCY,
    CREDIT,
    DAILY,
    MAX_REQUEST,
    MONTHLY,
    NONE,
    PER_MINUTE,
    RPM,
    TPM,
    given,
    shown,
    written,
)
from lumen_cli.output import JSON, command, moment, note, print_json, say, table
from lumen_cli.settings import reload
from lumen_cli.trail import changed

if TYPE_CHECKING:
    from lumen.config.schema import Priority
    from lumen.core.roles import Role
    from lumen.keys import Key

app = command("Add, change, list and revoke keys. At a gateway elsewhere (`--url`) whoever has the role admin may.")

_PRIORITY = typer.Option(
    None, metavar="CLASS", help="Whose turn it is at a local model: low, normal or high; `none`: as the route says."
)
_MODELS: list[str] | None = typer.Option(None, help="Only models of this name; * and ? as in file names; repeat.")
_ROUTES: list[str] | None = typer.Option(None, help="Only routes of this name; repeat.")
_RESERVE = typer.Option(
    None, "--reserve/--no-reserve", help="Keep the memory of the local models it is limited to free for them."
)
# What is changed at a gateway elsewhere is changed by that itself.
_THERE = "in force now"


@app.command()
def add(
    name: str = typer.Argument(help="What the key is for; your own words."),
    models: list[str] | None = _MODELS,
    routes: list[str] | None = _ROUTES,
    expires: str | None = typer.Option(None, metavar="DURATION", help="Ends after this long, such as 30d or 12h."),
    role: str | None = typer.Option(
        None, help="For operating Lumen from afar, not for inference: viewer, operator or admin."
    ),
    credit: str | None = CREDIT,
    daily: str | None = DAILY,
    monthly: str | None = MONTHLY,
    per_minute: str | None = PER_MINUTE,
    max_request: str | None = MAX_REQUEST,
    rpm: str | None = RPM,
    tpm: str | None = TPM,
    concurrency: str | None = CONCURRENCY,
    priority: str | None = _PRIORITY,
    reserve: bool | None = _RESERVE,
    retention: bool = typer.Option(
        True, "--retention/--no-retention", help="Whether anything of what its requests say may be kept."
    ),
    json_output: bool = JSON,
) -> None:
    """Add a key and show it, this once."""
    checked = _check(name, role, asks=bool(models or routes))
    if reserve and not (models or routes):
        raise CliError("--reserve needs to know of which models", "add --models or --routes", code=USAGE)
    limits = given({"credit": credit, "daily": daily, "monthly": monthly, "per_minute": per_minute,
                    "max_request": max_request, "rpm": rpm, "tpm": tpm, "concurrency": concurrency})  # fmt: skip
    wanted = {"models": models or [], "routes": routes or [], "lasts": _lasts(expires), "role": checked,
              "retains": retention, "priority": _priority(priority), "reserve": bool(reserve),
              "limits": limits}  # fmt: skip
    made, force = (_add_here if choice.chosen() is None else _add_afar)(name, wanted)
    if json_output:
        print_json(
            {
                "id": made["id"],
                "name": name,
                "key": made["key"],
                "expires": made["expires"],
                "role": role,
                "retention": "usual" if retention else "none",
                "priority": wanted["priority"],
                "reserve": wanted["reserve"],
                "limits": written(limits),
                "reload": force,
            }
        )
        return
    say(made["key"])
    note(f"Key {made['id']} for {name!r}: {force}. It is shown this once; keep it now.")


def _add_here(name: str, wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The key that was made, and from when on it is in force."""
    from lumen.keys import Limits, mint, update

    now = time.time()
    key, secret = mint(
        name, models=wanted["models"], routes=wanted["routes"],
        expires=None if wanted["lasts"] is None else now + wanted["lasts"], now=now,
        limits=Limits(**wanted["limits"]), role=wanted["role"], retains=wanted["retains"],
        priority=wanted["priority"], reserve=wanted["reserve"],
    )  # fmt: skip
    paths = find_paths()
    update(paths.keys_file, lambda ring: ring.with_key(key))
    told = {name: wanted[name] or None for name in ("models", "routes", "role", "priority", "reserve")}
    changed("key.add", key.id, name=name, **told, lasts=wanted["lasts"], retains=wanted["retains"])
    return {"id": key.id, "key": secret, "expires": key.expires}, _tell_gateway(paths)


def _add_afar(name: str, wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
    made = _afar("/admin/keys/add", name=name, options=json.dumps(wanted))
    return made, _THERE


def _afar(path: str, **body: str) -> Any:
    return Admin(find_paths().admin_socket).post(path, body)


def _check(name: str, role: str | None, *, asks: bool) -> Role | None:
    """The role; refuses what cannot be a key. `asks`: it names models or routes."""
    from lumen.clerk import LONGEST_NAME, usable_name
    from lumen.core.roles import ROLES

    found = next((known for known in ROLES if known == role), None)
    if role is not None and found is None:
        raise CliError(f"there is no role {role!r}", f"write {', '.join(ROLES)}", code=USAGE)
    if role is not None and asks:
        raise CliError("a key with a role asks no model", "leave --models and --routes out", code=USAGE)
    if not usable_name(name):
        raise CliError(f"a name has 1 to {LONGEST_NAME} visible characters", "choose another", code=USAGE)
    return found


@app.command(name="set")
def set_(
    name: str = typer.Argument(help="The key's name or id."),
    models: list[str] | None = _MODELS,
    routes: list[str] | None = _ROUTES,
    expires: str | None = typer.Option(None, metavar="DURATION", help="Ends so long from now, such as 30d or 12h."),
    credit: str | None = CREDIT,
    daily: str | None = DAILY,
    monthly: str | None = MONTHLY,
    per_minute: str | None = PER_MINUTE,
    max_request: str | None = MAX_REQUEST,
    rpm: str | None = RPM,
    tpm: str | None = TPM,
    concurrency: str | None = CONCURRENCY,
    priority: str | None = _PRIORITY,
    reserve: bool | None = _RESERVE,
    retention: bool | None = typer.Option(
        None, "--retention/--no-retention", help="Whether anything of what its requests say may be kept."
    ),
) -> None:
    """Change a key; what is not given stays, `none` lifts a limit. What was spent still counts."""
    change = given({"credit": credit, "daily": daily, "monthly": monthly, "per_minute": per_minute,
                    "max_request": max_request, "rpm": rpm, "tpm": tpm, "concurrency": concurrency})  # fmt: skip
    asked: dict[str, Any] = {"limits": change} if change else {}
    asked |= {word: [] if _lifted(patterns) else patterns
              for word, patterns in (("models", models), ("routes", routes)) if patterns}  # fmt: skip
    if expires is not None:
        asked["lasts"] = None if _lifted([expires]) else _lasts(expires)
    if priority is not None:
        asked["priority"] = _priority(priority)
    asked |= {word: flag for word, flag in (("reserve", reserve), ("retains", retention)) if flag is not None}
    if not asked:
        raise CliError("nothing to set", f"write `lumen key set {name} --credit 5usd`", code=USAGE)
    if choice.chosen() is None:
        key, force = _set_here(name, asked)
    else:
        key, force = _afar("/admin/keys/set", name=name, options=json.dumps(asked)), _THERE
    say(f"Key {name!r} {_told(key)}: {force}.")


def _lifted(texts: list[str]) -> bool:
    return [text.strip().lower() for text in texts] == [NONE]


def _told(key: dict[str, Any]) -> str:
    """What a key is held to, in words."""
    limits, until = shown(key["limits"]), moment(key["expires"])
    told = f"is limited to {limits}" if limits else "has no limits"
    told += f", asks only {', '.join((*key['models'], *key['routes']))}" if key["models"] or key["routes"] else ""
    told += f", ends {until}" if until else ""
    told += f" and goes by {key['priority']} priority" if key["priority"] else ""
    told += ", the memory of its models kept free" if key["reserve"] else ""
    return told if key["retains"] else f"{told}, nothing of its requests kept"


def _set_here(name: str, asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The key as it is now, and from when on it is."""
    from lumen.clerk import changed_key
    from lumen.keys import update

    paths = find_paths()
    key = update(paths.keys_file, lambda ring: changed_key(ring, name, asked)).in_use(name)
    changed("key.set", name, **asked.get("limits", {}), **{word: asked[word] for word in asked if word != "limits"})
    return asdict(key), _tell_gateway(paths)


@app.command()
def ls(json_output: bool = JSON) -> None:
    """List the keys; what they are was shown when they were added."""
    now = time.time()
    keys = _keys()
    states = ["revoked" if key.revoked else "active" if key.active(now) else "expired" for key in keys]
    if json_output:
        print_json(
            [
                {
                    "id": key.id,
                    "name": key.name,
                    "state": state,
                    "created": key.created,
                    "expires": key.expires,
                    "revoked": key.revoked,
                    "models": list(key.models),
                    "routes": list(key.routes),
                    "role": key.role,
                    "priority": key.priority,
                    "reserve": key.reserve,
                    "limits": written(asdict(key.limits)),
                }
                for key, state in zip(keys, states, strict=True)
            ]
        )
        return
    table(
        ("id", "name", "role", "state", "created", "expires", "models", "routes", "priority", "memory", "limits"),
        [
            (
                key.id,
                key.name,
                key.role or "inference",
                state,
                moment(key.created),
                moment(key.expires) or "never",
                ", ".join(key.models) or ("none" if key.routes or key.role else "all"),
                ", ".join(key.routes) or ("none" if key.models or key.role else "all"),
                key.priority or "the route's",
                "reserved" if key.reserve else "shared",
                shown(asdict(key.limits)) or "none",
            )
            for key, state in zip(keys, states, strict=True)
        ],
    )


@app.command()
def revoke(name: str = typer.Argument(help="The key's name or id.")) -> None:
    """Revoke a key; the next request with it is refused."""
    if choice.chosen() is None:
        from lumen.keys import update

        paths = find_paths()
        update(paths.keys_file, lambda ring: ring.revoke(name, time.time()))
        changed("key.revoke", name)
        force = _tell_gateway(paths)
    else:
        _afar("/admin/keys/revoke", name=name)
        force = _THERE
    say(f"Key {name!r} is revoked: {force}.")


def _keys() -> Sequence[Key]:
    """The keys of this machine, or of the gateway that was chosen, whose hashes stay there."""
    from lumen.keys import Key, Limits, load

    paths = find_paths()
    if choice.chosen() is None:
        ring = load(paths.keys_file)
        # A gateway elsewhere writes down itself who looked.
        changed("key.ls", "every key")
        return ring.keys
    found = Admin(paths.admin_socket).post("/admin/keys")
    return [Key(**{**one, "hash": "", "limits": Limits(**one["limits"])}) for one in found]


def _priority(text: str | None) -> Priority | None:
    from lumen.config.schema import PRIORITIES

    if text is None or text.strip().lower() == NONE:
        return None
    found = next((known for known in PRIORITIES if known == text.strip().lower()), None)
    if found is None:
        raise CliError(f"--priority {text}: there is no such class", f"write {', '.join(PRIORITIES)}", code=USAGE)
    return found


def _tell_gateway(paths: Paths) -> str:
    return reload(Admin(paths.admin_socket), None)


def _lasts(expires: str | None) -> float | None:
    """Seconds until a key ends."""
    from lumen.config.units import parse_duration

    if expires is None:
        return None
    try:
        seconds = parse_duration(expires)
    except ValueError as error:
        raise CliError(f"--expires: {error}", "write 30d, 12h or 90m", code=USAGE) from None
    if seconds <= 0:
        raise CliError("--expires: the key would end at once", "write 30d, 12h or 90m", code=USAGE)
    return seconds

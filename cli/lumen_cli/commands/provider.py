"""`lumen provider`: remote vendors and servers by address, their keys, and what they can really do."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli import trail
from lumen_cli.client import Admin
from lumen_cli.errors import FAILED, USAGE, CliError
from lumen_cli.output import JSON, command, note, print_json, say, table
from lumen_cli.provider_price import price
from lumen_cli.settings import CONFIG, config_file, reload

if TYPE_CHECKING:
    from lumen.catalogue import Vendor
    from lumen.config.presets import Preset
    from lumen.config.schema import Config, Provider
    from lumen.secrets import Secret, Store
    from lumen_cli.trial import Probing

app = command("Add, list, test and remove providers and their keys.")

_LONGEST_LINE = 16 * 1024
_PROBING_COSTS = "0.05usd"
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


@app.command()
def add(
    name: str = typer.Argument(help="What its models are addressed by: NAME/model."),
    preset: str | None = typer.Option(None, help="What is known of the vendor; default: the preset called NAME."),
    base_url: str | None = typer.Option(None, help="Where it listens, such as https://api.example.com/v1."),
    dialect: str | None = typer.Option(None, help="What it speaks: openai (default), anthropic, gemini."),
    key: str | None = typer.Option(None, metavar="env:NAME", help="Take the key from there; default: ask for it."),
    no_key: bool = typer.Option(False, "--no-key", help="It asks for no key."),
    store: str = typer.Option("auto", help="Where a key that is typed or piped in is kept: keyring or file."),
    value: list[str] | None = typer.Option(None, "--set", metavar="NAME=VALUE", help="What a preset's address lacks."),
    can: list[str] | None = typer.Option(None, metavar="FIELD=VALUE", help="What it can do, such as prefill=native."),
    config: Path | None = CONFIG,
) -> None:
    """Add a provider or change it. Its key is typed, or piped in on standard input, and never shown again."""
    from lumen.config.edit import edit, set_provider
    from lumen.config.load import parse
    from lumen.secrets import vault
    from lumen_cli.vendors import all_vendors, config_of

    if store not in ("auto", "keyring", "file"):
        raise CliError(f"--store {store}: there is no such place", "write keyring or file", code=USAGE)
    admin = Admin(find_paths().admin_socket)
    path = config_file(config, find_paths(), admin)
    before = config_of(path if path.exists() else None).providers.get(name)
    known = _preset(name, preset or (before.preset if before else None), base_url)
    given = {"preset": preset, "base_url": _address(known, base_url, value or [], before), "dialect": dialect}
    change: dict[str, Any] = {field: item for field, item in given.items() if item is not None}
    if can:
        change["capabilities"] = dict(map(_ability, can))
    address = change.get("base_url") or (before.base_url if before else None) or (known.base_url if known else "")
    reference, secret = None, None
    if key is not None or no_key or not (before and change and _same_place(name, before, address)):
        reference, secret = _key(known, name, key, no_key, address)
        change["key"] = _place(store) if secret is not None else reference
    keys = vault(find_paths())

    def changed(text: str) -> str:
        new = set_provider(text, name, change)
        found = all_vendors(parse(new, str(path)))[name]
        if secret is not None:
            # Kept before the file names it, and only where the file will be valid.
            place: Store = "keyring" if change["key"] == "keyring" else "file"
            keys.keep(name, found.base_url, secret, place)
        return new

    written = edit(path, changed)
    if can:
        # What is said now counts more than what was found out before.
        _forget(name)
    trail.changed("provider.add", name, **{field: value for field, value in change.items() if field != "headers"})
    if "key" in change and secret is None:
        keys.remove(name)
    say(f"Provider {name} is written to {path}: {reload(admin, path)}.")
    _tell_key(all_vendors(written)[name])


@app.command()
def ls(config: Path | None = CONFIG, json_output: bool = JSON) -> None:
    """List the providers, and whether their keys are there."""
    from lumen_cli.vendors import all_vendors, config_of, described

    rows = [described(vendor) for vendor in all_vendors(config_of(config)).values()]
    if json_output:
        print_json(rows)
        return
    table(
        ("name", "vendor", "address", "key", "state"),
        [(row["name"], row["title"], row["base_url"], row["key"], row["missing"] or "ready") for row in rows],
    )
    if not rows:
        note("No provider is configured: see `lumen provider presets`, then `lumen provider add NAME`.")


@app.command()
def show(
    name: str = typer.Argument(help="The provider to show."), config: Path | None = CONFIG, json_output: bool = JSON
) -> None:
    """Show one provider: address, dialect, where its key is, what it can do."""
    from lumen_cli.vendors import abilities, config_of, described, find_vendor

    row = described(find_vendor(name, config_of(config)))
    if json_output:
        print_json(row)
        return
    say(f"name      {row['name']}")
    say(f"vendor    {row['title']}" + (f" (preset {row['preset']})" if row["preset"] else ""))
    say(f"address   {row['base_url']}")
    say(f"dialect   {row['dialect']}")
    say(f"key       {row['key']}: {row['missing'] or 'there'}" if row["key"] else "key       none")
    say(f"can       {abilities(row['capabilities'])}")
    for pattern, said in row["models"].items():
        say(f"          {pattern}: {abilities(said)}")
    for model, said in row["probed"].items():
        say(f"found     {model}: {abilities(said)}")
    for line in row["notes"]:
        say(f"note      {line}")
    if row["docs"]:
        say(f"docs      {row['docs']}")


app.command()(price)


@app.command()
def rm(name: str = typer.Argument(help="The provider to remove."), config: Path | None = CONFIG) -> None:
    """Remove a provider, and its key where Lumen keeps it."""
    from lumen.config.edit import edit, remove_provider
    from lumen.secrets import vault
    from lumen_cli.vendors import config_of, find_vendor

    admin = Admin(find_paths().admin_socket)
    path = config_file(config, find_paths(), admin)
    loaded = config_of(config)
    find_vendor(name, loaded)
    used = _routes_of(name, loaded)
    if used:
        raise CliError(
            f"the provider {name} serves the routes {', '.join(used)}", "change those with `lumen route set`"
        )
    edit(path, lambda text: remove_provider(text, name))
    _forget(name)
    trail.changed("provider.rm", name)
    forgotten = ", and its key is forgotten" if vault(find_paths()).remove(name) else ""
    say(f"Provider {name} is removed from {path}{forgotten}: {reload(admin, path)}.")


@app.command()
def presets(json_output: bool = JSON) -> None:
    """List the vendors and servers that are known."""
    from lumen.config.presets import find, names

    found = [find(name) for name in names()]
    if json_output:
        print_json([{**asdict(preset), "models": sorted(preset.models)} for preset in found])
        return
    table(
        ("name", "vendor", "address", "key"),
        [(preset.name, preset.title, preset.base_url, preset.key and f"${preset.key}") for preset in found],
    )


@app.command()
def test(
    name: str = typer.Argument(help="The provider to test."),
    model: str | None = typer.Option(None, help="The model to ask; default: one of a route, else the cheapest."),
    probe: bool = typer.Option(False, "--probe", help="Find out what it can do, by about twelve tiny requests."),
    max_cost: str | None = typer.Option(
        None, metavar="AMOUNT", help="The most that probing may cost; default: 0.05usd."
    ),
    timeout: float = typer.Option(30.0, min=0.1, max=600, help="Seconds of silence that are waited out."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Ask a provider something small, and say whether address and key are right and how fast it answers.

    What `--probe` finds out about a model counts from then on, whatever is declared of it.
    """
    from lumen_cli.trial import run, summary
    from lumen_cli.vendors import config_of, find_vendor, key_of

    loaded = config_of(config)
    vendor = find_vendor(name, loaded)
    probing = _probing(max_cost) if probe else None
    found = run(vendor, loaded, key_of(vendor), model=model, probing=probing, timeout=timeout)
    if found["probed"]:
        _keep(vendor, found, config)
    if json_output:
        print_json(found)
    else:
        for line in summary(found):
            say(line)
    if not found["ok"]:
        raise CliError(found["error"], found["next"], code=FAILED)


def _probing(max_cost: str | None) -> Probing:
    from lumen.core.money import parse_amount
    from lumen_cli.limits import checked
    from lumen_cli.trial import Probing

    most = checked("max_cost", max_cost or _PROBING_COSTS, parse_amount)
    return Probing(most, max_cost is not None, note)


def _keep(vendor: Vendor, found: dict[str, Any], config: Path | None) -> None:
    """Write down what was found out, where a gateway reads it."""
    from lumen.catalogue import probed

    admin, here = Admin(find_paths().admin_socket), find_paths()
    probed.keep(here.probed_file, vendor.name, vendor.base_url, found["model"], found["probed"])
    trail.changed("provider.probe", vendor.name, model=found["model"], found=found["probed"])
    note(f"What was found out counts from now on: {reload(admin, config_file(config, here, admin))}.")


def _forget(name: str) -> None:
    from lumen.catalogue import probed

    probed.forget(find_paths().probed_file, name)


def _preset(name: str, given: str | None, base_url: str | None) -> Preset | None:
    """What is known of the vendor that `add` is about."""
    from difflib import get_close_matches

    from lumen.config.presets import find, names

    chosen = given or name
    near = get_close_matches(chosen, names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else None
    if chosen in names():
        found = find(chosen)
        return found if given is not None or base_url is None or found.serves(base_url) else None
    if given is not None:
        raise CliError(f"there is no preset {given!r}", hint or "see `lumen provider presets`", code=USAGE)
    return None


def _address(preset: Preset | None, base_url: str | None, values: list[str], before: Provider | None) -> str | None:
    """The address to write down: the one given, or a preset's with its holes filled; `None`: nothing new."""
    given = dict(map(_pair, values))
    if base_url is not None or preset is None:
        if given:
            raise CliError("--set fills a preset's address", "leave --base-url or --set out", code=USAGE)
        if base_url is None and before is None:
            hint = "give --base-url, or see `lumen provider presets`"
            raise CliError("nothing is known of this provider, not even its address", hint, code=USAGE)
        return base_url
    if preset.holes and not given and before is not None and before.base_url is not None:
        return None
    missing = [hole for hole in preset.holes if hole not in given]
    if missing:
        raise CliError(f"{preset.title} listens at {preset.base_url}", f"give --set {missing[0]}=YOURS", code=USAGE)
    return preset.filled(given) if preset.holes or given else None


def _same_place(name: str, before: Provider, address: str) -> bool:
    """Whether the key that a provider has serves it after the change, too."""
    from lumen.catalogue import vendor
    from lumen.config.presets import origin

    return vendor(name, before).origin == origin(address)


def _key(
    preset: Preset | None, name: str, given: str | None, none: bool, address: str
) -> tuple[str | None, Secret | None]:
    """What the file says of the key, and a key that was typed or piped in."""
    from urllib.parse import urlsplit

    from lumen.config.remotes import is_loopback
    from lumen.secrets import secret

    if given is not None:
        if none or not given.startswith("env:"):
            raise CliError(
                "--key takes env:NAME alone; a key on the command line stays in the shell's history",
                "leave --key out and type the key, or pipe it in",
                code=USAGE,
            )
        return given, None
    local = preset.key is None if preset is not None else is_loopback(urlsplit(address).hostname or "")
    if none or local:
        return None, None
    usual = preset.key if preset is not None and preset.serves(address) else None
    text = _typed(f"Key for {preset.title if preset else name}" + (f" (empty: from ${usual})" if usual else ""))
    if text.strip():
        return None, secret(text)
    if usual is None:
        raise CliError("no key was given", "type or pipe it in, or give --key env:NAME or --no-key", code=USAGE)
    return None, None


def _typed(prompt: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(prompt, default="", hide_input=True, show_default=False, err=True))
    return sys.stdin.readline(_LONGEST_LINE)


def _place(store: str) -> str:
    from lumen.secrets import keyring

    return ("keyring" if keyring() is not None else "file") if store == "auto" else store


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise CliError(f"{text!r} is not NAME=VALUE", "write for example prefill=native", code=USAGE)
    return name.strip(), value.strip()


def _ability(text: str) -> tuple[str, Any]:
    name, value = _pair(text)
    return name.replace("-", "_"), _TRUTHS.get(value.lower(), value)


def _routes_of(provider: str, config: Config) -> list[str]:
    """The routes that lead to this provider."""
    targets = ((route, target.model) for route, found in config.routes.items() for target in found.targets)
    return sorted({route for route, model in targets if model.startswith(f"{provider}/")})


def _tell_key(vendor: Vendor) -> None:
    from lumen_cli.vendors import missing

    why = missing(vendor)
    if why is not None:
        note(f"It cannot be used yet: {why}.")
    elif vendor.key in ("keyring", "file"):
        where = "the system's keyring" if vendor.key == "keyring" else "a file that only you can read"
        note(f"Its key is kept in {where}, for {vendor.origin} alone. Try it: lumen provider test {vendor.name}")
    else:
        note(f"Try it: lumen provider test {vendor.name}")

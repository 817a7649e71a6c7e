"""`lumen models`: every model there is to serve, every one on this disk, and those that providers offer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.core.money import format_amount, format_rate
from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.model_set import rm, set_
from lumen_cli.output import JSON, command, note, print_json, size, table
from lumen_cli.settings import CONFIG, config_file

if TYPE_CHECKING:
    from lumen.catalogue import Entry
    from lumen.config.schema import Config
    from lumen.hub.store import Manifest, Store

_PROVIDER = typer.Option(None, help="Models of this provider, or of a vendor that is known.")
_SEARCH = typer.Option(None, help="Models of providers whose name holds these words.")

app = command("""List the models that are configured, whether they are served, and those kept on this disk.

With --provider or --search: what providers offer, with prices in dollars a million tokens.
""")
app.command(name="set")(set_)
app.command()(rm)


@app.callback(invoke_without_command=True)
def models(
    ctx: typer.Context,
    provider: str | None = _PROVIDER,
    search: str | None = _SEARCH,
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """What there is, or what providers offer."""
    if ctx.invoked_subcommand is None:
        ls(provider, search, config, json_output)


@app.command()
def ls(
    provider: str | None = _PROVIDER,
    search: str | None = _SEARCH,
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """What there is, or what providers offer; the same as `lumen models` alone."""
    if provider is not None or search is not None:
        _offered(provider, search or "", config, json_output)
        return
    from lumen.config.load import load, locate
    from lumen.hub.store import Store

    paths = find_paths()
    admin = Admin(paths.admin_socket)
    status = admin.status_or_none() if config is None else None
    loaded = load(locate(config, config_file(config, paths, admin)))
    store = Store(paths.models_dir)
    rows = [*_configured(loaded, status, paths), *_served_besides(loaded, status)]
    taken = {name for row in rows if (name := row["kept"])}
    rows += [_kept(manifest, store) for manifest in store.all() if manifest.name not in taken]
    if json_output:
        print_json(rows)
        return
    table(("name", "state", "size", "engine", "source"), [_cells(row) for row in rows])
    if status is None:
        note("No gateway is running: `lumen up` starts one.")


def _offered(provider: str | None, search: str, given: Path | None, json_output: bool) -> None:
    """What providers offer, as published and as the configuration has it."""
    from lumen.catalogue import Catalogue, vendor
    from lumen.config import presets
    from lumen.config.schema import Provider
    from lumen_cli.vendors import all_vendors, config_of, find_vendor

    config = config_of(given)
    vendors = all_vendors(config)
    if provider is not None and provider not in vendors and provider in presets.names():
        # Not configured, but known: its models can be looked at before it is added.
        address = presets.find(provider).base_url
        vendors = {provider: vendor(provider, Provider(base_url=address, preset=provider))}
    elif provider is not None:
        find_vendor(provider, config)
    catalogue = Catalogue(vendors)
    complete = catalogue.load()
    entries = catalogue.search(search, provider)
    if json_output:
        # Prices are whole pico-dollars a token, which is micro-dollars a million tokens.
        print_json([asdict(entry) for entry in entries])
    else:
        table(("model", "input", "cached", "output", "context", "besides"), [_priced(entry) for entry in entries])
    if not complete:
        note("Published prices are missing from this installation: install Lumen again.")
    elif not entries and not json_output:
        where = "" if provider is not None else " for the providers that are configured (`--provider NAME`: for any)"
        note(f"No such model is published{where}; `lumen provider test NAME` asks the provider itself.")


def _priced(entry: Entry) -> tuple[Any, ...]:
    price, name = entry.price, entry.name + (" (deprecated)" if entry.deprecated else "")
    if price is None:
        return name, None, None, None, entry.context, ", ".join(entry.besides) or None
    extra = ["dearer when long"] if price.tiers else []
    extra += [f"{format_amount(price.per_request)} a request"] if price.per_request else []
    extra += [f"{format_amount(price.per_image)} an image"] if price.per_image else []
    extra += [f"{format_amount(price.per_audio_second)} a second of audio"] if price.per_audio_second else []
    rates = (price.input, price.cached_input, price.output)
    shown = [None if rate is None else f"${format_rate(rate).removesuffix('/1M')}" for rate in rates]
    return name, *shown, entry.context, ", ".join([*extra, *entry.besides]) or None


def _configured(config: Config, status: dict[str, Any] | None, paths: Paths) -> list[dict[str, Any]]:
    from lumen.core.errors import LumenError
    from lumen.hub import resolve
    from lumen.hub.reference import parse
    from lumen.hub.store import Store

    store, rows = Store(paths.models_dir), []
    for name, model in config.models.items():
        try:
            files = resolve(model.source, paths)
            manifest = store.find(parse(model.source))
            wrong = None
        except LumenError as error:
            files, manifest, wrong = None, None, error.message
        here = files is not None
        state = _state(name, status) or ("here" if here else wrong or "not on this disk")
        size = manifest.size if manifest is not None and here else files.path.stat().st_size if files else None
        kept = manifest.name if manifest is not None else None
        rows.append(_row(name, True, state, size, model.engine, model.source, kept, here))
    for name in config.routes:
        if name not in config.models:
            targets = ", ".join(target.model for target in config.routes[name].targets)
            rows.append(_row(name, True, "route", None, None, targets, None, None))
    return rows


def _served_besides(config: Config, status: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What a gateway serves without being told to: the built-in model."""
    served = (status or {}).get("models", [])
    return [
        _row(model["name"], False, _state(model["name"], status), None, None, model.get("source"), None, True)
        for model in served
        if model["name"] not in config.models
    ]


def _kept(manifest: Manifest, store: Store) -> dict[str, Any]:
    state = "here, not configured" if store.whole(manifest) else "files missing"
    here = store.whole(manifest)
    return _row(manifest.name, False, state, manifest.size, None, manifest.reference, manifest.name, here)


def _state(name: str, status: dict[str, Any] | None) -> str | None:
    """What a running gateway says of a model, in a word."""
    for model in (status or {}).get("models", []):
        if model["name"] == name:
            standing = model.get("standing") or {}
            if standing.get("resting"):
                return str(standing["residency"])
            if model.get("ready"):
                return "ready"
            states = [replica["state"] for replica in model.get("replicas") or []]
            return states[0] if states else str(model.get("missing") or "off")
    return None


def _row(
    name: str,
    configured: bool,
    state: str | None,
    size: int | None,
    engine: str | None,
    source: str | None,
    kept: str | None,
    here: bool | None,
) -> dict[str, Any]:
    return {
        "name": name,
        "configured": configured,
        "state": state,
        "size": size,
        "engine": engine,
        "source": source,
        "kept": kept,
        "here": here,
    }


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    known = row["size"] is not None
    return row["name"], row["state"], size(row["size"]) if known else None, row["engine"], row["source"]

"""Providers as commands see them: found by name, with their keys and all that is known of them."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen.paths import paths as find_paths
from lumen_cli.errors import CliError
from lumen_cli.settings import config_file

if TYPE_CHECKING:
    from lumen.catalogue import Vendor
    from lumen.config.schema import Abilities, Config
    from lumen.secrets import Secret


def config_of(given: Path | None) -> Config:
    """The configuration in the file that was named, else the one in force."""
    from lumen.config.load import load, locate

    return load(locate(given, config_file(given, find_paths())))


def all_vendors(config: Config) -> dict[str, Vendor]:
    """Every provider of a configuration, with what its preset adds and what was found out about it."""
    from lumen.catalogue import probed, vendor

    found = probed.read(find_paths().probed_file)
    return {name: vendor(name, provider, found.get(name)) for name, provider in config.providers.items()}


def unpriced(config: Config) -> dict[str, list[str]]:
    """Routes whose money is limited, with those of their targets that are not asked there: nobody knows their price."""
    from lumen.catalogue import Catalogue

    limited = {
        name: [target.model for target in route.targets if "/" in target.model]
        for name, route in config.routes.items()
        if any(asdict(route.budget).values()) or any(asdict(config.server.budget).values())
    }
    catalogue = Catalogue(all_vendors(config)) if any(limited.values()) else None
    if catalogue is None:
        return {}
    catalogue.load()
    found = {
        name: [target for target in targets if catalogue.price(*target.split("/", 1)) is None]
        for name, targets in limited.items()
    }
    return {name: targets for name, targets in found.items() if targets}


def without_price(target: str) -> str:
    """What that means for such a target, and how to mend it."""
    how = f"`lumen provider price {target} --input … --output …`"
    return f"{target} has no known price and is not asked where money is limited; {how} says it"


def find_vendor(name: str, config: Config) -> Vendor:
    """One of them.

    Raises:
        CliError: there is none of that name; says what to do.
    """
    found = all_vendors(config)
    if name not in found:
        near = get_close_matches(name, found, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"add it with `lumen provider add {name}`"
        raise CliError(f"there is no provider {name!r}", hint)
    return found[name]


def key_of(found: Vendor) -> Secret | None:
    """A provider's key; `None` where it asks for none.

    Raises:
        CliError: the key is not there; says what to do.
    """
    from lumen.secrets import KeyMissing, read, vault

    if found.key is None:
        return None
    try:
        return read(found.key, found.name, found.base_url, vault(find_paths()))
    except KeyMissing as error:
        told = "lumen provider add" in error.message
        hint = None if told else f"set it, or give the key with `lumen provider add {found.name}`"
        raise CliError(error.message, hint) from None


def missing(found: Vendor) -> str | None:
    """Why a provider's key cannot be used; `None` where it can, or none is needed."""
    try:
        key_of(found)
    except CliError as error:
        return error.what
    return None


def described(found: Vendor) -> dict[str, Any]:
    """What there is to tell of a provider, ready for JSON; nothing of its key but where it is."""
    preset = found.preset
    models = {pattern: _said(said.capabilities) for pattern, said in found.models}
    return {
        "name": found.name,
        "title": found.title,
        "preset": preset.name if preset else None,
        "base_url": found.base_url,
        "dialect": found.dialect,
        "key": found.key,
        "missing": missing(found),
        "required": found.required,
        "capabilities": asdict(found.capabilities),
        "models": {pattern: said for pattern, said in models.items() if said},
        "probed": {model: _said(said) for model, said in found.probed.items()},
        "notes": list(preset.notes) if preset else [],
        "docs": preset.docs if preset else None,
    }


def _said(said: Abilities) -> dict[str, Any]:
    return {name: value for name, value in asdict(said).items() if value is not None}


def abilities(values: dict[str, Any]) -> str:
    """In words: `seed` or `no seed`, and `name=value` for what is neither."""
    words = {
        name: name if value is True else f"no {name}" if value is False else f"{name}={value}"
        for name, value in values.items()
    }
    # Only Lumen's own workers and local engines have these; that others do not is no news.
    return ", ".join(word for name, word in words.items() if values[name] or name not in ("local", "token_ids"))

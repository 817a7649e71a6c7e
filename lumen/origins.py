"""The upstreams a configuration comes to, kept across reloads so that connections and running streams stay."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from lumen.catalogue import Catalogue, probed
from lumen.catalogue.vendors import Vendor, able, vendor
from lumen.config.remotes import price_of
from lumen.config.schema import Config, Model
from lumen.core.errors import ConfigError, UnavailableError
from lumen.core.money import FREE
from lumen.engines.registry import engine
from lumen.gateway.tab import Offer
from lumen.gateway.table import Origin, Origins
from lumen.gateway.upstream import Encode, Exchange, Limits, Local, Remote, Upstream
from lumen.paths import paths
from lumen.providers.base import Capabilities, Dialect, module
from lumen.secrets import KeyMissing, Secret, Vault, read, vault
from lumen.workers.supervisor import Prompt, Supervisor

# Variables that look like secrets are hidden from engines even where no provider names them.
_SECRET_ENDINGS = ("_API_KEY", "_TOKEN", "_SECRET", "_SECRET_KEY", "_PASSWORD")


@dataclass(frozen=True, slots=True)
class Opened:
    """A provider with its key, or with the reason why it has none. `key`: `None` also where it asks for none."""

    vendor: Vendor
    key: Secret | None = None
    missing: str | None = None


class Closed:
    """Where a provider would be reached if its key were there. Another target may serve."""

    async def open(
        self, encode: Encode, model: str, limits: Limits, stream: bool, prompt: Prompt | None = None
    ) -> Exchange:
        raise UnavailableError("A provider's key is missing here; `lumen provider ls` tells the operator which.")

    async def alive(self) -> int | None:
        return None

    def spare(self) -> bool:
        return False

    def close(self) -> None:
        """There is nothing to close."""


class Upstreams:
    """Makes, keeps and drops upstreams. `missing`: provider → why its targets cannot serve, in the operator's words."""

    def __init__(self, supervisor: Supervisor, keys: Vault | None = None) -> None:
        self._supervisor = supervisor
        self._keys = keys
        self._kept: dict[tuple[str, ...], Upstream] = {}
        self._providers: dict[str, Upstream] = {}
        self.missing: dict[str, str] = {}

    def none(self) -> Origins:
        """What there is before a configuration is in force."""
        return Origins({}, {})

    def of(self, config: Config, models: Collection[str], opened: Mapping[str, Opened] | None = None) -> Origins:
        """The origins of a configuration; `models` are the local ones.

        `opened`: what `unlock` found; without it the keys are read here, and a keyring that asks its user blocks.

        Raises:
            ConfigError: a provider cannot be used as it is written, or one that is `required` has no key.
        """
        found = unlock(config, self._keys) if opened is None else opened
        catalogue = Catalogue({name: provider.vendor for name, provider in found.items()})
        used: dict[tuple[str, ...], Upstream] = {}
        local: dict[str, Origin] = {}
        for name in models:
            identity: tuple[str, ...] = ("local", name)
            used[identity] = self._kept.get(identity) or Local(self._supervisor, name)
            model = config.models.get(name)
            local[name] = Origin(used[identity], partial(_local, model))
            for adapter in model.adapters if model is not None else ():
                worn = (*identity, adapter)
                used[worn] = self._kept.get(worn) or Local(self._supervisor, name, adapter)
                local[f"{name}:{adapter}"] = Origin(used[worn], partial(_local, model))
        remote: dict[str, Origin] = {}
        for name, provider in found.items():
            identity, made = self._upstream(provider)
            used[identity] = made
            remote[name] = Origin(made, partial(_remote, catalogue, provider.vendor))
        for identity in self._kept.keys() - used.keys():
            self._kept[identity].close()
        self._kept = used
        self._providers = {name: origin.upstream for name, origin in remote.items()}
        self.missing = {name: provider.missing for name, provider in found.items() if provider.missing}
        return Origins(local, remote)

    async def alive(self, target: str) -> int | None:
        """See `Upstream.alive`; for the target `provider/model`."""
        found = self._providers.get(target.partition("/")[0])
        return await found.alive() if found is not None else None

    def _upstream(self, provider: Opened) -> tuple[tuple[str, ...], Upstream]:
        if provider.missing is not None:
            return ("closed", provider.vendor.name), Closed()
        headers = headers_of(provider)
        pairs = (part for pair in sorted(headers.items()) for part in pair)
        identity = ("remote", provider.vendor.base_url, *pairs)
        return identity, self._kept.get(identity) or Remote(provider.vendor.base_url, headers)

    def close(self) -> None:
        for upstream in self._kept.values():
            upstream.close()
        self._kept.clear()


def unlock(config: Config, keys: Vault | None = None) -> dict[str, Opened]:
    """Every provider of a configuration with its key. May block: a keyring can ask its user.

    Raises:
        ConfigError: a provider cannot be used as it is written, or one that is `required` has no key.
    """
    store = keys or vault(paths())
    found_out = probed.read(paths().probed_file)
    return {
        name: open_one(vendor(name, provider, found_out.get(name)), store)
        for name, provider in config.providers.items()
    }


def offered(catalogue: Catalogue, opened: Mapping[str, Opened]) -> list[str]:
    """Names of all known models, but those that go soon, of the providers that have their keys. May block."""
    found = (entry for name, one in opened.items() if one.missing is None for entry in catalogue.search(provider=name))
    return [entry.name for entry in found if not entry.deprecated]


def open_one(found: Vendor, store: Vault) -> Opened:
    """One provider with its key.

    Raises:
        ConfigError: it is `required` and has none, or its dialect is not there.
    """
    try:
        module(found.dialect)
        key = read(found.key, found.name, found.base_url, store) if found.key else None
    except LookupError as error:
        raise ConfigError(f"the provider {found.name}: {error}") from None
    except KeyMissing as error:
        if found.required:
            raise
        return Opened(found, missing=error.message)
    return Opened(found, key)


def headers_of(provider: Opened) -> dict[str, str]:
    """What every request to it carries, its key included."""
    own = dict(provider.vendor.headers)
    return own | module(provider.vendor.dialect).headers(provider.key.reveal()) if provider.key else own


def hidden(config: Config) -> set[str]:
    """Names of environment variables that no engine may see: keys of providers, and all that look like one."""
    named = {found.removeprefix("env:") for found in _references(config) if found.startswith("env:")}
    return named | {name for name in os.environ if name.endswith(_SECRET_ENDINGS)}


def _references(config: Config) -> list[str]:
    found = (vendor(name, provider).key for name, provider in config.providers.items())
    return [key for key in found if key]


# What every local model can do; its engine says the rest.
_LOCAL = Capabilities(local=True, reasoning_content=True)


def _local(model: Model | None, name: str) -> tuple[Dialect, Capabilities, Offer]:
    """A local model; free unless the configuration says what it costs."""
    price = price_of(model.price) if model is not None and model.price is not None else FREE
    model = model or Model(source="")
    local = engine(model.engine)
    can = able(_LOCAL, local.abilities(model))
    return module(local.dialect(model)).make(can), can, Offer(name, "local", name, price, model.context)


def _remote(catalogue: Catalogue, found: Vendor, model: str) -> tuple[Dialect, Capabilities, Offer]:
    """One model of a provider; its price and context window are those of the day the configuration loads."""
    known = catalogue.entry(found.name, model)
    offer = Offer(f"{found.name}/{model}", found.name, model, known.price, known.context)
    return module(found.dialect).make(known.capabilities), known.capabilities, offer

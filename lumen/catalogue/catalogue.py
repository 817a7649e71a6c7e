"""What every model of the providers costs and can do: the configuration's word first, then published data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from lumen.catalogue import prices
from lumen.catalogue.vendors import Vendor, vendor
from lumen.config.remotes import price_of
from lumen.config.schema import Config
from lumen.core.money import Price
from lumen.providers.base import Capabilities


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of one provider. `name`: how clients address it. Unknown is `None`, which is not zero."""

    name: str
    provider: str
    model: str
    title: str
    price: Price | None
    context: int | None
    capabilities: Capabilities
    besides: tuple[str, ...] = ()
    deprecated: bool = False


class Catalogue:
    """Prices, context windows and capabilities by provider and model.

    Prices are those of the day it is made. The first look at published data imports the package they are in: call
    `load` beforehand where that must not wait.
    """

    def __init__(self, vendors: Mapping[str, Vendor], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._vendors = vendors
        self._now = now()

    @classmethod
    def of(cls, config: Config) -> Catalogue:
        """The catalogue of a configuration.

        Raises:
            ConfigError: a provider cannot be used as it is written.
        """
        return cls({name: vendor(name, provider) for name, provider in config.providers.items()})

    def load(self) -> bool:
        """Read the published data where a provider has any; whether it is there, or not needed."""
        needed = any(found.preset and found.preset.prices for found in self._vendors.values())
        return not needed or prices.available()

    def price(self, provider: str, model: str) -> Price | None:
        """What `provider/model` costs; `None` where nobody says."""
        return self._price(self._vendors[provider], model, None)

    def context(self, provider: str, model: str) -> int | None:
        """How many tokens prompt and answer may have together; `None` where nobody says."""
        return self._context(self._vendors[provider], model, None)

    def capabilities(self, provider: str, model: str) -> Capabilities:
        """What `provider/model` can do."""
        return self._vendors[provider].can(model)

    def entry(self, provider: str, model: str) -> Entry:
        """All of it at once."""
        found = self._vendors[provider]
        return self._entry(found, model, self._listed(found, model))

    def search(self, text: str = "", provider: str | None = None) -> list[Entry]:
        """Models whose name or title holds every word of `text`, of one provider or all; sorted by name."""
        words = text.lower().split()
        entries: dict[str, Entry] = {}
        for found in self._vendors.values():
            if provider is not None and found.name != provider:
                continue
            declared = [name for name, _ in found.models if "*" not in name]
            for entry in (self._entry(found, name, self._listed(found, name)) for name in declared):
                entries.setdefault(entry.name, entry)
            if found.preset is not None and found.preset.prices:
                for listed in prices.every(found.preset.prices, self._now):
                    entry = self._entry(found, listed.model, listed)
                    entries.setdefault(entry.name, entry)
        hits = (e for e in entries.values() if all(word in f"{e.name} {e.title}".lower() for word in words))
        return sorted(hits, key=lambda entry: entry.name)

    def _listed(self, found: Vendor, model: str) -> prices.Listed | None:
        preset = found.preset
        return prices.find(preset.prices, model, self._now) if preset is not None and preset.prices else None

    def _entry(self, found: Vendor, model: str, listed: prices.Listed | None) -> Entry:
        return Entry(
            name=f"{found.name}/{model}",
            provider=found.name,
            model=model,
            title=listed.title if listed else model,
            price=self._price(found, model, listed),
            context=self._context(found, model, listed),
            capabilities=found.can(model),
            besides=listed.besides if listed else (),
            deprecated=listed.deprecated if listed else False,
        )

    def _price(self, found: Vendor, model: str, listed: prices.Listed | None) -> Price | None:
        for said in found.said_of(model):
            if said.price is not None:
                return price_of(said.price)
        listed = listed or self._listed(found, model)
        return listed.price if listed else None

    def _context(self, found: Vendor, model: str, listed: prices.Listed | None) -> int | None:
        for said in found.said_of(model):
            if said.context is not None:
                return said.context
        listed = listed or self._listed(found, model)
        return listed.context if listed else None

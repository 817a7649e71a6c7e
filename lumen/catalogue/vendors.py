"""A provider of the configuration, with all that its preset adds. Pure but for reading the preset's file once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from lumen.catalogue.probed import Probed
from lumen.config import presets
from lumen.config.presets import Preset
from lumen.config.schema import Abilities, Provider, RemoteModel
from lumen.core.errors import ConfigError
from lumen.providers.base import Capabilities

_DIALECT = "openai"


@dataclass(frozen=True, slots=True)
class Vendor:
    """A provider resolved. `key`: `env:NAME`, `keyring`, `file`, or `None` where it asks for none.

    `models`: what is said of single models, the configuration's own before the preset's. `probed`: what was found out
    about some by asking them.
    """

    name: str
    title: str
    base_url: str
    dialect: str
    key: str | None
    required: bool
    headers: Mapping[str, str]
    capabilities: Capabilities
    models: tuple[tuple[str, RemoteModel], ...]
    preset: Preset | None
    probed: Mapping[str, Abilities] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """What its key is bound to."""
        return presets.origin(self.base_url)

    def said_of(self, model: str) -> Iterator[RemoteModel]:
        """Everything said of one model, what counts most first: by its own name, then by pattern."""
        for pattern, found in self.models:
            if pattern == model:
                yield found
        for pattern, found in self.models:
            if pattern != model and "*" in pattern and fnmatchcase(model, pattern):
                yield found

    def can(self, model: str) -> Capabilities:
        """What one model can do; what was found out counts more than what was declared."""
        probed = self.probed.get(model)
        return able(self.declared(model), probed) if probed is not None else self.declared(model)

    def declared(self, model: str) -> Capabilities:
        """What one model can do by its preset and the configuration."""
        found = self.capabilities
        for said in reversed(list(self.said_of(model))):
            found = able(found, said.capabilities)
        return found


def vendor(name: str, provider: Provider, probed: Probed | None = None) -> Vendor:
    """The provider `name` of a configuration; `probed` counts where it was found at the same address.

    A preset that shares only its name, because the address leads elsewhere, says nothing of this server; nor does
    the variable of a preset's key ever serve for another host.

    Raises:
        ConfigError: it has no address, or its preset cannot be read.
    """
    preset = _preset(name, provider)
    base_url = provider.base_url or (preset.base_url if preset and not preset.holes else None)
    if base_url is None:
        raise ConfigError(f"the provider {name} has no base_url")
    usual = f"env:{preset.key}" if preset and preset.key and preset.serves(base_url) else None
    capabilities = able(Capabilities(), preset.capabilities) if preset else Capabilities()
    base_url = base_url.rstrip("/")
    return Vendor(
        name=name,
        title=preset.title if preset else name,
        base_url=base_url,
        dialect=provider.dialect or (preset.dialect if preset else _DIALECT),
        key=provider.key or usual,
        required=provider.required,
        headers={**(preset.headers if preset else {}), **provider.headers},
        capabilities=able(capabilities, provider.capabilities),
        models=(*provider.models.items(), *(preset.models.items() if preset else ())),
        preset=preset,
        probed=probed.models if probed is not None and probed.base_url == base_url else {},
    )


def able(known: Capabilities, said: Abilities) -> Capabilities:
    """`known` with what `said` says laid over it. A server that speaks token ids samples as local engines do."""
    given: dict[str, Any] = {f.name: value for f in fields(said) if (value := getattr(said, f.name)) is not None}
    if given.get("token_ids") and "samplers" not in given:
        given["samplers"] = True
    return replace(known, **given)


def _preset(name: str, provider: Provider) -> Preset | None:
    if provider.preset is not None:
        return presets.find(provider.preset)
    if name not in presets.names():
        return None
    found = presets.find(name)
    return found if provider.base_url is None or found.serves(provider.base_url) else None

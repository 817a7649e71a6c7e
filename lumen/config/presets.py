"""Presets: what is known of a vendor or a kind of server, as data. One YAML file each, found by its name.

A file says where the vendor listens, what it speaks, which variable usually holds the key, and what it can do;
what it leaves out of `capabilities` is as `lumen.providers.base.Capabilities` has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lumen.config.reading import document
from lumen.config.remotes import check_headers, check_remote_models, check_url
from lumen.config.schema import Abilities, RemoteModel
from lumen.core.errors import ConfigError

_LARGEST = 64 * 1024
_HOLE = re.compile(r"\{([a-z][a-z0-9_]*)\}", re.ASCII)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{1,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Preset:
    """One file of `profiles/providers`.

    `base_url` may have holes such as `{resource}` that each user fills. `key`: the environment variable that usually
    holds the key; `None`: the server asks for none. `listing`: who may read the list of models: whoever has a key,
    everybody (so that reading it does not prove a key), or nobody. `prices`: the vendor's id in the price catalogue;
    `{suffix}` in it stands for what follows the last `:` of a model's name. `models`: what differs for single
    models, by name or pattern. `notes`: what a user must know.
    """

    name: str
    title: str
    base_url: str
    dialect: str = "openai"
    key: str | None = None
    listing: Literal["key", "public", "none"] = "key"
    prices: str | None = None
    docs: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    capabilities: Abilities = field(default_factory=Abilities)
    models: Mapping[str, RemoteModel] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def holes(self) -> tuple[str, ...]:
        """Names of what is left open in `base_url`."""
        return tuple(_HOLE.findall(self.base_url))

    def filled(self, values: Mapping[str, str]) -> str:
        """`base_url` with its holes filled; each value is one part of a name, not an address of its own.

        Raises:
            ConfigError: a value is missing, unknown, or not such a part.
        """
        for name in values:
            if name not in self.holes:
                known = f"it takes {', '.join(self.holes)}" if self.holes else "it takes none"
                raise ConfigError(f"the preset {self.name} has no value {name!r}; {known}")
        for name in self.holes:
            if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?", values.get(name, ""), re.ASCII):
                raise ConfigError(f"the preset {self.name} needs a {name} for {self.base_url}")
        return _HOLE.sub(lambda found: values[found[1]], self.base_url)

    def serves(self, base_url: str) -> bool:
        """Whether `base_url` is on this vendor's host, so that what is known of the one, its key too, holds there."""
        pattern = _HOLE.sub("\0", origin(self.base_url))
        shape = re.escape(pattern).replace(re.escape("\0"), "[a-z0-9-]+(?:[.][a-z0-9-]+)*")
        return re.fullmatch(shape, origin(base_url)) is not None


def origin(base_url: str) -> str:
    """Scheme, host and port of an address, in one form: what a key is bound to."""
    parts = urlsplit(base_url)
    scheme = parts.scheme.lower()
    # Not `.port`: a hole may stand in an address.
    host = parts.netloc.rpartition("@")[2].lower()
    usual = {"https": ":443", "http": ":80"}.get(scheme)
    return f"{scheme}://{host.removesuffix(usual) if usual else host}"


@cache
def names() -> tuple[str, ...]:
    """Every preset there is; none is read."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


@cache
def find(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: there is none, or its file is wrong.
    """
    if name not in names():
        raise ConfigError(f"there is no preset {name[:80]!r}")
    path = folder() / f"{name}.yaml"
    with path.open("rb") as file:
        return read(file.read(_LARGEST).decode("utf-8", "replace"), path.stem)


def read(text: str, name: str) -> Preset:
    """One preset. `name`: the file's name without its ending. Pure.

    Raises:
        ConfigError: an unknown key, a wrong value, or an address or variable that cannot be one.
    """
    found, at = document(text, f"{name}.yaml", Preset)
    if found.name != name:
        raise at.error(("name",), f"name: this file is called {name}")
    if not found.title.strip() or not found.title.isprintable():
        raise at.error(("title",), "title: expected the vendor's name")
    check_url(_HOLE.sub("x", found.base_url), ("base_url",), at)
    if found.key is not None and not _VARIABLE.fullmatch(found.key):
        raise at.error(("key",), "key: expected the name of an environment variable")
    check_headers(found.headers, ("headers",), at)
    check_remote_models(found.models, ("models",), at)
    return found


@cache
def folder() -> Path:
    """In an installed package the profiles lie inside `lumen`; in a checkout, beside it.

    Raises:
        ConfigError: they are in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for found in (package / "profiles" / "providers", package.parent / "profiles" / "providers"):
        if found.is_dir():
            return found
    raise ConfigError("the provider presets are missing from this installation; install Lumen again")

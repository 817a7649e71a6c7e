"""Keys of providers: the environment's, or kept by Lumen in the system's keyring or in a file only its user reads.

A kept key is bound to the origin it was given for and is handed out for no other. It is wrapped in a `Secret`, which
shows nothing of it, and no error here repeats one.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lumen.config.presets import origin
from lumen.core.errors import ConfigError
from lumen.files import locked, write_atomic
from lumen.paths import Paths

Store = Literal["keyring", "file"]

_LONGEST = 8192
_LARGEST_FILE = 1024 * 1024
_VERSION = 1


class Secret:
    """A key that shows itself only to who asks for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header that carries it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not copied out of the process")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


class KeyMissing(ConfigError):
    """A provider's key is not where it should be; the message says where to put it."""


def secret(text: str) -> Secret:
    """A key as it was typed or piped in.

    Raises:
        ConfigError: empty, too long, or with characters that no header can carry.
    """
    value = text.strip()
    if not value:
        raise ConfigError("no key was given")
    if len(value) > _LONGEST or not all("!" <= c <= "~" for c in value):
        raise ConfigError("this is no key: it has spaces, line breaks or characters that no header can carry")
    return Secret(value)


@dataclass(frozen=True, slots=True)
class Vault:
    """The keys kept for one installation. `path`: the file; its name also marks the entries in the keyring."""

    path: Path

    def keep(self, provider: str, base_url: str, key: Secret, store: Store) -> None:
        """Keep `key` for this provider at this origin, in place of any it had, wherever that was.

        Raises:
            ConfigError: there is no usable keyring, or the file is damaged.
            OSError: the file cannot be written.
        """
        if store == "keyring":
            self._to_keyring(provider, json.dumps({"origin": origin(base_url), "key": key.reveal()}))
            self._change(lambda entries: entries.pop(provider, None))
            return
        entry = {"origin": origin(base_url), "key": key.reveal()}
        self._change(lambda entries: entries.update({provider: entry}))
        self._forget(provider)

    def find(self, provider: str, base_url: str, store: Store) -> Secret:
        """The key kept for this provider.

        Raises:
            KeyMissing: there is none, or it belongs to another origin.
            ConfigError: there is no usable keyring, or the file is damaged.
        """
        entry = self._from_keyring(provider) if store == "keyring" else self._read().get(provider)
        again = f"give it with `lumen provider add {provider}`"
        if entry is None:
            raise KeyMissing(f"no key is kept for the provider {provider} in the {store}; {again}")
        if entry["origin"] != origin(base_url):
            raise KeyMissing(
                f"the key kept for the provider {provider} belongs to {entry['origin']} and goes nowhere else; {again}"
            )
        return Secret(entry["key"])

    def remove(self, provider: str) -> bool:
        """Forget this provider's key, wherever it is kept; whether there was one."""
        gone = self._change(lambda entries: entries.pop(provider, None)) is not None
        return self._forget(provider) or gone

    # -- the file ------------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            with self.path.open("rb") as file:
                data = json.loads(file.read(_LARGEST_FILE))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise self._damaged() from None
        entries = data.get("keys") if isinstance(data, dict) and data.get("version") == _VERSION else None
        if not isinstance(entries, dict) or not all(_is_entry(entry) for entry in entries.values()):
            raise self._damaged()
        return entries

    def _damaged(self) -> ConfigError:
        return ConfigError(f"{self.path.name} is damaged; remove it and give the keys again", where=str(self.path))

    def _change(self, change: Any) -> Any:
        if not self.path.parent.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.path):
            entries = self._read()
            before = json.dumps(entries)
            result = change(entries)
            if json.dumps(entries) != before:
                data = json.dumps({"version": _VERSION, "keys": entries}, indent=1).encode()
                write_atomic(self.path, data, mode=0o600)
            return result

    # -- the keyring ---------------------------------------------------------------------------------------------

    @property
    def _service(self) -> str:
        # Two installations of one user do not share keys.
        return f"lumen:{self.path}"

    def _to_keyring(self, provider: str, text: str) -> None:
        backend = keyring()
        if backend is None:
            raise ConfigError("no usable system keyring was found; keep the key in the file instead")
        try:
            backend.set_password(self._service, provider, text)
        except Exception as error:  # noqa: BLE001 - every backend raises its own kind
            raise ConfigError(f"the system keyring refused: {type(error).__name__}") from None

    def _from_keyring(self, provider: str) -> dict[str, str] | None:
        backend = keyring()
        if backend is None:
            raise KeyMissing(f"the key of the provider {provider} is in the system keyring, which cannot be used here")
        try:
            text = backend.get_password(self._service, provider)
            entry = json.loads(text) if text else None
        except Exception as error:  # noqa: BLE001 - every backend raises its own kind
            raise KeyMissing(
                f"the system keyring did not give the key of the provider {provider}: {type(error).__name__}"
            ) from None
        return entry if _is_entry(entry) else None

    def _forget(self, provider: str) -> bool:
        backend = keyring()
        try:
            if backend is None or backend.get_password(self._service, provider) is None:
                return False
            backend.delete_password(self._service, provider)
        except Exception:  # noqa: BLE001 - a keyring that is locked or gone holds nothing that could be removed
            return False
        return True


def vault(paths: Paths) -> Vault:
    """The keys of the installation at `paths`."""
    return Vault(paths.config_dir / "provider-keys.json")


def keyring() -> Any | None:
    """The system's keyring; `None` where the package or a backend that keeps things safely is missing."""
    try:
        found = importlib.import_module("keyring").get_keyring()
        # Backends that fail or forget have no priority; those that keep plain text have less than one.
        usable = found.priority >= 1
    except Exception:  # noqa: BLE001 - an optional package of many backends: whatever breaks in it, there is none
        return None
    return found if usable else None


def read(
    reference: str, provider: str, base_url: str, store: Vault, environ: Mapping[str, str] | None = None
) -> Secret:
    """The key that a configuration refers to as `env:NAME`, `keyring` or `file`. May block on the keyring.

    Raises:
        KeyMissing: it is not there; the message says what to do.
        ConfigError: what keeps it is damaged.
    """
    if reference in ("keyring", "file"):
        return store.find(provider, base_url, "keyring" if reference == "keyring" else "file")
    variable = reference.removeprefix("env:")
    value = (os.environ if environ is None else environ).get(variable, "")
    if not value.strip():
        raise KeyMissing(f"the provider {provider} takes its key from ${variable}, which is not set")
    try:
        return secret(value)
    except ConfigError as error:
        raise KeyMissing(f"the provider {provider} takes its key from ${variable}: {error.message}") from None


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("origin", "key"))

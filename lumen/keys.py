"""Keys of this endpoint: minted once, kept only as a hash, found by the hash of what a client presents."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lumen.config.schema import PRIORITIES, Priority
from lumen.core.errors import ConfigError
from lumen.core.roles import ROLES, Role
from lumen.files import locked, write_atomic
from lumen.paths import Paths

PREFIX = "lumen-"
LOCAL = "local"
_SECRET_BYTES = 32
_LONGEST_PRESENTED = 512
_LARGEST_FILE = 16 * 1024 * 1024
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may use; `None`: no such limit. Amounts are pico-dollars, see `lumen/core/money.py`.

    `max_request`: of one request. `per_minute`, `daily`, `monthly`: of these spans of UTC. `credit`: of all time.
    `rpm`, `tpm`: requests and tokens a minute. `concurrency`: requests at once.
    """

    max_request: int | None = None
    per_minute: int | None = None
    daily: int | None = None
    monthly: int | None = None
    credit: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key without its secret. Times are Unix seconds; `hash` is the hex SHA-256 of the whole key.

    `models` and `routes` are glob patterns. With neither, the key may use everything; with either, only what
    they name: a declared route must match `routes`, a model addressed by its own name must match `models`.
    `retains`: whether anything of what its requests say may be kept, see `lumen/gateway/retention.py`.
    `priority`: whose turn it is at a local model, in place of the route's; `None`: as the route says.
    `reserve`: the memory of the local models that it is limited to is kept free for them while they are away.
    `role`: what it may do in the admin API, see `lumen/core/roles.py`; such a key asks no model. `None`: it only asks.
    """

    id: str
    name: str
    hash: str
    created: float
    expires: float | None = None
    models: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    revoked: float | None = None
    limits: Limits = field(default_factory=Limits)
    retains: bool = True
    role: Role | None = None
    priority: Priority | None = None
    reserve: bool = False

    def active(self, now: float) -> bool:
        """Neither revoked nor expired at `now` (Unix seconds)."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def allows(self, name: str, *, route: bool) -> bool:
        """Whether this key may address `name`. `route`: the configuration declares it as a route."""
        if not self.models and not self.routes:
            return True
        return any(fnmatchcase(name, glob) for glob in (self.routes if route else self.models))


_NOBODY: tuple[bytes, Key | None] = (b"", None)


class KeyRing:
    """An immutable set of keys, found by what a client presents."""

    __slots__ = ("_by_hash", "keys")

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys: tuple[Key, ...] = tuple(keys)
        self._by_hash = {(digest := bytes.fromhex(key.hash)): (digest, key) for key in self.keys}

    def find(self, presented: str, now: float) -> Key | None:
        """The active key whose secret is `presented`, else `None`.

        What is looked up is a SHA-256 digest: a client that learns from timing how far a digest matched
        cannot choose a key whose digest matches further, and the digest is compared in constant time.
        """
        if not presented or len(presented) > _LONGEST_PRESENTED:
            return None
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
        known, key = self._by_hash.get(digest, _NOBODY)
        if key is None or not hmac.compare_digest(known, digest):
            return None
        return key if key.active(now) else None

    def with_key(self, key: Key) -> KeyRing:
        """This ring and `key`.

        Raises:
            ConfigError: a key of that name that was not revoked is there already.
        """
        if any(other.name == key.name and other.revoked is None for other in self.keys):
            raise ConfigError(f"a key named {key.name!r} exists; revoke it first or choose another name")
        return KeyRing((*self.keys, key))

    def without(self, name: str) -> KeyRing:
        """This ring less every key of that name."""
        return KeyRing(key for key in self.keys if key.name != name)

    def revoke(self, name_or_id: str, now: float) -> KeyRing:
        """This ring with that key revoked.

        Raises:
            ConfigError: there is no such key, or it is revoked already.
        """
        found = [key for key in self.keys if name_or_id in (key.name, key.id)]
        live = [key for key in found if key.revoked is None]
        if not live:
            why = "is revoked already" if found else "does not exist"
            raise ConfigError(f"key {name_or_id!r} {why}; `lumen key ls` lists the keys")
        return KeyRing(replace(key, revoked=now) if key is live[0] else key for key in self.keys)

    def limit(self, name_or_id: str, limits: Mapping[str, int | None]) -> KeyRing:
        """This ring with some of that key's limits set; `None` lifts one, those not named stay.

        Raises:
            ConfigError: there is no such key, or it is revoked.
        """
        found = self.in_use(name_or_id)
        changed = replace(found, limits=replace(found.limits, **limits))
        return KeyRing(changed if key is found else key for key in self.keys)

    def change(self, name_or_id: str, **fields: Any) -> KeyRing:
        """This ring with some of that key's fields set: models, routes, expires, retains, priority, reserve.

        Raises:
            ConfigError: there is no such key, or it is revoked; it has a role and would ask models; it would reserve
                memory and is limited to no models.
        """
        found = self.in_use(name_or_id)
        changed = replace(found, **fields)
        named = bool(changed.models or changed.routes)
        if changed.role is not None and named:
            raise ConfigError(f"key {name_or_id!r} has a role and asks no model")
        if changed.reserve and not named:
            raise ConfigError(f"key {name_or_id!r} may use everything; memory is reserved for keys limited to models")
        return KeyRing(changed if key is found else key for key in self.keys)

    def in_use(self, name_or_id: str) -> Key:
        """That key.

        Raises:
            ConfigError: there is no such key, or it is revoked.
        """
        found = next((key for key in self.keys if name_or_id in (key.name, key.id) and key.revoked is None), None)
        if found is None:
            raise ConfigError(f"there is no key {name_or_id!r} in use; `lumen key ls` lists the keys")
        return found


def mint(
    name: str,
    *,
    models: Iterable[str] = (),
    routes: Iterable[str] = (),
    expires: float | None = None,
    now: float | None = None,
    limits: Limits | None = None,
    retains: bool = True,
    role: Role | None = None,
    priority: Priority | None = None,
    reserve: bool = False,
) -> tuple[Key, str]:
    """A new key and its secret (`lumen-` and 256 random bits), which is nowhere kept.

    `expires`, `now`: Unix seconds; `now` is the clock's time unless given.
    """
    secret = PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
    key = Key(
        id=f"key-{secrets.token_hex(6)}",
        name=name,
        hash=hashlib.sha256(secret.encode()).hexdigest(),
        created=time.time() if now is None else now,
        expires=expires,
        models=tuple(models),
        routes=tuple(routes),
        limits=limits or Limits(),
        retains=retains,
        role=role,
        priority=priority,
        reserve=reserve,
    )
    return key, secret


def load(path: Path) -> KeyRing:
    """The keys kept at `path`; an empty ring where the file does not exist.

    Raises:
        ConfigError: the file is not what `save` writes.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return KeyRing()
    try:
        if len(raw) > _LARGEST_FILE:
            raise ValueError("too large")
        data = json.loads(raw)
        if data["version"] != _VERSION:
            raise ValueError("unknown version")
        return KeyRing(_key(entry) for entry in data["keys"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"not a file of keys ({type(error).__name__}); restore it, or remove it and add the keys again",
            where=str(path),
        ) from None


def _key(entry: Any) -> Key:
    """One entry of the file, every field of the right type.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    times = [entry["created"], entry["expires"] or 0.0, entry["revoked"] or 0.0]
    texts = [entry["id"], entry["name"], entry["hash"], *entry["models"], *entry["routes"]]
    if not all(isinstance(text, str) for text in texts) or len(bytes.fromhex(entry["hash"])) != 32:
        raise ValueError("wrong text")
    if not all(isinstance(at, (int, float)) and not isinstance(at, bool) for at in times):
        raise ValueError("wrong time")
    # A file of an earlier version has no limits.
    limits = Limits(**entry.get("limits", {}))
    set_ = [value for item in fields(Limits) if (value := getattr(limits, item.name)) is not None]
    if not all(type(value) is int and value >= 0 for value in set_):
        raise ValueError("wrong limit")
    if not isinstance(entry.get("retains", True), bool):
        raise ValueError("wrong retention")
    if not isinstance(entry.get("reserve", False), bool):
        raise ValueError("wrong reserve")
    if entry.get("role") is not None and entry["role"] not in ROLES:
        raise ValueError("wrong role")
    if entry.get("priority") is not None and entry["priority"] not in PRIORITIES:
        raise ValueError("wrong priority")
    return Key(**{**entry, "models": tuple(entry["models"]), "routes": tuple(entry["routes"]), "limits": limits})


def save(path: Path, ring: KeyRing) -> None:
    """Write `ring` to `path`: readable by this user alone, replaced in one step."""
    data = {"version": _VERSION, "keys": [asdict(key) for key in ring.keys]}
    write_atomic(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode(), mode=0o600)


def update(path: Path, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """Read, change and save the keys at `path` while no other process does. Returns the new ring."""
    with locked(path):
        ring = change(load(path))
        save(path, ring)
    return ring


def ensure_local(paths: Paths) -> str:
    """The secret of this machine's own user, minted and registered as `local` where it is missing or revoked.

    Raises:
        ConfigError: the file of keys is damaged.
        OSError: the folder of the configuration cannot be written.
    """
    with locked(paths.keys_file):
        ring = load(paths.keys_file)
        secret = _read_secret(paths.local_key_file)
        found = ring.find(secret, time.time()) if secret else None
        if found is not None and found.name == LOCAL:
            return secret
        key, secret = mint(LOCAL)
        # The secret first: a crash between the two leaves a file that the next call replaces.
        write_atomic(paths.local_key_file, (secret + "\n").encode(), mode=0o600)
        save(paths.keys_file, ring.without(LOCAL).with_key(key))
        return secret


def _read_secret(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()[:_LONGEST_PRESENTED]
    except (FileNotFoundError, UnicodeDecodeError):
        return ""

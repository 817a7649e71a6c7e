"""The books and the keys of this machine, as its operators ask for them: from the command line here, or from afar.

What reads or writes a file blocks; `Clerk` does it off the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from lumen.audit import AuditLog
from lumen.config.schema import Priority
from lumen.core.errors import ConfigError, RequestError
from lumen.core.roles import Role
from lumen.keys import KeyRing, Limits, load, mint, update
from lumen.ledger.report import GROUPS, reading
from lumen.paths import Paths

LONGEST_NAME = 64
MOST_ENTRIES = 1000
_MOST_PATTERNS = 256
# Unix seconds that nothing is later than.
_LATEST = 1 << 40

_Patterns = Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=_MOST_PATTERNS)]
_Lasts = Annotated[float, Meta(gt=0, le=1e10)]
_Amount = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None


class NewKey(Struct, forbid_unknown_fields=True):
    """What a key is made from. `lasts`: seconds until it ends. `limits`: as `lumen.keys.Limits` has them."""

    models: _Patterns = []
    routes: _Patterns = []
    lasts: _Lasts | None = None
    role: Role | None = None
    retains: bool = True
    priority: Priority | None = None
    reserve: bool = False
    limits: dict[str, _Amount] = {}


class Change(Struct, forbid_unknown_fields=True):
    """What is changed of a key; `null` lifts a limit, a priority or its end, what is not named stays."""

    limits: dict[str, _Amount] = {}
    models: _Patterns | UnsetType = UNSET
    routes: _Patterns | UnsetType = UNSET
    lasts: _Lasts | UnsetType | None = UNSET
    retains: bool | UnsetType = UNSET
    priority: Priority | UnsetType | None = UNSET
    reserve: bool | UnsetType = UNSET


# What is told of a key that was changed.
_CHANGED = ("limits", "models", "routes", "expires", "retains", "priority", "reserve")
_T = TypeVar("_T")
_change = msgspec.json.Decoder(Change)
_new = msgspec.json.Decoder(NewKey)


def usable_name(name: str) -> bool:
    """Whether a key can be called so."""
    return bool(name.strip()) and len(name) <= LONGEST_NAME and name.isprintable()


def used(paths: Paths, by: str, since: int) -> dict[str, Any]:
    """Sums by one of `GROUPS` since a Unix second, as `rows` of name and sums and a `total`; `names` of keys by id."""
    with reading(paths.ledger_file) as ledger:
        rows, total = ledger.usage(by, since), ledger.total(since)
    names = {key.id: key.name for key in load(paths.keys_file).keys} if by == "key" else {}
    return {"rows": [[row.name, asdict(row.sums)] for row in rows], "total": asdict(total), "names": names}


def changed_key(ring: KeyRing, name: str, change: Mapping[str, Any]) -> KeyRing:
    """The ring with what a `Change` names of a key set, some of its `limits` and other fields; `lasts`: from now on.

    Raises:
        ConfigError: there is no such key in use, or it may not be so.
    """
    fields = {key: value for key, value in change.items() if key not in ("limits", "lasts")}
    fields |= {key: tuple(fields[key]) for key in ("models", "routes") if key in fields}
    if "lasts" in change:
        fields["expires"] = None if change["lasts"] is None else time.time() + change["lasts"]
    return ring.limit(name, change.get("limits", {})).change(name, **fields)


def listed(paths: Paths) -> list[dict[str, Any]]:
    """Every key less its hash."""
    found = [asdict(key) for key in load(paths.keys_file).keys]
    for entry in found:
        del entry["hash"]
    return found


def entries(paths: Paths, action: str, last: int) -> list[dict[str, Any]]:
    """The newest entries of the audit log whose action begins so, oldest first."""
    return [asdict(e) for e in AuditLog(paths.audit_file).entries() if e.action.startswith(action)][-last:]


class Clerk:
    """What operators may ask of books and keys, of a running gateway. Arguments are as they came, unchecked.

    `reload`: puts keys that changed in force.
    """

    def __init__(self, paths: Paths, reload: Callable[[], Awaitable[Any]]) -> None:
        self._paths = paths
        self._reload = reload

    async def usage(self, by: str, since: str) -> dict[str, Any]:
        """Raises:
        RequestError: not a group, or not Unix seconds.
        """
        if by not in GROUPS:
            raise RequestError(f"Send 'by' as one of {', '.join(GROUPS)}.", param="by")
        start = _whole(since, "since", _LATEST)
        try:
            return await asyncio.to_thread(used, self._paths, by, start)
        except ConfigError as error:
            raise RequestError(error.message, status=409, code="ledger_unreadable") from None

    async def keys(self) -> list[dict[str, Any]]:
        return await asyncio.to_thread(listed, self._paths)

    async def add_key(self, name: str, options: str) -> dict[str, Any]:
        """Make a key of `options` (the JSON of `NewKey`); its secret is in this answer and nowhere else.

        Raises:
            RequestError: there can be no such key.
        """
        asked = _read(_new, options)
        if not usable_name(name):
            raise RequestError(f"A name has 1 to {LONGEST_NAME} visible characters.", param="name")
        if asked.role is not None and (asked.models or asked.routes):
            raise RequestError("A key with a role asks no model.", param="options")
        if asked.reserve and not (asked.models or asked.routes):
            raise RequestError("Memory is reserved for keys limited to models or routes.", param="options")
        now = time.time()
        key, secret = mint(
            name,
            models=asked.models,
            routes=asked.routes,
            expires=None if asked.lasts is None else now + asked.lasts,
            now=now,
            limits=Limits(**_named(asked.limits)),
            retains=asked.retains,
            role=asked.role,
            priority=asked.priority,
            reserve=asked.reserve,
        )
        await self._change(lambda ring: ring.with_key(key))
        return {"id": key.id, "name": name, "key": secret, "expires": key.expires}

    async def set_key(self, name: str, options: str) -> dict[str, Any]:
        """Change a key by `options` (the JSON of `Change`); what it is then.

        Raises:
            RequestError: there is no such key in use, or no such limit.
        """
        asked = _read(_change, options)
        _named(asked.limits)
        change = {key: value for key, value in structs.asdict(asked).items() if value is not UNSET}
        found = asdict((await self._change(lambda ring: changed_key(ring, name, change))).in_use(name))
        return {"id": found["id"], "name": name} | {key: found[key] for key in _CHANGED}

    async def revoke_key(self, name: str) -> dict[str, Any]:
        """Raises:
        RequestError: there is no such key in use.
        """
        now = time.time()
        await self._change(lambda ring: ring.revoke(name, now))
        return {"revoked": name}

    async def audit(self, action: str, last: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(entries, self._paths, action, max(_whole(last, "last", MOST_ENTRIES), 1))

    async def verify(self, last: str) -> dict[str, Any]:
        """What a check of the audit log came to; `last`: a hash that must be in it, empty for none."""
        return asdict(await asyncio.to_thread(AuditLog(self._paths.audit_file).verify, last or None))

    async def _change(self, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
        try:
            ring = await asyncio.to_thread(update, self._paths.keys_file, change)
        except ConfigError as error:
            raise RequestError(error.message, status=409, code="key_refused", param="name") from None
        await self._reload()
        return ring


def _read(decoder: msgspec.json.Decoder[_T], text: str) -> _T:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RequestError(f"The options cannot be read: {error}.", param="options") from None


def _named(limits: dict[str, int | None]) -> dict[str, int | None]:
    unknown = set(limits) - set(Limits.__dataclass_fields__)
    if unknown:
        raise RequestError(f"There is no limit '{min(unknown)[:64]}'.", param="options")
    return limits


def _whole(text: str, name: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 20 or int(text) > most:
        raise RequestError(f"Send '{name}' as a whole number up to {most}.", param=name)
    return int(text)

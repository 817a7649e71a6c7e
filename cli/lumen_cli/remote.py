"""Gateways of other machines: where they are, who one is there, and the connection to their admin API.

What is kept of a sign-on is in one file that only its user can read, and each token goes to the address it is for.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lumen_cli.choice import chosen
from lumen_cli.errors import USAGE, CliError

if TYPE_CHECKING:
    import asyncio

VERSION = 1
_LARGEST_FILE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Context:
    """One gateway elsewhere. `expires`: Unix seconds of `token`, where that is known.

    `ca`, `cert`, `cert_key`: files for TLS. `issuer` and what follows: only after a sign-on at an issuer.
    """

    url: str
    token: str
    ca: str | None = None
    cert: str | None = None
    cert_key: str | None = None
    expires: float | None = None
    issuer: str | None = None
    client_id: str | None = None
    use: str | None = None
    refresh: str | None = None

    @property
    def name(self) -> str:
        return urlsplit(self.url).netloc


class Contexts:
    """Those that are kept, in the file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> dict[str, Context]:
        """By their names.

        Raises:
            CliError: the file is damaged.
        """
        try:
            with self.path.open("rb") as file:
                data = json.loads(file.read(_LARGEST_FILE))
            if data["version"] != VERSION:
                raise ValueError
            return {name: _context(entry) for name, entry in data["contexts"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CliError(f"{self.path} is damaged", "remove it and sign on again with `lumen login`") from None

    def find(self, name_or_url: str) -> Context | None:
        found = self.all()
        return found.get(name_or_url) or found.get(urlsplit(address(name_or_url)).netloc)

    def change(self, name: str, change: Callable[[Context | None], Context | None]) -> Context | None:
        """Replace one by what `change` makes of it, while no other process does; `None` removes it."""
        from lumen.files import locked, write_atomic

        with locked(self.path):
            found = self.all()
            before = found.pop(name, None)
            after = change(before)
            if after is not None:
                found[name] = after
            if after != before:
                data = {"version": VERSION, "contexts": {key: asdict(one) for key, one in found.items()}}
                write_atomic(self.path, (json.dumps(data, indent=1) + "\n").encode(), mode=0o600)
        return after


class Afar:
    """The way to the admin API of a gateway elsewhere, kept open to who signed on there."""

    def __init__(self, context: Context, kept: Contexts | None) -> None:
        self._context = context
        # None: the token comes from the environment and is nowhere kept.
        self._kept = kept

    @property
    def url(self) -> str:
        return self._context.url

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self._context.url)
        assert parts.hostname is not None
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=tls(self._context))

    async def open(self, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        import asyncio

        parts = urlsplit(self._context.url)
        secured = tls(self._context)
        return await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=secured, limit=limit)

    def headers(self) -> dict[str, str]:
        """What each call must carry; a token that is about to end is renewed first."""
        import time

        from lumen_cli import signon

        ends = self._context.expires
        if self._kept is not None and self._context.refresh and ends is not None and ends - signon.EARLY < time.time():
            self.renew()
        return {"Authorization": f"Bearer {self._context.token}", "Host": self._context.name}

    def renew(self) -> bool:
        """Get a new token for the old one, where there is a way to; whether there is a new one."""
        from lumen_cli import signon

        if self._kept is None or self._context.refresh is None:
            return False
        before = self._context

        def renewed(found: Context | None) -> Context | None:
            # Another process may have been quicker, and the old refresh token is worth nothing any more.
            if found is None or found.token != before.token:
                return found
            return signon.refreshed(found)

        after = self._kept.change(before.name, renewed)
        if after is None or after.token == before.token:
            return False
        self._context = after
        return True

    def gone(self) -> CliError:
        return CliError(f"{self.url} does not answer", "check the address, and that the gateway runs there")

    def unknown(self) -> CliError:
        return CliError(f"{self.url} does not know you any more", f"run `lumen login --url {self.url}`")


def door() -> Afar | None:
    """The way to the gateway that was chosen; `None`: it is this machine's.

    Raises:
        CliError: nobody signed on there.
    """
    where = chosen()
    if where is None:
        return None
    from lumen.paths import paths

    token = os.environ.get("LUMEN_TOKEN", "").strip()
    if token:
        return Afar(Context(address(where), token, ca=os.environ.get("LUMEN_CA")), None)
    kept = contexts(paths().config_dir)
    found = kept.find(where)
    if found is None:
        raise CliError(f"you are not signed on at {where}", f"run `lumen login --url {where}`")
    return Afar(found, kept)


def contexts(config_dir: Path) -> Contexts:
    return Contexts(config_dir / "signed-on.json")


def address(text: str) -> str:
    """A gateway's address as it is kept: https, host and port, nothing after them.

    Raises:
        CliError: it is none.
    """
    whole = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.username is not None or not whole.isprintable() or " " in whole:
        raise CliError(f"{text[:80]!r} is not an address", "write https://HOST:PORT", code=USAGE)
    if parts.scheme != "https":
        raise CliError("a gateway elsewhere is spoken to over TLS only", f"write https://{parts.netloc}", code=USAGE)
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}" + (f":{port}" if port is not None else "")


def tls(context: Context) -> ssl.SSLContext:
    """What connections there are made with: the system's authorities, and those given besides.

    Raises:
        CliError: a file cannot be used.
    """
    made = ssl.create_default_context()
    try:
        if context.ca is not None:
            made.load_verify_locations(cafile=context.ca)
        if context.cert is not None:
            made.load_cert_chain(context.cert, context.cert_key)
    except (OSError, ssl.SSLError) as error:
        raise CliError(f"a file for TLS cannot be used: {error}", "check --ca, --cert and --cert-key") from None
    return made


def _context(entry: Any) -> Context:
    known = {field.name for field in fields(Context)}
    texts = [value for name, value in entry.items() if name != "expires" and value is not None]
    if not set(entry) <= known or not all(isinstance(text, str) for text in texts):
        raise ValueError("wrong entry")
    made = Context(**entry)
    return replace(made, url=address(made.url))

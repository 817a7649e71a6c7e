"""Who one is at gateways of other machines: what is kept of a sign-on, in one file that only its user can read."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lumen_cli.errors import USAGE, CliError

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

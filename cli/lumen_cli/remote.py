"""The way to the admin API of a gateway on another machine. Each token goes to the address it is for."""

from __future__ import annotations

import http.client
import os
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lumen_cli import signon
from lumen_cli.choice import chosen
from lumen_cli.contexts import Context, Contexts, address, contexts, tls
from lumen_cli.errors import CliError

if TYPE_CHECKING:
    import asyncio


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
        ends = self._context.expires
        if self._kept is not None and self._context.refresh and ends is not None and ends - signon.EARLY < time.time():
            self.renew()
        return {"Authorization": f"Bearer {self._context.token}", "Host": self._context.name}

    def renew(self) -> bool:
        """Get a new token for the old one, where there is a way to; whether there is a new one."""
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

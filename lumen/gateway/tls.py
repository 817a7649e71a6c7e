"""TLS of the endpoint from files, taken over anew when they change, without a restart.

Whatever renews the files (certbot, lego, a secret that is mounted) needs to tell nobody. Connections that are open
keep what they were made with; the next ones get the new files. Files that cannot be used leave the old ones in force.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lumen.config.schema import Tls
from lumen.core.errors import ConfigError

# Seconds between two looks at the files.
LOOK = 5.0
_Stamp = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """The files of `tls`, relative to the folder `base`; `say` is told what became of a change.

    Raises:
        ConfigError: they cannot be used.
    """

    def __init__(self, tls: Tls, base: Path, say: Callable[[str], None]) -> None:
        self._tls = tls
        self._base = base
        self._say = say
        self._stamp = self._stamped()
        self._current = context(tls, base)
        # What the server was started with; each handshake is led on to what is current.
        self.context = context(tls, base)
        self.context.sni_callback = self._lead

    async def watch(self, every: float = LOOK) -> None:
        """Look at the files for as long as the gateway runs."""
        while True:
            await asyncio.sleep(every)
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """Take the files over where they changed; whether they were. Blocking."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        # Files that cannot be used are told of once, and looked at again when one of them changes.
        self._stamp = stamp
        try:
            self._current = context(self._tls, self._base)
        except ConfigError as error:
            self._say(f"the new certificate is not used, the old one stays: {error.message}")
            return False
        self._say("the certificate was renewed")
        return True

    def _lead(self, connection: ssl.SSLObject, name: str | None, given: ssl.SSLContext) -> None:
        connection.context = self._current

    def _stamped(self) -> _Stamp:
        return tuple(_stamp(self._base / name) for name in (self._tls.cert, self._tls.key, self._tls.client_ca) if name)


def context(tls: Tls, base: Path) -> ssl.SSLContext:
    """What connections are made with: TLS 1.2 or newer, HTTP/1.1, a client's certificate where `client_ca` is given.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols(["http/1.1"])
    assert tls.cert is not None and tls.key is not None
    cert, key = base / tls.cert, base / tls.key
    # Without an answer of its own, the library would ask for the password of a locked key on the terminal.
    _use("cert and server.tls.key", lambda: made.load_cert_chain(cert, key, password=_locked))
    if tls.client_ca is not None:
        authority = base / tls.client_ca
        made.verify_mode = ssl.CERT_REQUIRED
        _use("client_ca", lambda: made.load_verify_locations(cafile=authority))
        # A ticket would let a client come back after the authority that vouched for it was taken out.
        made.options |= ssl.OP_NO_TICKET
        made.num_tickets = 0
    return made


def _use(field: str, load: Callable[[], Any]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = "the key does not belong to the certificate"
        else:
            reason = "this is not a file of PEM blocks that can be used"
        raise ConfigError(f"server.tls.{field}: {reason}") from None
    except OSError as error:
        raise ConfigError(f"server.tls.{field}: cannot be read ({error.strerror or error})") from None


def _locked() -> str:
    raise ConfigError("server.tls.key: the key is locked by a password; give one that is not")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file, a link being followed; `None` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

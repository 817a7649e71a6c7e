"""By which names the endpoint may be addressed, so that a web page cannot reach it through a name of its own.

A page whose name was made to point at this machine (DNS rebinding) sends that name as `Host`; only names that are
known are served. An address in numbers is no name that anybody could point elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from lumen.core.errors import RequestError

# Values of the header that were found good; a client cannot make it grow without end.
_MOST_KEPT = 256
_LONGEST = 255


class Hosts:
    """Names that are served: those of this machine's loopback, addresses, and the given ones.

    Args:
        names: such as `lumen.example.com`, `*.example.com` (whatever ends so), or `*` (any name at all).
    """

    __slots__ = ("_any", "_names", "_suffixes", "known")

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = [name.lower().rstrip(".") for name in names]
        self._any = "*" in given
        self._names = {"localhost", *(name for name in given if not name.startswith("*"))}
        self._suffixes = (".localhost", *(name[1:] for name in given if name.startswith("*.")))
        # A client of HTTP/1.0 names no host; browsers always do.
        self.known: set[str | None] = {None}

    def check(self, host: str | None) -> None:
        """Let the value of a `Host` header pass, and know it from then on.

        Raises:
            RequestError: 421.
        """
        name = None if host is None else name_of(host)
        if host is not None and not self._serves(name):
            known = "the host is not readable" if name is None else f"'{name}' is none"
            raise RequestError(
                f"This server is not addressed by that name: {known} of the names it serves. "
                "Its operator can add names with server.hosts in the configuration.",
                status=421,
                code="unknown_host",
            )
        if len(self.known) >= _MOST_KEPT:
            self.known = {None}
        self.known.add(host)

    def check_origin(self, origin: str) -> None:
        """Let a page's `Origin` pass where it is this machine's own. For an endpoint without keys.

        Raises:
            RequestError: 403.
        """
        try:
            name = urlsplit(origin).hostname
        except ValueError:
            name = None
        if name is None or not self._serves(name.rstrip(".")):
            raise RequestError(
                "Web pages of other origins are not served while keys are off.", status=403, code="foreign_origin"
            )

    def _serves(self, name: str | None) -> bool:
        if name is None:
            return False
        return self._any or name in self._names or name.endswith(self._suffixes) or _is_address(name)


def name_of(host: str) -> str | None:
    """The name or address in a `Host` header, in small letters, without port and last dot; `None`: there is none.

    Source: RFC 9110 section 7.2 and RFC 3986 section 3.2.2.
    """
    if len(host) > _LONGEST:
        return None
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        if not closed or not _is_address(name) or ":" not in name or (port and not port.startswith(":")):
            return None
        port = port[1:]
    else:
        name, _, port = host.partition(":")
    if port and not (port.isascii() and port.isdigit()):
        return None
    name = name.lower().removesuffix(".")
    plain = name.replace("-", "").replace(".", "").replace("_", "").replace(":", "")
    return name if plain.isascii() and plain.isalnum() else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return "%" not in name

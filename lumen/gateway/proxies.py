"""Whom to believe about where a request comes from: proxies by their addresses, and nobody else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# Proxies one behind the other; beyond that nothing is read.
_MOST_HOPS = 32
Address = IPv4Address | IPv6Address


class Proxies:
    """The proxies that are trusted to say who their client is.

    Args:
        trusted: addresses and networks such as `10.0.0.0/8`.

    Raises:
        ValueError: one of them is neither.
    """

    __slots__ = ("_networks",)

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._networks = tuple(ip_network(network) for network in trusted)

    def client(self, peer: str | None, forwarded: Sequence[str]) -> str | None:
        """The address of the client: the last one that no trusted proxy vouches for, from the nearest on.

        Args:
            peer: who the connection comes from; `None`: not known.
            forwarded: the `X-Forwarded-For` headers in their order, each `client, proxy, proxy`.
        """
        found = address(peer or "")
        if found is None:
            return None
        hops = [hop for line in forwarded for hop in line.split(",")][-_MOST_HOPS:]
        while hops and self._trusts(found):
            named = address(hops.pop())
            if named is None:
                break
            found = named
        return str(found)

    def secure(self, peer: str | None, tls: bool, proto: Sequence[str]) -> bool:
        """Whether the request came over TLS the whole way: here, or to the trusted proxy that is our peer.

        Args:
            tls: the connection itself is. `proto`: the `X-Forwarded-Proto` headers in their order.
        """
        found = address(peer or "")
        if found is None or not self._trusts(found) or not proto:
            return tls
        # What the proxy itself added is the last; those before it may be the client's own words.
        return proto[-1].rpartition(",")[2].strip().lower() == "https"

    def _trusts(self, found: Address) -> bool:
        return any(found.version == network.version and found in network for network in self._networks)


def address(text: str) -> Address | None:
    """An address as it stands in a header, with or without brackets and port; `None` where it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found

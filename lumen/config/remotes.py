"""What may be said of servers elsewhere: their addresses, headers, models and prices. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from lumen.config.reading import At
from lumen.config.schema import Pricing, RemoteModel
from lumen.core.money import Price, Tier

HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", re.ASCII)
_SECRET_HEADERS = {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}


def is_loopback(host: str) -> bool:
    """Whether an endpoint on `host` is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_url(url: str, path: tuple[str | int, ...], at: At) -> None:
    """An address that requests can go to, with no secret in it."""
    dotted = ".".join(map(str, path))
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(c.isspace() or not c.isprintable() for c in url):
        raise at.error(path, f"{dotted}: expected an address such as https://api.example.com/v1")
    if parts.username is not None or parts.password is not None:
        raise at.error(path, f"{dotted}: no user name or password may stand here; write `key: env:NAME`")
    if parts.query or parts.fragment:
        raise at.error(path, f"{dotted}: an address ends before ? and #")


def check_headers(headers: Mapping[str, str], path: tuple[str | int, ...], at: At) -> None:
    """Headers of every request to a provider: sendable, and none that carries a secret."""
    for header, value in headers.items():
        where = (*path, header)
        if header.lower() in _SECRET_HEADERS:
            raise at.error(where, f"the header {header} carries a secret; write `key: env:NAME` instead")
        if not HEADER.fullmatch(header) or not value.isprintable():
            raise at.error(where, "not a header that can be sent")


def check_remote_models(models: Mapping[str, RemoteModel], path: tuple[str | int, ...], at: At) -> None:
    """What is said of single models of a provider."""
    for name, model in models.items():
        where = (*path, name)
        if not name or len(name) > 256 or not name.isprintable() or " " in name:
            raise at.error(where, f"{name[:80]!r} cannot name a model")
        if model.context is not None and not 0 < model.context < 2**31:
            raise at.error((*where, "context"), "context: expected a number of tokens")
        if model.price is not None:
            check_price(model.price, (*where, "price"), at)


def check_price(pricing: Pricing, path: tuple[str | int, ...], at: At) -> None:
    """A price that costs can be computed with."""
    try:
        price_of(pricing)
    except ValueError as error:
        raise at.error(path, f"price: {error}") from None


def price_of(pricing: Pricing) -> Price:
    """A price as it is written, as the value that costs are computed with.

    Raises:
        ValueError: beyond what a price can be, or tiers out of order.
    """
    tiers = tuple(Tier(t.over, t.input, t.output, t.cached_input, t.cache_write) for t in pricing.tiers)
    return Price(
        input=pricing.input,
        output=pricing.output,
        cached_input=pricing.cached_input,
        cache_write=pricing.cache_write,
        per_request=pricing.per_request,
        per_second=pricing.per_second,
        per_image=pricing.per_image,
        per_audio_second=pricing.per_audio_second,
        tiers=tiers,
    )

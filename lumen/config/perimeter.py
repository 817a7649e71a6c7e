"""What the settings of the edge must satisfy: TLS, names, proxies, sign-on, administration from afar. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from urllib.parse import urlsplit

from lumen.config.schema import Acme, Auth, Oidc, Server
from lumen.core.errors import ConfigError

Wrong = Callable[[tuple[str | int, ...], str], ConfigError]
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|[0-9A-Fa-f:.]{2,45}", re.ASCII)
# Scheme, name or address, port. What a browser calls `null` is no origin: any page can have it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,31}://([a-z0-9_][a-z0-9_.-]{0,252}|\[[0-9a-f:.]{2,45}\])(:[1-9][0-9]{0,4})?")
# Ports that browsers leave out.
_USUAL = {"http": ":80", "https": ":443"}
_LONGEST = 1024
# What a certificate can be for: a name with a dot, as the public's are, none of its parts longer than 63.
_DOMAIN = re.compile(
    r"(?=.{4,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]"
)
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+", re.ASCII)
_MOST_DOMAINS = 100


def check_perimeter(server: Server, auth: Auth, wrong: Wrong) -> None:
    """Refuse what would leave the endpoint open in a way that its user did not mean.

    Raises:
        ConfigError: as `wrong(path, message)` makes it.
    """
    tls = server.tls
    if (tls.cert is None) is not (tls.key is None):
        missing = "key" if tls.key is None else "cert"
        raise wrong(("server", "tls"), f"server.tls needs '{missing}' too: a certificate and its key go together")
    if tls.client_ca is not None and not tls.on:
        raise wrong(("server", "tls", "client_ca"), "server.tls.client_ca needs server.tls.cert and key, or acme")
    if tls.acme is not None:
        if tls.cert is not None:
            raise wrong(("server", "tls", "acme"), "server.tls: give cert and key, or acme, which gets both")
        _acme(tls.acme, server.port, wrong)
    for name in ("cert", "key", "client_ca"):
        path = getattr(tls, name)
        if path is not None and (not path.strip() or len(path) > _LONGEST or not path.isprintable()):
            raise wrong(("server", "tls", name), f"server.tls.{name}: expected the path of a file")
    _named(server, wrong)
    if server.public_url is not None:
        _public(server.public_url, wrong)
    if server.remote_admin and not tls.on and not server.trusted_proxies:
        raise wrong(
            ("server", "remote_admin"),
            "server.remote_admin needs TLS: give server.tls, or server.trusted_proxies where a proxy ends it",
        )
    if server.remote_admin and not auth.required:
        raise wrong(("server", "remote_admin"), "server.remote_admin needs keys; leave auth.required on")
    if auth.oidc is not None:
        _oidc(auth.oidc, wrong)


def _named(server: Server, wrong: Wrong) -> None:
    """Names, origins and addresses of others."""
    for i, host in enumerate(server.hosts):
        if not _HOST.fullmatch(host) or ".." in host:
            raise wrong(
                ("server", "hosts", i), "server.hosts: expected names such as lumen.example.com or *.example.com"
            )
    for i, origin in enumerate(server.cors):
        if not _ORIGIN.fullmatch(origin) or origin.endswith(_USUAL.get(origin.partition(":")[0], " ")):
            raise wrong(
                ("server", "cors", i),
                "server.cors: expected origins as browsers send them, such as https://app.example.com or "
                "http://localhost:3000: no path, no usual port, small letters, no patterns",
            )
    for i, proxy in enumerate(server.trusted_proxies):
        try:
            ip_network(proxy)
        except ValueError as error:
            raise wrong(("server", "trusted_proxies", i), f"server.trusted_proxies: {error}") from None


def _acme(acme: Acme, port: int, wrong: Wrong) -> None:
    path = ("server", "tls", "acme")
    if not 0 < len(acme.domains) <= _MOST_DOMAINS:
        raise wrong((*path, "domains"), f"server.tls.acme.domains: expected 1 to {_MOST_DOMAINS} names")
    for i, domain in enumerate(acme.domains):
        if domain.startswith("*."):
            raise wrong(
                (*path, "domains", i), "server.tls.acme.domains: no patterns; the challenge is for single names"
            )
        if not _DOMAIN.fullmatch(domain):
            raise wrong((*path, "domains", i), "server.tls.acme.domains: expected names such as lumen.example.com")
    if len({domain.lower() for domain in acme.domains}) < len(acme.domains):
        raise wrong((*path, "domains"), "server.tls.acme.domains: a name is there twice")
    parts = urlsplit(acme.directory)
    if parts.scheme != "https" or not parts.hostname or parts.username or not acme.directory.isprintable():
        raise wrong((*path, "directory"), "server.tls.acme.directory: expected an address such as https://…/directory")
    if acme.email is not None and not _EMAIL.fullmatch(acme.email):
        raise wrong((*path, "email"), "server.tls.acme.email: expected an address such as you@example.com")
    ca = acme.directory_ca
    if ca is not None and (not ca.strip() or len(ca) > _LONGEST or not ca.isprintable()):
        raise wrong((*path, "directory_ca"), "server.tls.acme.directory_ca: expected the path of a file")
    if not 0 < acme.http_port < 65_536 or acme.http_port == port:
        raise wrong((*path, "http_port"), "server.tls.acme.http_port: expected a port, another one than server.port")


def _public(url: str, wrong: Wrong) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.path.strip("/"):
        raise wrong(
            ("server", "public_url"), "server.public_url: expected https://NAME, as browsers address this server"
        )


def _oidc(oidc: Oidc, wrong: Wrong) -> None:
    path = ("auth", "oidc")
    parts = urlsplit(oidc.issuer)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise wrong((*path, "issuer"), "auth.oidc.issuer: expected https, except on this machine itself")
    if not oidc.client_id.strip() or not oidc.client_id.isprintable():
        raise wrong((*path, "client_id"), "auth.oidc.client_id: expected the name this server has at the issuer")
    if "openid" not in oidc.scopes or any(not scope or " " in scope for scope in oidc.scopes):
        raise wrong((*path, "scopes"), "auth.oidc.scopes: expected a list of words with openid among them")
    if not oidc.roles:
        raise wrong(path, "auth.oidc.roles: name the groups that get a role; nobody else is let in")

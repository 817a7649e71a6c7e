"""The settings of the edge: what is refused, with its line, and what is taken."""

from __future__ import annotations

import pytest

from lumen.config.load import parse
from lumen.config.schema import Acme, Oidc, Tls
from lumen.core.errors import ConfigError

TLS = "server:\n  tls: {cert: a.pem, key: b.pem}\n"
OIDC = "auth:\n  oidc:\n    issuer: https://id.example.com\n    client_id: lumen\n    roles: {staff: viewer}\n"

WRONG = [
    ("server:\n  tls:\n    cert: a.pem\n", 2, "needs 'key' too"),
    ("server:\n  tls:\n    key: a.pem\n", 2, "needs 'cert' too"),
    ("server:\n  tls:\n    client_ca: a.pem\n", 3, "needs server.tls.cert"),
    ("server:\n  tls:\n    cert: ' '\n    key: k\n", 3, "expected the path of a file"),
    ("server:\n  hosts: ['http://x']\n", 2, "expected names such as"),
    ("server:\n  hosts: ['a..b']\n", 2, "expected names such as"),
    ("server:\n  hosts: ['x.*']\n", 2, "expected names such as"),
    ("server:\n  trusted_proxies: [10.0.0.1/8]\n", 2, "has host bits set"),
    *(
        (f"server:\n  cors:\n  - https://good.example\n  - '{origin}'\n", 4, "origins as browsers send them")
        for origin in (
            "*",
            "null",
            "",
            "app.example",
            "https://*.example",
            "https://app.example/",
            "https://app.example/x",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://me@app.example",
            "https://app.example:",
            "https://a b",
            "https://é.example",
            "https://x.example\\nX: y",
        )
    ),
    ("server:\n  trusted_proxies: [proxy]\n", 2, "does not appear to be"),
    ("server:\n  public_url: http://x.example\n", 2, "expected https://NAME"),
    ("server:\n  public_url: https://x.example/lumen\n", 2, "expected https://NAME"),
    ("server:\n  public_url: https://me:pw@x.example\n", 2, "no user name or password"),
    ("server:\n  tls:\n    acme: {domains: []}\n", 3, "1 to 100 names"),
    ("server:\n  tls:\n    acme: {}\n", 3, "domains"),
    ("server:\n  tls:\n    acme: {domains: ['*.a.example']}\n", 3, "no patterns"),
    ("server:\n  tls:\n    acme: {domains: [localhost]}\n", 3, "expected names"),
    ("server:\n  tls:\n    acme: {domains: [192.0.2.1]}\n", 3, "expected names"),
    ("server:\n  tls:\n    acme: {domains: [a..example]}\n", 3, "expected names"),
    ("server:\n  tls:\n    acme: {domains: ['a.example/x']}\n", 3, "expected names"),
    ("server:\n  tls:\n    acme: {domains: [a.example, A.example]}\n", 3, "twice"),
    ("server:\n  tls:\n    cert: a\n    key: b\n    acme: {domains: [a.example]}\n", 5, "gets both"),
    ("server:\n  tls:\n    acme: {domains: [a.example], directory: http://a.example/d}\n", 3, "such as https"),
    ("server:\n  tls:\n    acme: {domains: [a.example], directory: 'https://u:hunter2@a.example'}\n", 3, "as https"),
    ("server:\n  tls:\n    acme: {domains: [a.example], email: you}\n", 3, "you@example.com"),
    ("server:\n  tls:\n    acme: {domains: [a.example], directory_ca: ''}\n", 3, "path of a file"),
    ("server:\n  tls:\n    acme: {domains: [a.example], http_port: 0}\n", 3, "expected a port"),
    ("server:\n  tls:\n    acme: {domains: [a.example], http_port: 65536}\n", 3, "expected a port"),
    ("server:\n  port: 80\n  tls:\n    acme: {domains: [a.example]}\n", 4, "another one than"),
    ("server:\n  tls:\n    acme: {domain: [a.example]}\n", 3, "domain"),
    ("server:\n  remote_admin: true\n", 2, "needs TLS"),
    (TLS + "  remote_admin: true\nauth:\n  required: false\n", 3, "needs keys"),
    (OIDC.replace("https", "http"), 3, "expected https"),
    (OIDC.replace("lumen", "''"), 4, "the name this server has"),
    (OIDC.replace("viewer", "veiwer"), 5, "did you mean 'viewer'?"),
    (OIDC + "    scopes: [profile]\n", 6, "openid among them"),
    (OIDC + "    session: 0s\n", 6, "zero would fail"),
    (OIDC + "    client_secret: hunter2\n", 6, "env:NAME"),
    (OIDC.replace("    roles: {staff: viewer}\n", ""), 2, "name the groups"),
]


@pytest.mark.parametrize(("text", "line", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_what_would_leave_the_edge_open_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        parse(text, "f")
    assert wrong.value.message.startswith(f"f:{line}: ")
    assert said in wrong.value.message
    assert "hunter2" not in wrong.value.message


def test_the_settings_are_read() -> None:
    config = parse(
        "server:\n  tls: {cert: a.pem, key: b.pem, client_ca: ca.pem}\n  hosts: [a.example, '*.b.example', '::1']\n"
        "  trusted_proxies: [10.0.0.0/8, 'fd00::/8', 192.0.2.1]\n  remote_admin: true\n  public_url: https://x.example\n"
        + OIDC,
        "f",
    )
    assert config.server.tls == Tls("a.pem", "b.pem", "ca.pem")
    assert config.server.hosts == ("a.example", "*.b.example", "::1")
    assert config.auth.oidc == Oidc("https://id.example.com", "lumen", roles={"staff": "viewer"})


def test_origins_are_taken_as_browsers_send_them() -> None:
    origins = ("https://app.example", "http://localhost:3000", "https://[::1]:8443", "http://app.example:443")
    assert parse(f"server:\n  cors: {list(origins)}\n", "f").server.cors == origins


def test_a_proxy_that_ends_tls_is_enough_for_administration_from_afar() -> None:
    assert parse("server:\n  remote_admin: true\n  trusted_proxies: [127.0.0.1]\n", "f").server.remote_admin


def test_an_issuer_on_this_machine_needs_no_tls() -> None:
    text = OIDC.replace("https://id.example.com", "http://127.0.0.1:9400")
    assert parse(text, "f").auth.oidc is not None


def test_an_authority_is_asked_by_one_key_and_its_names_are_served() -> None:
    server = parse(
        "server:\n  remote_admin: true\n  tls: {acme: {domains: [box.example.com], http_port: 8080}}\n", "f"
    ).server
    assert server.tls == Tls(acme=Acme(("box.example.com",), http_port=8080)) and server.tls.on
    assert server.tls.acme is not None and server.tls.acme.directory.startswith("https://acme-v02.api.letsencrypt.org/")
    assert server.names == ("box.example.com",)
    mutual = parse("server:\n  tls: {client_ca: ca.pem, acme: {domains: [a.b.example.co.uk]}}\n", "f").server.tls
    assert mutual.client_ca == "ca.pem" and mutual.on and not Tls().on

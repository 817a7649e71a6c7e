"""TLS of connections that commands make."""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from urllib.parse import urlsplit

from lumen_cli.errors import CliError


def endpoint(url: str, tls: dict[str, Any] | None, timeout: float) -> http.client.HTTPConnection:
    """A connection to this machine's own endpoint.

    `tls`: as the gateway's status has it. Its certificate was made for the name others call it by; here it is known by
    the file itself.

    Raises:
        CliError: it asks for certificates, or its own cannot be read.
    """
    parts = urlsplit(url)
    host = parts.hostname or "127.0.0.1"
    if parts.scheme != "https" or tls is None:
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)
    if tls["mutual"]:
        raise CliError("the endpoint asks its clients for a certificate", "call it with a client that has one")
    try:
        context = ssl.create_default_context(cafile=tls["cert"])
    except OSError as error:
        raise CliError(f"the endpoint's certificate cannot be read: {error}", "check server.tls.cert") from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)

"""Signing on at an issuer from a terminal: the device grant, renewing what it gave, giving it back.

Sources: RFC 8628 (device grant), RFC 6749 section 6 (refreshing), RFC 7009 (revoking), OpenID Connect Discovery 1.0.
Whether a token is good is for the gateway to judge; here it is only carried.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from lumen_cli.contexts import Context, tls
from lumen_cli.errors import CliError

# Seconds before its end at which a token is renewed.
EARLY = 30.0
_TIMEOUT = 10.0
_LARGEST = 1024 * 1024
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Seconds between two questions where the issuer says nothing of it, and what `slow_down` adds. Source: RFC 8628.
_INTERVAL = 5.0
_LONGEST_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an issuer takes what; `None`: it has no such endpoint."""

    token: str
    device: str | None
    revocation: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A sign-on that waits for its user. `interval`, `seconds`: between questions, and until it is over."""

    code: str
    user_code: str
    uri: str
    complete: str | None
    interval: float
    seconds: float


def discover(context: Context) -> Endpoints:
    """The endpoints of the context's issuer.

    Raises:
        CliError: it does not answer as an issuer does.
    """
    issuer = context.issuer or ""
    status, found = _call(context, "GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
    if status != 200 or found.get("issuer") != issuer or not isinstance(found.get("token_endpoint"), str):
        raise CliError(f"{issuer} is not an issuer that says who it is", "check --issuer, or auth.oidc of the gateway")
    scopes = found.get("scopes_supported")
    return Endpoints(
        found["token_endpoint"],
        _text(found, "device_authorization_endpoint"),
        _text(found, "revocation_endpoint"),
        tuple(scope for scope in scopes if isinstance(scope, str)) if isinstance(scopes, list) else (),
    )


def begin(context: Context, endpoints: Endpoints, scopes: list[str]) -> Asked:
    """Ask for a sign-on that its user agrees to in a browser, on any machine.

    Raises:
        CliError: the issuer offers none, or refuses.
    """
    if endpoints.device is None:
        raise CliError(
            f"{context.issuer} has no device sign-on",
            f"sign on in a browser at {context.url}/admin/login and give its token to `lumen login --key`",
        )
    # Without this the token cannot be renewed at most issuers.
    wanted = [*scopes, "offline_access"] if "offline_access" in endpoints.scopes else scopes
    form = {"client_id": context.client_id or "", "scope": " ".join(dict.fromkeys(wanted))}
    status, found = _call(context, "POST", endpoints.device, form)
    texts = [_text(found, name) for name in ("device_code", "user_code", "verification_uri")]
    if status != 200 or None in texts:
        raise CliError(f"{context.issuer} refuses the sign-on: {_reason(found)}", "check the client's settings there")
    code, user_code, uri = map(str, texts)
    return Asked(
        code,
        _plain(user_code),
        _plain(uri),
        _plain(complete) if (complete := _text(found, "verification_uri_complete")) else None,
        max(_number(found, "interval", _INTERVAL), 1.0),
        _number(found, "expires_in", 600.0),
    )


def wait(
    context: Context,
    endpoints: Endpoints,
    asked: Asked,
    *,
    sleep: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Context:
    """The context with its tokens, once its user agreed.

    Raises:
        CliError: they refused, or did nothing for too long.
    """
    rest, interval, end = sleep or time.sleep, asked.interval, clock() + asked.seconds
    form = {"grant_type": _DEVICE_GRANT, "device_code": asked.code, "client_id": context.client_id or ""}
    while clock() < end:
        rest(interval)
        try:
            status, found = _call(context, "POST", endpoints.token, form)
        except CliError:
            # Out of reach for the moment; asked again, less often.
            interval = min(interval * 2, _LONGEST_INTERVAL)
            continue
        if status == 200:
            return _with(context, found)
        match found.get("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                interval = min(interval + _INTERVAL, _LONGEST_INTERVAL)
            case "access_denied":
                raise CliError("the sign-on was refused", "run `lumen login` again")
            case "expired_token":
                break
            case _:
                raise CliError(f"{context.issuer} refuses the sign-on: {_reason(found)}")
    raise CliError("the sign-on took too long", "run `lumen login` again")


def refreshed(context: Context) -> Context:
    """The context with new tokens; as it was where the issuer gives none.

    Raises:
        CliError: the issuer does not answer.
    """
    endpoints = discover(context)
    form = {"grant_type": "refresh_token", "refresh_token": context.refresh or "", "client_id": context.client_id or ""}
    status, found = _call(context, "POST", endpoints.token, form)
    if status != 200 or _text(found, context.use or "") is None:
        return context
    return _with(context, found)


def revoke(context: Context) -> None:
    """Give the refresh token back, where the issuer takes it.

    Raises:
        CliError: the issuer does not answer.
    """
    endpoints = discover(context)
    if endpoints.revocation is not None and context.refresh is not None:
        form = {"token": context.refresh, "token_type_hint": "refresh_token", "client_id": context.client_id or ""}
        _call(context, "POST", endpoints.revocation, form, reads=False)


def ends(token: str) -> float | None:
    """When a token says it ends, in Unix seconds, if it says so at all."""
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"]
    except (IndexError, ValueError, KeyError, TypeError):
        return None
    return float(found) if type(found) in (int, float) else None


def _with(context: Context, found: dict[str, Any]) -> Context:
    token = _text(found, context.use or "")
    if token is None:
        raise CliError(f"{context.issuer} gave no {(context.use or '').replace('_', ' ')}", "ask for the scope openid")
    return replace(context, token=token, expires=ends(token), refresh=_text(found, "refresh_token") or context.refresh)


def _call(
    context: Context, method: str, url: str, form: Mapping[str, str] | None = None, *, reads: bool = True
) -> tuple[int, dict[str, Any]]:
    """One call to the issuer: no redirects, a bounded answer, TLS except on this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT, context=tls(context))
    elif parts.scheme == "http" and host in _LOOPBACK:
        connection = http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT)
    else:
        raise CliError(f"{_plain(url)} is not spoken to: it has no TLS", "check the issuer's settings")
    try:
        headers = {"Accept": "application/json"}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, None if form is None else urlencode(form), headers)
        answer = connection.getresponse()
        raw = answer.read(_LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise CliError(f"{parts.scheme}://{parts.netloc} cannot be reached: {error}", "try again later") from None
    finally:
        connection.close()
    if not reads:
        return answer.status, {}
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CliError(f"the answer of {parts.scheme}://{parts.netloc} cannot be read", "check that this is the issuer")
    return answer.status, found


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def _number(found: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = found.get(name)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 86400
    return float(value or 0.0) if usable else otherwise


def _reason(found: Mapping[str, Any]) -> str:
    return _plain(_text(found, "error_description") or _text(found, "error") or "no reason given")


def _plain(text: str) -> str:
    """What came from elsewhere, as a terminal may show it."""
    return "".join(c for c in text if c.isprintable())[:300]

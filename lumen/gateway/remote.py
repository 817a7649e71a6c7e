"""The admin API on the endpoint, where the configuration asks for it: over TLS only, for who can say who they are.

Who that is comes from a key with a role, from a token that the configured issuer signed, or from a sign-on in the
browser. The calls and the roles they need are those of `admin.py`; five of its own are for signing on and off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp.web import BaseRequest, Response, StreamResponse

from lumen.config.schema import Config
from lumen.core.errors import RequestError, UnavailableError
from lumen.gateway import admin
from lumen.gateway.admin import Caller, Operator
from lumen.gateway.auth import identify
from lumen.gateway.issuer import Issuer
from lumen.gateway.proxies import Proxies
from lumen.gateway.signon import COOKIE, PATIENCE, SESSION, Person, SignOn
from lumen.gateway.state import State
from lumen.gateway.tokens import looks_like_one

_COOKIE = "{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={age}"
_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


class Remote:
    """Serves `/admin/…` for `state`'s configuration as it stands. `clock`: Unix seconds."""

    def __init__(self, operator: Operator, state: State, clock: Callable[[], float] = time.time) -> None:
        self._operator = operator
        self._state = state
        self._clock = clock
        self._refusals = admin.Refusals()
        self._config: Config | None = None
        self._proxies = Proxies()
        self._signon: SignOn | None = None
        self._own: dict[tuple[str, str], Callable[[BaseRequest], Awaitable[StreamResponse]]] = {
            ("GET", "/admin/auth"): self._auth,
            ("GET", "/admin/login"): self._login,
            ("GET", "/admin/callback"): self._callback,
            ("GET", "/admin/whoami"): self._whoami,
            ("POST", "/admin/logout"): self._logout,
        }

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """Answer one request for a path below `/admin/`.

        Raises:
            LumenError: it is not served here, not over TLS, or whoever asks may not ask this.
        """
        if not self._state.config.server.remote_admin:
            raise _nothing()
        self._follow()
        tls = request.transport is not None and request.transport.get_extra_info("ssl_object") is not None
        if not self._proxies.secure(_peer(request), tls, request.headers.getall("X-Forwarded-Proto", [])):
            raise RequestError("The admin API is served over TLS only.", status=403, code="tls_required")
        own = self._own.get((request.method, request.path))
        return await (
            own(request) if own is not None else admin.serve(self._operator, request, self._admit, self._refusals)
        )

    def _follow(self) -> None:
        """Take over a configuration that was changed; sessions go on while what they rest on stays as it was."""
        config, before = self._state.config, self._config
        if config is before:
            return
        self._config = config
        self._proxies = Proxies(config.server.trusted_proxies)
        oidc, url = config.auth.oidc, config.server.public_url
        if before is not None and (before.auth.oidc, before.server.public_url) == (oidc, url):
            return
        self._signon = None
        if oidc is not None:
            # The environment does not change while the process runs.
            secret = None if oidc.client_secret is None else os.environ.get(oidc.client_secret.removeprefix("env:"))
            self._signon = SignOn(oidc, Issuer(oidc.issuer, time.monotonic), url, secret, self._clock)

    async def _admit(self, request: BaseRequest) -> Caller:
        if not self._state.config.server.remote_admin:
            # A stream that goes on is looked at again.
            raise _nothing()
        person = await self._person(request)
        forwarded = request.headers.getall("X-Forwarded-For", [])
        return Caller(person.name, person.role, self._proxies.client(_peer(request), forwarded))

    async def _person(self, request: BaseRequest) -> Person:
        """Who asks.

        Raises:
            RequestError: 401 for nobody, 403 for a key or a person without a role.
        """
        token = _bearer(request)
        if token.startswith(SESSION):
            person = None if self._signon is None else self._signon.session(token)
            if person is None:
                raise RequestError("The session has ended; sign on again.", status=401, code="session_ended")
            return person
        if self._signon is not None and looks_like_one(token):
            return await self._signon.person(token)
        if self._state.ring is None:
            raise RequestError("Keys are off.", status=401, code="invalid_api_key")
        headers = request.headers
        key = identify(self._state.ring, headers.get("Authorization"), headers.get("x-api-key"), self._clock())
        if key.role is None:
            raise RequestError("This key is for inference only.", status=403, code="role_required")
        return Person(f"key:{key.name}", key.role, key.expires)

    async def _auth(self, request: BaseRequest) -> Response:
        """How to sign on; for who has not yet."""
        oidc = self._state.config.auth.oidc
        if oidc is None:
            return _private({"issuer": None})
        given = oidc.audience is not None and oidc.audience != oidc.client_id
        return _private(
            {
                "issuer": oidc.issuer,
                "client_id": oidc.client_id,
                "scopes": oidc.scopes,
                # Which of the issuer's tokens says for whom it is.
                "token": "access_token" if given else "id_token",
            }
        )

    async def _login(self, request: BaseRequest) -> Response:
        where, cookie = await self._people().begin()
        return Response(status=302, headers=_PRIVATE | {"Location": where, "Set-Cookie": _cookie(cookie, PATIENCE)})

    async def _callback(self, request: BaseRequest) -> Response:
        token, person = await self._people().finish(dict(request.rel_url.query), request.cookies.get(COOKIE))
        await self._operator.note("gateway.login", person.name, who=person.name, role=person.role)
        told = _private({"token": token, **_told(person)})
        told.headers["Set-Cookie"] = _cookie("", 0)
        return told

    async def _whoami(self, request: BaseRequest) -> Response:
        return _private(_told(await self._person(request)))

    async def _logout(self, request: BaseRequest) -> Response:
        """End the session that asks; keys and the issuer's tokens are not ours to end."""
        person = await self._person(request)
        ended = self._people().leave(_bearer(request)) if self._signon is not None else False
        if ended:
            await self._operator.note("gateway.logout", person.name, who=person.name)
        return _private({"ended": ended})

    def _people(self) -> SignOn:
        if self._signon is None:
            raise RequestError("Nobody signs on here: auth.oidc is not configured.", status=404, code="not_found")
        oidc = self._state.config.auth.oidc
        if oidc is not None and oidc.client_secret is not None and not os.environ.get(oidc.client_secret[4:]):
            raise UnavailableError("The client's secret (auth.oidc.client_secret) is not set where the gateway runs.")
        return self._signon


def _nothing() -> RequestError:
    return RequestError("There is nothing at this path.", status=404, code="not_found")


def _bearer(request: BaseRequest) -> str:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""


def _peer(request: BaseRequest) -> str | None:
    """The address at the other end of the connection."""
    found = None if request.transport is None else request.transport.get_extra_info("peername")
    return str(found[0]) if isinstance(found, tuple) and found else None


def _told(person: Person) -> dict[str, Any]:
    return {"name": person.name, "role": person.role, "expires": person.until}


def _cookie(value: str, age: float) -> str:
    return _COOKIE.format(name=COOKIE, value=value, age=int(age))


def _private(body: Any) -> Response:
    return Response(body=msgspec.json.encode(body), headers=_PRIVATE, content_type="application/json")

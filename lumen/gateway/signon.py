"""Sign-on in a browser: Authorization Code with PKCE, and the session token that comes of it.

Nothing is kept of a sign-on under way: what must come back with the code waits in the browser itself, in a cookie that
only this process can have made. That also binds the answer to the browser that asked. Sessions are in memory, as
hashes: they end with the gateway.
Sources: OpenID Connect Core 3.1, RFC 7636 (PKCE), RFC 9207 (an answer names its issuer), RFC 9700 (what goes wrong).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from lumen.config.schema import Oidc
from lumen.core.errors import RequestError
from lumen.core.roles import Role
from lumen.gateway.issuer import Issuer
from lumen.gateway.tokens import Expected, TokenError, name_of, role_of, verify

COOKIE = "__Host-lumen-signon"
SESSION = "lumen-session-"
CALLBACK = "/admin/callback"
# Seconds somebody may take at the issuer.
PATIENCE = 600.0
_MOST_SESSIONS = 1024
_LONGEST_ANSWER = 4096


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed on. `until`: Unix seconds; `None`: not limited by the sign-on."""

    name: str
    role: Role
    until: float | None


class _Waiting(msgspec.Struct, array_like=True):
    """What the browser keeps while its user is at the issuer."""

    state: str
    nonce: str
    verifier: str
    until: float


class SignOn:
    """People of one issuer. `public_url`: where browsers reach this server; `clock`: Unix seconds.

    `secret`: the client's, where the issuer gave one.
    """

    def __init__(
        self, oidc: Oidc, issuer: Issuer, public_url: str | None, secret: str | None, clock: Callable[[], float]
    ) -> None:
        self._oidc = oidc
        self._issuer = issuer
        self._back = None if public_url is None else public_url.rstrip("/") + CALLBACK
        self._secret = secret
        self._clock = clock
        self._seal = secrets.token_bytes(32)
        self._sessions: OrderedDict[bytes, Person] = OrderedDict()
        audience = oidc.audience or oidc.client_id
        self._expected = Expected(oidc.issuer, (audience,), oidc.client_id)
        self._about_us = Expected(oidc.issuer, (oidc.client_id,), oidc.client_id)

    async def person(self, token: str) -> Person:
        """Who a token of the issuer is about.

        Raises:
            RequestError: 401 where it is not taken, 403 where its owner has no role here.
            IssuerError: the issuer's keys cannot be had.
        """
        signer = await self._issuer.signer(token)
        claims = verify(token, signer, self._expected, self._clock())
        return self._known(claims, float(claims["exp"]))

    async def begin(self) -> tuple[str, str]:
        """Where to send a browser, and the value of the cookie it must bring back.

        Raises:
            RequestError: the configuration does not say where browsers reach this server.
            IssuerError: the issuer does not answer.
        """
        back = self._returning()
        metadata = await self._issuer.metadata()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._oidc.client_id,
            "redirect_uri": back,
            "scope": " ".join(self._oidc.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in metadata.authorization else "?"
        waiting = _Waiting(state, nonce, verifier, self._clock() + PATIENCE)
        return f"{metadata.authorization}{joint}{urlencode(query)}", self._sealed(waiting)

    async def finish(self, query: Mapping[str, str], cookie: str | None) -> tuple[str, Person]:
        """The session token of who comes back from the issuer with `query` and the cookie.

        Raises:
            RequestError: the answer belongs to no sign-on of this browser, or its user is not let in.
            IssuerError: the issuer does not answer.
        """
        waiting = self._opened(cookie)
        if waiting is None or not hmac.compare_digest(_bytes(query.get("state", "")), _bytes(waiting.state)):
            raise RequestError("This sign-on was not begun here, or has run out; begin again.", code="signon_unknown")
        metadata = await self._issuer.metadata()
        if query.get("iss", self._oidc.issuer if not metadata.names_itself else None) != self._oidc.issuer:
            raise RequestError("The answer is of another issuer.", code="signon_unknown")
        code = query.get("code", "")
        if "error" in query or not 0 < len(code) <= _LONGEST_ANSWER:
            raise RequestError("The issuer did not sign you on.", status=403, code="signon_refused")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._returning(),
            "client_id": self._oidc.client_id,
            "code_verifier": waiting.verifier,
        }
        auth = None if self._secret is None else aiohttp.BasicAuth(self._oidc.client_id, self._secret)
        found = (await self._issuer.exchange(form, auth)).get("id_token")
        if not isinstance(found, str):
            raise TokenError("The issuer gave no ID token.")
        now = self._clock()
        claims = verify(found, await self._issuer.signer(found), self._about_us, now, nonce=waiting.nonce)
        person = self._known(claims, now + self._oidc.session)
        return self._open_session(person), person

    def session(self, token: str) -> Person | None:
        """Whose session this is; `None`: nobody's, or not any more."""
        person = self._sessions.get(_digest(token))
        return person if person is not None and (person.until or 0.0) > self._clock() else None

    def leave(self, token: str) -> bool:
        """End a session; whether there was one."""
        return self._sessions.pop(_digest(token), None) is not None

    def _open_session(self, person: Person) -> str:
        token = SESSION + secrets.token_urlsafe(32)
        self._sessions[_digest(token)] = person
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def _known(self, claims: Mapping[str, Any], until: float) -> Person:
        name, role = name_of(claims), role_of(claims, self._oidc.groups_claim, self._oidc.roles)
        if role is None:
            raise RequestError(f"None of the groups of {name} has a role here.", status=403, code="role_required")
        return Person(name, role, until)

    def _returning(self) -> str:
        if self._back is None:
            raise RequestError("Sign-on in a browser needs server.public_url in the configuration.", status=404)
        return self._back

    def _sealed(self, waiting: _Waiting) -> str:
        text = base64.urlsafe_b64encode(msgspec.json.encode(waiting)).decode()
        return f"{text}.{self._mark(text)}"

    def _opened(self, cookie: str | None) -> _Waiting | None:
        text, _, mark = (cookie or "").partition(".")
        if not hmac.compare_digest(_bytes(mark), _bytes(self._mark(text))):
            return None
        # Marked by us, so readable.
        waiting = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Waiting)
        return waiting if waiting.until > self._clock() else None

    def _mark(self, text: str) -> str:
        return hmac.new(self._seal, _bytes(text), hashlib.sha256).hexdigest()


def _digest(token: str) -> bytes:
    return hashlib.sha256(_bytes(token)).digest()


def _bytes(text: str) -> bytes:
    """What a header or a query held, whatever it was."""
    return text.encode("utf-8", "surrogatepass")

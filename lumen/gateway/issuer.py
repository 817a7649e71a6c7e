"""An OpenID Connect issuer as this server sees it: where its endpoints are, and which keys it signs with.

What is fetched is bounded in size and time, follows no redirect and takes no proxy from the environment. However many
tokens name a key that is not known, the keys are fetched once in a while only.
Sources: OpenID Connect Discovery 1.0 section 4, RFC 7517 (key sets), RFC 6749 section 4.1.3 (codes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from lumen.core.errors import UnavailableError
from lumen.gateway.tokens import Signer, TokenError, fitting, head, signers

# Seconds between two fetches, whatever asks for them; after which keys are fetched anew; until which they are used
# while the issuer cannot be reached.
APART = 10.0
FRESH = 3600.0
STALE = 24 * 3600.0
_LARGEST = 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class IssuerError(UnavailableError):
    """The issuer does not answer, or not as it should."""

    code = "issuer_unavailable"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the issuer says of itself. `names_itself`: its answers to browsers name it, and must."""

    authorization: str
    token: str
    keys: str
    names_itself: bool


class Issuer:
    """One issuer at `url`. `clock`: seconds that never go back."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self.url = url
        self._clock = clock
        self._lock = asyncio.Lock()
        self._metadata: Metadata | None = None
        self._keys: tuple[Signer, ...] = ()
        # When keys were fetched, when that was last tried, and when the issuer was last asked who it is.
        self._fetched = self._tried = self._asked = float("-inf")

    async def metadata(self) -> Metadata:
        """Where its endpoints are; asked for once.

        Raises:
            IssuerError: it cannot be had.
        """
        async with self._lock:
            if self._metadata is None:
                if self._clock() < self._asked + APART:
                    raise IssuerError("The issuer cannot be reached right now.", retry_after=APART)
                self._asked = self._clock()
                await self._discover()
            assert self._metadata is not None
            return self._metadata

    async def signer(self, token: str) -> Signer:
        """The key that a token must be signed with, by what its head says.

        Raises:
            TokenError: there is no such key, or the token is none.
            IssuerError: the keys cannot be had.
        """
        algorithm, key_id = head(token)
        now = self._clock()
        found = fitting(self._keys, algorithm, key_id) if now < self._fetched + FRESH else None
        if found is None:
            async with self._lock:
                await self._refresh(algorithm, key_id)
            found = fitting(self._keys, algorithm, key_id)
        if found is None:
            raise TokenError("The token is signed with a key that its issuer does not have.")
        return found

    async def exchange(self, form: Mapping[str, str], auth: aiohttp.BasicAuth | None) -> dict[str, Any]:
        """What the token endpoint answers to `form`.

        Raises:
            TokenError: it refuses. IssuerError: it cannot be reached.
        """
        url = (await self.metadata()).token
        status, body = await _fetch("POST", url, form, auth)
        found = _object(body)
        if status != 200:
            raise TokenError(f"The issuer refuses: {_word(found.get('error'))}.")
        return found

    async def _refresh(self, algorithm: str, key_id: str | None) -> None:
        """Fetch the keys where they are old or lack the one that is wanted; not more often than `APART`."""
        now = self._clock()
        wanted = now >= self._fetched + FRESH or fitting(self._keys, algorithm, key_id) is None
        if not wanted or now < self._tried + APART:
            if not self._keys:
                raise IssuerError("The issuer's keys cannot be had right now.", retry_after=APART)
            return
        self._tried = now
        try:
            if self._metadata is None:
                await self._discover()
            assert self._metadata is not None
            status, body = await _fetch("GET", self._metadata.keys)
            if status != 200:
                raise IssuerError("The issuer does not give its keys.")
            # The library of signatures is imported here first, which takes its time.
            self._keys, self._fetched = await asyncio.to_thread(signers, body), self._clock()
        except (IssuerError, ValueError) as error:
            if not self._keys or now >= self._fetched + STALE:
                self._keys = ()
                raise error if isinstance(error, IssuerError) else IssuerError("The issuer's keys are none.") from None

    async def _discover(self) -> None:
        if self._metadata is not None:
            return
        status, body = await _fetch("GET", self.url.rstrip("/") + "/.well-known/openid-configuration")
        found = _object(body)
        if status != 200 or found.get("issuer") != self.url:
            raise IssuerError("The issuer does not say who it is, or says that it is somebody else.")
        self._metadata = Metadata(
            self._endpoint(found, "authorization_endpoint"),
            self._endpoint(found, "token_endpoint"),
            self._endpoint(found, "jwks_uri"),
            found.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, found: Mapping[str, Any], name: str) -> str:
        """One endpoint, over TLS; an issuer on this machine itself may do without."""
        url = found.get(name)
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        near = parts.hostname in _LOOPBACK and urlsplit(self.url).hostname in _LOOPBACK and parts.scheme == "http"
        if parts.scheme != "https" and not near:
            raise IssuerError("The issuer's endpoints are not where they should be.")
        return str(url)


async def _fetch(
    method: str, url: str, form: Mapping[str, str] | None = None, auth: aiohttp.BasicAuth | None = None
) -> tuple[int, bytes]:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session,
            session.request(
                method, url, data=form, auth=auth, allow_redirects=False, headers={"Accept": "application/json"}
            ) as answer,
        ):
            body = b""
            while data := await answer.content.readany():
                body += data
                if len(body) > _LARGEST:
                    raise IssuerError("The issuer answers with more than can be read.")
            return answer.status, body
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        raise IssuerError("The issuer cannot be reached.") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise IssuerError("The issuer's answer cannot be read.")
    return found


def _word(error: Any) -> str:
    """An error code of the issuer; nothing else it says is repeated."""
    known = isinstance(error, str) and error.replace("_", "").isascii() and error.replace("_", "").isalnum()
    return error[:64] if known else "no reason given"

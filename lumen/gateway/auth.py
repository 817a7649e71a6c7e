"""Who may call: a bearer key against the key ring, on the matched endpoint, denied by default."""

from __future__ import annotations

from lumen.core.errors import RequestError
from lumen.keys import Key, KeyRing


def authenticate(ring: KeyRing | None, authorization: str | None, api_key: str | None, now: float) -> Key | None:
    """The key of a request; `None` where authentication is off (`ring` is None).

    Args:
        authorization: the `Authorization` header. `api_key`: the `x-api-key` header, which other SDKs send.
        now: seconds since the epoch.

    Raises:
        RequestError: 401, or 403 for a key that is for the admin API.
    """
    if ring is None:
        return None
    key = identify(ring, authorization, api_key, now)
    if key.role is not None:
        raise RequestError(
            f"This key is for operating Lumen (role {key.role}); ask with a key that has no role.",
            status=403,
            code="wrong_kind_of_key",
        )
    return key


def identify(ring: KeyRing, authorization: str | None, api_key: str | None, now: float) -> Key:
    """The key of a request, whatever it is for.

    Raises:
        RequestError: 401.
    """
    presented = api_key or ""
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() != "bearer" or not value:
            raise _denied("Send your key as 'Authorization: Bearer KEY'.")
        presented = value.strip()
    if not presented:
        raise _denied("You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.")
    key = ring.find(presented, now)
    if key is None:
        raise _denied("Incorrect API key provided: it is unknown, revoked or expired.")
    return key


def _denied(message: str) -> RequestError:
    error = RequestError(message, status=401, code="invalid_api_key")
    error.headers["WWW-Authenticate"] = "Bearer"
    return error

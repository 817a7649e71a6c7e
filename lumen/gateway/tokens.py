"""Whether a token is what an issuer signed for us, now. Pure but for the library of signatures, imported when needed.

Sources: RFC 7519 and 7515 (tokens, signatures), RFC 8725 (what goes wrong with them), OpenID Connect Core 3.1.3.7.
Only RS256 and ES256 are taken, each with a key of its own kind: a token can neither go unsigned nor be signed with a
public key as if that were a secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from lumen.core.errors import RequestError
from lumen.core.roles import Role, greatest

if TYPE_CHECKING:
    from jwt import PyJWK

# Seconds that the clocks of an issuer and of this machine may be apart.
SKEW = 60.0
_LONGEST = 16 * 1024
_KINDS = {"RS256": "RSA", "ES256": "EC"}
# Of tokens that tell who somebody is or what they may do; not of those that sign somebody out, say.
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}
_LEAST_RSA_BITS = 2048
_MOST_KEYS = 64
_LONGEST_NAME = 128


class TokenError(RequestError):
    """A token that is not taken; the message says why, and holds nothing of it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=401, code="invalid_token")
        self.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say. `audiences`: one of them must be among those it is meant for."""

    issuer: str
    audiences: tuple[str, ...]
    client_id: str


@dataclass(frozen=True, slots=True)
class Signer:
    """One public key of an issuer. `algorithm`: the one it is for, where the issuer says so."""

    id: str | None
    kind: str
    algorithm: str | None
    key: PyJWK


def looks_like_one(text: str) -> bool:
    """Whether this could be a token at all, rather than a key of our own."""
    return text.count(".") == 2 and text.startswith("ey")


def head(token: str) -> tuple[str, str | None]:
    """The algorithm and the key's id that a token claims; nothing is checked yet but that both can be.

    Raises:
        TokenError: it is no token that could be taken.
    """
    if len(token) > _LONGEST or not looks_like_one(token):
        raise TokenError("This is not a token that can be read.")
    first = token.partition(".")[0]
    try:
        found = msgspec.json.decode(base64.b64decode(first + "=" * (-len(first) % 4), b"-_", validate=True))
    except (binascii.Error, msgspec.MsgspecError, ValueError, RecursionError):
        raise TokenError("This is not a token that can be read.") from None
    algorithm = found.get("alg") if isinstance(found, dict) else None
    if not isinstance(algorithm, str) or algorithm not in _KINDS:
        raise TokenError("The token is not signed in a way that is taken here (RS256 or ES256).")
    if "crit" in found or "b64" in found:
        raise TokenError("The token asks for something that is not known here.")
    if not isinstance(kind := found.get("typ", "JWT"), str) or kind.lower() not in _TYPES:
        raise TokenError("The token is of another kind.")
    if not isinstance(key_id := found.get("kid"), str | None):
        raise TokenError("This is not a token that can be read.")
    return algorithm, key_id


def signers(jwks: bytes) -> tuple[Signer, ...]:
    """The keys of an issuer's key set that tokens may be signed with; others in it are passed over.

    Raises:
        ValueError: this is no key set.
    """
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    found = msgspec.json.decode(jwks)
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no key set")
    usable = []
    for entry in entries[:_MOST_KEYS]:
        if not isinstance(entry, dict) or not _for_signatures(entry):
            continue
        algorithm, key_id = entry.get("alg"), entry.get("kid")
        try:
            key = PyJWK(entry, algorithm="RS256" if entry["kty"] == "RSA" else "ES256")
        except (PyJWTError, ValueError, TypeError):
            continue
        if entry["kty"] == "RSA" and key.key.key_size < _LEAST_RSA_BITS:
            continue
        usable.append(Signer(key_id if isinstance(key_id, str) else None, entry["kty"], algorithm, key))
    return tuple(usable)


def fitting(keys: Sequence[Signer], algorithm: str, key_id: str | None) -> Signer | None:
    """The one key that a token of this head must be signed with; `None`: it is not there, or not told which."""
    fit = [
        key
        for key in keys
        if key.kind == _KINDS[algorithm] and key.algorithm in (None, algorithm) and (key_id is None or key.id == key_id)
    ]
    return fit[0] if len(fit) == 1 else None


def verify(token: str, signer: Signer, expected: Expected, now: float, *, nonce: str | None = None) -> dict[str, Any]:
    """The claims of a token, all checked. `now`: Unix seconds. `nonce`: what an ID token must repeat.

    Raises:
        TokenError: its signature, issuer, audience or time is wrong, or it lacks one of them.
    """
    import jwt

    algorithm, _ = head(token)
    if signer.kind != _KINDS[algorithm]:
        raise TokenError("The token's signature is wrong.")
    required = ["iss", "sub", "aud", "exp"]
    # The times are checked below, by the clock that is given.
    given: Any = {"require": required, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    try:
        claims = jwt.decode(
            token,
            signer.key.key,
            algorithms=[algorithm],
            audience=list(expected.audiences),
            issuer=expected.issuer,
            options=given,
        )
    except jwt.InvalidAudienceError:
        raise TokenError("The token is meant for somebody else.") from None
    except jwt.InvalidIssuerError:
        raise TokenError("The token is of another issuer.") from None
    except jwt.MissingRequiredClaimError as error:
        raise TokenError(f"The token lacks '{error.claim}'.") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenError("The token's signature is wrong.") from None
    _timely(claims, now)
    _ours(claims, expected, nonce)
    return claims


def role_of(claims: Mapping[str, Any], groups_claim: str, roles: Mapping[str, Role]) -> Role | None:
    """The greatest role that the groups of a token's owner have; `None`: none of them has one."""
    found = claims.get(groups_claim)
    if found is None:
        found = claims
        for part in groups_claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    groups = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return greatest(roles[group] for group in groups if isinstance(group, str) and group in roles)


def name_of(claims: Mapping[str, Any]) -> str:
    """Who a token is about, for people and the audit log: their name, and the id that no one else gets."""
    subject = _shown(claims["sub"])
    given = claims.get("preferred_username") or claims.get("email")
    name = _shown(given) if isinstance(given, str) else subject
    return f"oidc:{subject}" if name == subject else f"oidc:{name} ({subject})"


def _timely(claims: Mapping[str, Any], now: float) -> None:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(type(at) in (int, float) for at in times.values()):
        raise TokenError("A time in the token is none.")
    if now >= times["exp"] + SKEW:
        raise TokenError("The token has expired.")
    if any(times.get(name, now) > now + SKEW for name in ("nbf", "iat")):
        raise TokenError("The token is not valid yet; check the clock of this machine and of the issuer.")


def _ours(claims: Mapping[str, Any], expected: Expected, nonce: str | None) -> None:
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise TokenError("The token does not say whose it is.")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    party = claims.get("azp")
    if several and party is not None and party != expected.client_id:
        raise TokenError("The token was made for another client.")
    if "cnf" in claims:
        # It is worth something only together with a key, which nobody has shown.
        raise TokenError("The token is bound to a key, which is not taken here.")
    if nonce is not None and claims.get("nonce") != nonce:
        raise TokenError("The token belongs to another sign-on.")


def _for_signatures(entry: Mapping[str, Any]) -> bool:
    if entry.get("use", "sig") != "sig" or not isinstance(entry.get("key_ops", []), list):
        return False
    if entry.get("key_ops") and "verify" not in entry["key_ops"]:
        return False
    if entry.get("kty") == "EC":
        return entry.get("crv") == "P-256" and entry.get("alg", "ES256") == "ES256"
    return entry.get("kty") == "RSA" and entry.get("alg", "RS256") == "RS256"


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:_LONGEST_NAME] or "?"

"""Tokens: what is taken, and every way in which one is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.roles import Role
from lumen.gateway.tokens import SKEW, Expected, Signer, TokenError, fitting, head, name_of, role_of, signers, verify
from tests.gateway.oidc_provider import Provider, Signing, es256, rs256

RS, ES = rs256(), es256()
ISSUER = Provider([RS, ES], "https://id.example.com")
EXPECTED = Expected(ISSUER.url, ("lumen",), "lumen")
KEYS = signers(json.dumps({"keys": [RS.published, ES.published]}).encode())


def check(token: str, *, now: float | None = None, nonce: str | None = None) -> dict[str, Any]:
    """As the gateway does it: find the key by the head, then verify."""
    signer = fitting(KEYS, *head(token))
    if signer is None:
        raise TokenError("no such key")
    return verify(token, signer, EXPECTED, time.time() if now is None else now, nonce=nonce)


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("key", [RS, ES], ids=lambda key: key.algorithm)
def test_a_token_that_the_issuer_signed_for_us_is_taken(key: Signing) -> None:
    assert check(ISSUER.token(key))["sub"] == "u1"
    assert check(ISSUER.token(key, aud=["other", "lumen"], azp="lumen"))["sub"] == "u1"
    assert check(ISSUER.token(key, {"typ": "at+jwt"}, nonce="n"), nonce="n")["sub"] == "u1"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"iss": "https://evil.example.com"}, "another issuer"),
        ({"iss": "https://id.example.com/"}, "another issuer"),
        ({"iss": None}, "lacks 'iss'"),
        ({"aud": "other"}, "somebody else"),
        ({"aud": ["other"]}, "somebody else"),
        ({"aud": None}, "lacks 'aud'"),
        ({"aud": ["other", "lumen"], "azp": "other"}, "another client"),
        ({"exp": None}, "lacks 'exp'"),
        ({"exp": "soon"}, "time in the token"),
        ({"exp": True}, "time in the token"),
        ({"sub": None}, "lacks 'sub'"),
        ({"sub": ""}, "does not say whose"),
        ({"cnf": {"jkt": "x"}}, "bound to a key"),
        ({"nonce": "other"}, "another sign-on"),
        ({}, "another sign-on"),
    ],
    ids=str,
)
def test_a_token_that_says_something_else_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(TokenError, match=said):
        check(ISSUER.token(**more), nonce="n" if "sign-on" in said else None)


def test_the_times_are_those_of_the_token_give_or_take_a_minute() -> None:
    now = 1_800_000_000.0
    token = ISSUER.token(iat=int(now), nbf=int(now), exp=int(now) + 300)
    for at in (now - SKEW, now, now + 300, now + 300 + SKEW - 1):
        assert check(token, now=at)["sub"] == "u1"
    for at in (now - SKEW - 1, now - 10_000):
        with pytest.raises(TokenError, match="not valid yet"):
            check(token, now=at)
    for at in (now + 300 + SKEW, now + 10_000):
        with pytest.raises(TokenError, match="expired"):
            check(token, now=at)
    with pytest.raises(TokenError, match="not valid yet"):
        check(ISSUER.token(iat=int(now), nbf=int(now) + 3600, exp=int(now) + 7200), now=now + 100)


def test_a_token_without_a_signature_is_refused() -> None:
    claims = ISSUER.claims()
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        for signature in ("", "AAAA"):
            with pytest.raises(TokenError):
                check(f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': 'rs'})}.{encoded(claims)}.{signature}")
    signed = ISSUER.token()
    with pytest.raises(TokenError):
        check(signed.rpartition(".")[0] + ".")


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    public = RS.key.public_key()
    for form in (
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        json.dumps(RS.published).encode(),
    ):
        for algorithm in ("HS256", "RS256", "ES256"):
            signed = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': 'rs'})}.{encoded(ISSUER.claims())}"
            mark = base64.urlsafe_b64encode(hmac.new(form, signed.encode(), hashlib.sha256).digest()).rstrip(b"=")
            with pytest.raises(TokenError):
                check(f"{signed}.{mark.decode()}")


def test_a_key_that_the_token_brings_itself_counts_for_nothing() -> None:
    eve = rs256("rs")
    for header in (
        {"jwk": eve.published},
        {"jku": "https://evil.example.com/jwks"},
        {"x5u": "https://evil.example.com"},
    ):
        with pytest.raises(TokenError, match="signature"):
            check(ISSUER.token(eve, header))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"b64": False},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"alg": None},
        {"alg": ["RS256"]},
        {"kid": 7},
        {"kid": "unknown"},
        {"kid": "es"},
        {"typ": 1},
    ],
    ids=str,
)
def test_a_head_that_is_not_plain_is_refused(header: dict[str, Any]) -> None:
    made = {"alg": "RS256", "typ": "JWT", "kid": "rs", **header}
    with pytest.raises(TokenError):
        check(f"{encoded(made)}.{encoded(ISSUER.claims())}.{ISSUER.token().rpartition('.')[2]}")


def test_a_key_of_the_wrong_kind_is_refused_even_where_it_was_picked() -> None:
    signer = next(key for key in KEYS if key.kind == "EC")
    with pytest.raises(TokenError):
        verify(ISSUER.token(RS), signer, EXPECTED, time.time())


def test_without_an_id_the_key_must_be_the_only_one_of_its_kind() -> None:
    token = jwt.encode(ISSUER.claims(), RS.key, algorithm="RS256")
    assert check(token)["sub"] == "u1"
    two = signers(json.dumps({"keys": [RS.published, rs256("other").published]}).encode())
    assert fitting(two, *head(token)) is None


def test_only_keys_for_signatures_that_are_strong_enough_are_taken() -> None:
    short = Signing("short", "RS256", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    curve = Signing("p384", "ES256", ec.generate_private_key(ec.SECP384R1()))
    keys = [
        {**RS.published, "use": "enc"},
        {**RS.published, "key_ops": ["encrypt"]},
        {**RS.published, "alg": "RS512"},
        {**RS.published, "n": "!"},
        {**RS.published, "kid": 7, "n": None},
        short.published,
        curve.published,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
        {"kty": "EC", "crv": "P-256"},
        "no key",
        {},
    ]
    assert signers(json.dumps({"keys": keys}).encode()) == ()
    for none in (b"[]", b"{}", b'{"keys": 7}', b"x", b""):
        with pytest.raises(ValueError):
            signers(none)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode() + ".a.b"))
def test_whatever_comes_as_a_token_is_refused_in_order(text: str) -> None:
    with pytest.raises(TokenError):
        check(text)


def test_no_byte_of_a_token_can_be_changed() -> None:
    token = ISSUER.token(ES)
    # The last character of a signature holds bits that stand for nothing.
    for at in range(len(token) - 1):
        for other in "Ag.":
            if other != token[at]:
                with pytest.raises(TokenError):
                    check(token[:at] + other + token[at + 1 :])


ROLES: dict[str, Role] = {"staff": "viewer", "/ops": "operator", "root": "admin"}


@pytest.mark.parametrize(
    ("claims", "claim", "role"),
    [
        ({"groups": ["staff", "/ops"]}, "groups", "operator"),
        ({"groups": ["x"]}, "groups", None),
        ({"groups": "staff"}, "groups", "viewer"),
        ({"groups": {"root": True}}, "groups", None),
        ({"groups": [["root"], None, 7]}, "groups", None),
        ({}, "groups", None),
        ({"realm_access": {"roles": ["root"]}}, "realm_access.roles", "admin"),
        ({"realm_access": ["root"]}, "realm_access.roles", None),
        ({"https://x.example/roles": ["root"]}, "https://x.example/roles", "admin"),
    ],
    ids=str,
)
def test_the_greatest_role_of_the_groups_counts(claims: dict[str, Any], claim: str, role: Role | None) -> None:
    assert role_of(claims, claim, ROLES) == role


def test_a_name_cannot_pass_for_another() -> None:
    assert name_of({"sub": "u1"}) == "oidc:u1"
    assert name_of({"sub": "u1", "preferred_username": "root"}) == "oidc:root (u1)"
    assert name_of({"sub": "u1\n", "email": "a\x1b[2J@x"}) == "oidc:a[2J@x (u1)"
    assert len(name_of({"sub": "s" * 999, "email": "e" * 999})) < 300


def test_signers_say_what_they_are_for() -> None:
    assert [(key.id, key.kind, key.algorithm) for key in KEYS] == [("rs", "RSA", "RS256"), ("es", "EC", "ES256")]
    assert all(isinstance(key, Signer) for key in KEYS)

"""An OpenID Connect provider on loopback, for tests: discovery, keys, codes with PKCE, devices, refreshing, revoking.

It signs for real, checks what a provider checks, and can be made to do what a bad one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CLIENT = "lumen"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Signing:
    """One key pair and how it is published."""

    id: str
    algorithm: str
    key: Key

    @property
    def published(self) -> dict[str, Any]:
        algorithm: Any = RSAAlgorithm if self.algorithm == "RS256" else ECAlgorithm
        found = json.loads(algorithm.to_jwk(self.key.public_key()))
        return {**found, "kid": self.id, "use": "sig", "alg": self.algorithm}


def rs256(name: str = "rs") -> Signing:
    return Signing(name, "RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048))


def es256(name: str = "es") -> Signing:
    return Signing(name, "ES256", ec.generate_private_key(ec.SECP256R1()))


@dataclass
class Provider:
    """`person`: the claims of who signs on. `answers`: what the device grant says, call by call, before tokens."""

    keys: list[Signing]
    url: str = ""
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "u1", "preferred_username": "ann", "groups": []})
    lifetime: float = 300.0
    answers: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    broken: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refreshing: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)

    def claims(self, **more: Any) -> dict[str, Any]:
        now = time.time()
        return {"iss": self.url, "aud": CLIENT, "iat": int(now), "exp": int(now + self.lifetime), **self.person, **more}

    def token(self, key: Signing | None = None, header: dict[str, Any] | None = None, **more: Any) -> str:
        key = key or self.keys[0]
        claims = {name: value for name, value in self.claims(**more).items() if value is not None}
        return jwt.encode(claims, key.key, algorithm=key.algorithm, headers={"kid": key.id, **(header or {})})

    # -- endpoints: each gives a status and a body -----------------------------------------------------------------

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "revocation_endpoint": f"{self.url}/revoke",
            "jwks_uri": f"{self.url}/jwks",
            **self.metadata,
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where a browser whose user agrees is sent."""
        assert query["response_type"] == "code" and query["code_challenge_method"] == "S256"
        assert query["client_id"] == CLIENT and "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.url})}"

    def device(self) -> dict[str, Any]:
        code = secrets.token_urlsafe(16)
        self.devices.add(code)
        uri = f"{self.url}/activate"
        return {
            "device_code": code,
            "user_code": "WDJB-MJHT",
            "verification_uri": uri,
            "verification_uri_complete": f"{uri}?user_code=WDJB-MJHT",
            "expires_in": 600,
            "interval": 1,
        }

    def grant(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if form.get("client_id") != CLIENT:
            return 401, {"error": "invalid_client"}
        kind = form.get("grant_type")
        if kind == "authorization_code":
            given = self.codes.pop(form.get("code", ""), None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if given is None or given["code_challenge"] != challenge or given["redirect_uri"] != form["redirect_uri"]:
                return 400, {"error": "invalid_grant"}
            return 200, self.tokens(nonce=given["nonce"])
        if kind == "urn:ietf:params:oauth:grant-type:device_code":
            if form.get("device_code") not in self.devices:
                return 400, {"error": "invalid_grant"}
            if self.answers:
                return 400, {"error": self.answers.pop(0)}
            self.devices.discard(form["device_code"])
            return 200, self.tokens()
        if kind == "refresh_token" and form.get("refresh_token") in self.refreshing:
            self.refreshing.discard(form["refresh_token"])
            return 200, self.tokens()
        return 400, {"error": "invalid_grant"}

    def tokens(self, **more: Any) -> dict[str, Any]:
        refresh = secrets.token_urlsafe(16)
        self.refreshing.add(refresh)
        return {
            "token_type": "Bearer",
            "access_token": self.token(aud="api"),
            "id_token": self.token(**more),
            "refresh_token": refresh,
            "expires_in": self.lifetime,
        }

    def answer(self, method: str, path: str, given: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        self.asked[path] += 1
        if self.broken:
            return 503, {"error": "broken"}, {}
        match method, path:
            case "GET", "/.well-known/openid-configuration":
                return 200, self.discovery(), {}
            case "GET", "/jwks":
                return 200, {"keys": [key.published for key in self.keys]}, {}
            case "GET", "/authorize":
                return 302, {}, {"Location": self.authorize(given)}
            case "POST", "/device":
                return 200, self.device(), {}
            case "POST", "/token":
                return *self.grant(given), {}
            case "POST", "/revoke":
                self.refreshing.discard(given.get("token", ""))
                return 200, {}, {}
        return 404, {"error": "not_found"}, {}


@contextmanager
def provider(*keys: Signing) -> Iterator[Provider]:
    """A provider that signs with these keys, or with an RS256 and an ES256 one."""
    made = Provider(list(keys) or [rs256(), es256()])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            self.reply("GET", urlsplit(self.path).query)

        def do_POST(self) -> None:
            self.reply("POST", self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())

        def reply(self, method: str, given: str) -> None:
            fields = {name: values[0] for name, values in parse_qs(given).items()}
            status, body, headers = made.answer(method, urlsplit(self.path).path, fields)
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data)), "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

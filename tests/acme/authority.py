"""A small ACME authority (RFC 8555) for tests, on loopback: it checks signatures, nonces and challenges for real.

Every name is found at 127.0.0.1, its port 80 being `http_port`. What it is to do wrong is set on it.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import secrets
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.gateway.certificates import Authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAID = web.RequestKey("said", dict[str, Any])
ACCOUNT = web.RequestKey("account", str)


class Problem(Exception):
    def __init__(self, status: int, kind: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.headers = status, kind, headers


@dataclass
class Order:
    names: list[str]
    account: str
    token: dict[str, str]
    status: dict[str, str]
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    csr: x509.CertificateSigningRequest | None = None
    polls: int = 0
    chain: bytes = b""

    @property
    def state(self) -> str:
        if "invalid" in self.status.values():
            return "invalid"
        if self.chain:
            return "valid"
        if self.csr is not None:
            return "processing"
        return "ready" if set(self.status.values()) == {"valid"} else "pending"


class AcmeAuthority:
    """`life`: seconds that certificates are good for. `bad_nonces`: how many are refused first. `limited`: seconds of
    Retry-After with which orders are sent away. `polls`: for how many looks an order is processed. `hang`: set to keep
    challenges unanswered."""

    def __init__(self, folder: Path, http_port: int) -> None:
        self._https = Authority(folder, "https")
        self._pair = self._https.issue("directory")
        self.ca = self._https.path
        self.http_port = http_port
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test authority {secrets.token_hex(4)}")])
        self._root = self._built(self._name, self._key.public_key(), 3650 * 86_400.0).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ).sign(self._key, hashes.SHA256())  # fmt: skip
        self.root = folder / "root.pem"
        self.root.write_bytes(self._root.public_bytes(Encoding.PEM))
        self.life, self.bad_nonces, self.polls = 86_400.0, 0, 1
        self.limited: float | None = None
        self.hang = threading.Event()
        self.orders: list[Order] = []
        self.accounts: dict[str, dict[str, Any]] = {}
        self.nonces: set[str] = set()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def directory(self) -> str:
        return f"https://localhost:{self.port}/directory"

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/directory", self._directory)
        app.router.add_route("*", "/nonce", self._nonce)
        for path, handler in (
            ("/account", self._new_account), ("/account/{id}", self._account), ("/orders", self._new_order),
            ("/order/{n}", self._order), ("/order/{n}/finalize", self._finalize), ("/order/{n}/chain", self._chain),
            ("/authz/{n}/{i}", self._authz), ("/challenge/{n}/{i}", self._challenge),
        ):  # fmt: skip
            app.router.add_post(path, handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pair.cert, self._pair.key)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @contextmanager
    def running(self, port: int = 0) -> Iterator[None]:
        """In a thread of its own, for tests that do not run on a loop."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self.start(port), loop).result(20)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self.stop(), loop).result(20)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)
            loop.close()

    def trusting(self) -> ssl.SSLContext:
        """What a client that trusts the certificates made here connects with."""
        return ssl.create_default_context(cafile=str(self.root))

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.method == "POST":
                request[SAID], request[ACCOUNT] = await self._signed(request)
            answer = await handler(request)
        except Problem as problem:
            body = {"type": f"urn:ietf:params:acme:error:{problem.kind}", "detail": str(problem)}
            answer = web.json_response(body, status=problem.status, content_type="application/problem+json")
            answer.headers.update(problem.headers)
        nonce = secrets.token_urlsafe(16)
        self.nonces.add(nonce)
        answer.headers["Replay-Nonce"] = nonce
        return answer

    async def _signed(self, request: web.Request) -> tuple[Any, str]:
        """The payload, and whose it is, of a request whose signature, nonce and address are right."""
        body = await request.json()
        head = json.loads(_decoded(body["protected"]))
        if head["nonce"] not in self.nonces or self.bad_nonces > 0:
            self.bad_nonces -= 1
            raise Problem(400, "badNonce", "this nonce is not known")
        self.nonces.remove(head["nonce"])
        if head["url"] != str(request.url) or head["alg"] != "ES256" or ("jwk" in head) == ("kid" in head):
            raise Problem(400, "malformed", "what is protected is not right")
        if "kid" in head and head["kid"] not in self.accounts:
            raise Problem(400, "accountDoesNotExist", "there is no such account")
        jwk = head.get("jwk") or self.accounts[head["kid"]]["jwk"]
        point = (int.from_bytes(_decoded(jwk[axis])) for axis in "xy")
        signature = _decoded(body["signature"])
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        try:
            ec.EllipticCurvePublicNumbers(*point, ec.SECP256R1()).public_key().verify(
                encode_dss_signature(r, s), f"{body['protected']}.{body['payload']}".encode(), ec.ECDSA(hashes.SHA256())
            )
        except InvalidSignature:
            raise Problem(403, "unauthorized", "the signature is wrong") from None
        payload = _decoded(body["payload"])
        return json.loads(payload) if payload else None, head.get("kid") or json.dumps(jwk, sort_keys=True)

    async def _directory(self, request: web.Request) -> web.Response:
        at = str(request.url.origin())
        places = {"newNonce": "nonce", "newAccount": "account", "newOrder": "orders", "revokeCert": "revoke"}
        return web.json_response(
            {name: f"{at}/{path}" for name, path in places.items()} | {"meta": {"termsOfService": f"{at}/terms"}}
        )

    async def _nonce(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.method == "HEAD" else 204)

    async def _new_account(self, request: web.Request) -> web.Response:
        # Named by its JWK: this is the one call that carries it.
        jwk, said = json.loads(request[ACCOUNT]), request[SAID]
        for uri, account in self.accounts.items():
            if account["jwk"] == jwk:
                return web.json_response(account["body"], headers={"Location": uri})
        if said.get("onlyReturnExisting"):
            raise Problem(400, "accountDoesNotExist", "there is no such account")
        if not said.get("termsOfServiceAgreed"):
            raise Problem(403, "userActionRequired", "agree to the terms")
        uri = f"{request.url.origin()}/account/{len(self.accounts)}"
        body = {"status": "valid", "contact": said.get("contact", [])}
        self.accounts[uri] = {"jwk": jwk, "body": body}
        return web.json_response(body, status=201, headers={"Location": uri})

    async def _account(self, request: web.Request) -> web.Response:
        body = self.accounts[str(request.url)]["body"]
        body |= {name: value for name, value in (request[SAID] or {}).items() if name == "contact"}
        return web.json_response(body, headers={"Location": str(request.url)})

    async def _new_order(self, request: web.Request) -> web.Response:
        if self.limited is not None:
            raise Problem(429, "rateLimited", "too many orders", **{"Retry-After": str(int(self.limited))})
        names = [one["value"] for one in request[SAID]["identifiers"]]
        order = Order(
            names, request[ACCOUNT], {n: secrets.token_urlsafe(24) for n in names}, dict.fromkeys(names, "pending")
        )
        self.orders.append(order)
        at = f"{request.url.origin()}/order/{len(self.orders) - 1}"
        return web.json_response(self._order_body(request, len(self.orders) - 1), status=201, headers={"Location": at})

    def _order_body(self, request: web.Request, n: int) -> dict[str, Any]:
        at, order = request.url.origin(), self.orders[n]
        body: dict[str, Any] = {
            "status": order.state,
            "identifiers": [{"type": "dns", "value": name} for name in order.names],
            "authorizations": [f"{at}/authz/{n}/{i}" for i in range(len(order.names))],
            "finalize": f"{at}/order/{n}/finalize",
        }
        return body | ({"certificate": f"{at}/order/{n}/chain"} if order.chain else {})

    def _of(self, request: web.Request) -> tuple[int, Order]:
        n = int(request.match_info["n"])
        if self.orders[n].account != request[ACCOUNT]:
            raise Problem(403, "unauthorized", "this is another account's")
        return n, self.orders[n]

    async def _order(self, request: web.Request) -> web.Response:
        n, order = self._of(request)
        order.polls += 1
        if order.csr is not None and order.polls >= self.polls and not order.chain:
            order.chain = self._issue(order.csr)
        return web.json_response(self._order_body(request, n), headers={"Retry-After": "1"})

    async def _authz(self, request: web.Request) -> web.Response:
        n, order = self._of(request)
        i = int(request.match_info["i"])
        name, at = order.names[i], request.url.origin()
        challenge = {"type": "http-01", "url": f"{at}/challenge/{n}/{i}", "token": order.token[name]}
        challenge |= {"status": order.status[name]} | ({"error": order.errors[name]} if name in order.errors else {})
        other = {
            "type": "dns-01",
            "url": f"{at}/challenge/{n}/{i}?dns",
            "token": order.token[name],
            "status": "pending",
        }
        body = {"identifier": {"type": "dns", "value": name}, "status": order.status[name]}
        return web.json_response(body | {"challenges": [other, challenge]})

    async def _challenge(self, request: web.Request) -> web.Response:
        n, order = self._of(request)
        i = int(request.match_info["i"])
        name, at = order.names[i], request.url.origin()
        if not self.hang.is_set():
            await self._validate(order, name)
        body = {"type": "http-01", "url": f"{at}/challenge/{n}/{i}", "token": order.token[name]}
        return web.json_response(
            body | {"status": order.status[name]}, headers={"Link": f'<{at}/authz/{n}/{i}>;rel="up"'}
        )

    async def _validate(self, order: Order, name: str) -> None:
        """Ask the name itself, as RFC 8555, 8.3 has it."""
        jwk = self.accounts[order.account]["jwk"]
        digest = hashes.Hash(hashes.SHA256())
        digest.update(json.dumps({k: jwk[k] for k in ("crv", "kty", "x", "y")}, separators=(",", ":")).encode())
        wanted = f"{order.token[name]}.{base64.urlsafe_b64encode(digest.finalize()).decode().rstrip('=')}"
        url = f"http://127.0.0.1:{self.http_port}/.well-known/acme-challenge/{order.token[name]}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
                session.get(url, headers={"Host": name}) as answer,
            ):
                good = answer.status == 200 and (await answer.text()).rstrip() == wanted
        except (aiohttp.ClientError, TimeoutError):
            good = False
        order.status[name] = "valid" if good else "invalid"
        if not good:
            kind = "urn:ietf:params:acme:error:connection"
            order.errors[name] = {"type": kind, "detail": f"{name} has no good answer on port 80"}

    async def _finalize(self, request: web.Request) -> web.Response:
        n, order = self._of(request)
        if order.state != "ready":
            raise Problem(403, "orderNotReady", f"the order is {order.state}")
        csr = x509.load_der_x509_csr(_decoded(request[SAID]["csr"]))
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not csr.is_signature_valid or sorted(names.get_values_for_type(x509.DNSName)) != sorted(order.names):
            raise Problem(400, "badCSR", "this is not what was ordered")
        order.csr = csr
        return web.json_response(
            self._order_body(request, n), headers={"Location": f"{request.url.origin()}/order/{n}"}
        )

    async def _chain(self, request: web.Request) -> web.Response:
        _, order = self._of(request)
        return web.Response(body=order.chain, content_type="application/pem-certificate-chain")

    def _issue(self, csr: x509.CertificateSigningRequest) -> bytes:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        made = (
            self._built(csr.subject, csr.public_key(), self.life)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(Encoding.PEM) + self._root.public_bytes(Encoding.PEM)

    def _built(self, subject: x509.Name, key: Any, life: float) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(seconds=life))
        )


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

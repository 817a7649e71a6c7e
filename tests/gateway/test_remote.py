"""The admin API on the endpoint: real TLS, a real provider, and everybody who is not let in."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp.web import ServerRunner, TCPSite

from lumen.config.schema import Oidc, Tls
from lumen.gateway import app, issuer
from lumen.gateway.http import Ingress
from lumen.gateway.issuer import APART, FRESH, STALE, Issuer, IssuerError
from lumen.gateway.remote import Remote
from lumen.gateway.signon import COOKIE, PATIENCE
from lumen.gateway.tls import Certificates
from lumen.gateway.tokens import TokenError
from lumen.keys import KeyRing, mint
from tests.gateway.certificates import Authority
from tests.gateway.conftest import Up
from tests.gateway.oidc_provider import CLIENT, Provider, es256, provider, rs256
from tests.gateway.test_admin import Asked

pytestmark = pytest.mark.anyio
PUBLIC = "https://lumen.example.com"


@pytest.fixture(scope="module")
def keys() -> list[Any]:
    return [rs256(), es256()]


@pytest.fixture
def idp(keys: list[Any]) -> Iterator[Provider]:
    with provider(*keys) as made:
        made.person = {"sub": "u1", "preferred_username": "ann", "groups": ["staff"]}
        yield made


@dataclass
class Afar:
    """The endpoint over TLS, and over plain HTTP as a proxy would reach it."""

    url: str
    plain: str
    up: Up
    idp: Provider
    operator: Asked
    session: aiohttp.ClientSession
    now: list[float] = field(default_factory=list)

    def settle(self, **server: Any) -> None:
        """Change the settings of the running server."""
        config = self.up.state.config
        self.up.state.config = replace(config, server=replace(config.server, **server))

    def role(self, role: Any) -> str:
        """A new key with this role."""
        key, secret = mint(f"{role}-key", role=role)
        assert self.up.state.ring is not None
        self.up.state.ring = KeyRing([*self.up.state.ring.keys, key])
        return secret

    async def ask(
        self, path: str, token: str | None = None, method: str = "GET", url: str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        headers = {**options.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        async with self.session.request(
            method, (url or self.url) + path, headers=headers, allow_redirects=False, **options
        ) as answer:
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None, answer.headers


@pytest.fixture
async def afar(up: Up, idp: Provider, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Afar]:
    authority = Authority(tmp_path)
    authority.issue("server")
    up.state.config = replace(
        up.state.config,
        server=replace(up.state.config.server, remote_admin=True, public_url=PUBLIC),
        auth=replace(up.state.config.auth, oidc=Oidc(idp.url, CLIENT, roles={"staff": "viewer", "ops": "operator"})),
    )
    operator, now = Asked(), [0.0]
    up.state.remote = Remote(operator, up.state, lambda: time.time() + now[0]).handle
    runner = ServerRunner(Ingress(app.handler(up.state), header_timeout=30, idle_timeout=30), shutdown_timeout=0.1)
    await runner.setup()
    tls = Certificates(Tls("server.crt", "server.key"), tmp_path, print)
    await TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context).start()
    port = runner.addresses[0][1]
    connector = aiohttp.TCPConnector(ssl=authority.client())
    # What a browser keeps is given by each test itself.
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Afar(f"https://localhost:{port}", up.url, up, idp, operator, session, now)
    await runner.cleanup()


# -- who is let in -------------------------------------------------------------------------------------------------


async def test_nothing_is_there_unless_it_was_asked_for(afar: Afar) -> None:
    token = afar.role("admin")
    afar.settle(remote_admin=False)
    for path in ("/admin/status", "/admin/auth", "/admin/login"):
        status, body, _ = await afar.ask(path, token)
        assert (status, body["error"]["code"]) == (404, "not_found")
    assert afar.operator.done == []


async def test_without_tls_nothing_is_answered_whatever_is_claimed(afar: Afar) -> None:
    token = afar.role("admin")
    for headers in ({}, {"X-Forwarded-Proto": "https"}):
        status, body, _ = await afar.ask("/admin/status", token, url=afar.plain, headers=headers)
        assert (status, body["error"]["code"]) == (403, "tls_required")
    afar.settle(trusted_proxies=("127.0.0.1",))
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    status, _, _ = await afar.ask("/admin/cancel", token, "POST", afar.plain, headers=said, json={"request": "r"})
    assert status == 200
    noted = ("gateway.cancel", ("r",), "key:admin-key", {"address": "203.0.113.9"})
    assert afar.operator.noted == [noted]
    status, _, _ = await afar.ask("/admin/status", token, url=afar.plain, headers={"X-Forwarded-Proto": "http"})
    assert status == 403


async def test_nobody_and_keys_for_inference_are_not_let_in(afar: Afar) -> None:
    status, _, headers = await afar.ask("/admin/status")
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await afar.ask("/admin/status", "nonsense"))[0] == 401
    assert (await afar.ask("/admin/status", "lumen-session-nonsense"))[0] == 401
    status, body, _ = await afar.ask("/admin/status", afar.up.secret)
    assert (status, body["error"]["code"]) == (403, "role_required")
    assert afar.operator.done == []


async def test_a_key_does_what_its_role_may(afar: Afar) -> None:
    viewer, operator = afar.role("viewer"), afar.role("operator")
    assert (await afar.ask("/admin/status", viewer))[0] == 200
    assert (await afar.ask("/admin/sleep", viewer, "POST", json={"model": "m"}))[0] == 403
    assert (await afar.ask("/admin/sleep", operator, "POST", json={"model": "m"}))[0] == 202
    assert (await afar.ask("/admin/stop", operator, "POST"))[0] == 403
    assert afar.operator.done == [("status",), ("sleep", "m")]
    refused = [(given, who) for action, given, who, _ in afar.operator.noted if action == "gateway.refused"]
    assert refused == [(("sleep",), "key:viewer-key"), (("stop",), "key:operator-key")]
    assert (await afar.ask("/admin/whoami", viewer))[1] == {"name": "key:viewer-key", "role": "viewer", "expires": None}
    # A key with a role asks no model, and may read what is measured.
    assert (await afar.ask("/v1/models", viewer))[0] == 403
    async with afar.session.get(afar.url + "/metrics", headers={"Authorization": f"Bearer {viewer}"}) as answer:
        assert answer.status == 200


async def test_a_token_of_the_issuer_does_what_its_groups_may(afar: Afar) -> None:
    for key in afar.idp.keys:
        assert (await afar.ask("/admin/status", afar.idp.token(key)))[0] == 200
    status, body, _ = await afar.ask("/admin/sleep", afar.idp.token(), "POST", json={"model": "m"})
    assert status == 403 and "operator" in body["error"]["message"]
    steering = afar.idp.token(groups=["staff", "ops"])
    assert (await afar.ask("/admin/sleep", steering, "POST", json={"model": "m"}))[0] == 202
    assert afar.operator.noted[-1][2] == "oidc:ann (u1)"
    status, body, _ = await afar.ask("/admin/status", afar.idp.token(groups=["others"]))
    assert (status, body["error"]["code"]) == (403, "role_required")
    whoami = (await afar.ask("/admin/whoami", afar.idp.token()))[1]
    assert (whoami["name"], whoami["role"]) == ("oidc:ann (u1)", "viewer") and whoami["expires"] > time.time()


async def test_a_token_that_is_not_right_is_refused_and_told_why(afar: Afar) -> None:
    for token, said in (
        (afar.idp.token(aud="other"), "somebody else"),
        (afar.idp.token(iss="https://evil.example.com"), "another issuer"),
        (afar.idp.token(exp=1), "expired"),
        (afar.idp.token(rs256()), "signature"),
        (afar.idp.token()[:-9] + "AAAAAAAAA", "signature"),
    ):
        status, body, headers = await afar.ask("/admin/status", token)
        assert (status, body["error"]["code"]) == (401, "invalid_token")
        assert headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert said in body["error"]["message"] and token not in body["error"]["message"]
    assert afar.operator.done == []


async def test_a_stream_ends_with_the_token_that_opened_it(afar: Afar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.gateway.admin._FRAME", 0.001)
    headers = {"Authorization": f"Bearer {afar.idp.token()}"}
    async with asyncio.timeout(100), afar.session.get(afar.url + "/admin/events", headers=headers) as answer:
        assert json.loads(await answer.content.readline())["number"] == 1
        afar.now[0] = 3600
        await answer.content.read()


async def test_how_to_sign_on_is_told_to_everybody(afar: Afar) -> None:
    told = {"issuer": afar.idp.url, "client_id": CLIENT, "scopes": ["openid", "profile", "email"], "token": "id_token"}
    assert (await afar.ask("/admin/auth"))[1] == told
    afar.up.state.config = replace(afar.up.state.config, auth=replace(afar.up.state.config.auth, oidc=None))
    assert (await afar.ask("/admin/auth"))[1] == {"issuer": None}
    assert (await afar.ask("/admin/login"))[0] == 404
    assert (await afar.ask("/admin/status", afar.idp.token()))[0] == 401


# -- the issuer's keys ---------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


async def test_keys_are_fetched_when_a_new_one_is_met_and_not_more_often(idp: Provider, clock: list[float]) -> None:
    found = Issuer(idp.url, lambda: clock[0])
    await asyncio.gather(*(found.signer(idp.token()) for _ in range(20)))
    assert (idp.asked["/jwks"], idp.asked["/.well-known/openid-configuration"]) == (1, 1)
    fresh = es256("fresh")
    idp.keys = [fresh]
    # However many name keys that are not known, no fetch is made for a while.
    for number in range(50):
        with pytest.raises(TokenError):
            await found.signer(idp.token(fresh, {"kid": f"made-up-{number}"}))
    assert idp.asked["/jwks"] == 1
    clock[0] += APART
    assert (await found.signer(idp.token(fresh))).id == "fresh"
    assert idp.asked["/jwks"] == 2
    # The old key is gone with it.
    with pytest.raises(TokenError):
        await found.signer(idp.token(Provider([rs256()], idp.url).keys[0]))


async def test_keys_are_fetched_anew_after_a_while_and_outlive_an_issuer_that_is_away(
    idp: Provider, clock: list[float]
) -> None:
    found = Issuer(idp.url, lambda: clock[0])
    await found.signer(idp.token())
    clock[0] += FRESH
    await found.signer(idp.token())
    assert idp.asked["/jwks"] == 2
    idp.broken = True
    clock[0] += FRESH
    assert (await found.signer(idp.token())).id == "rs"
    clock[0] += STALE
    with pytest.raises(IssuerError):
        await found.signer(idp.token())
    idp.broken = False
    clock[0] += APART
    assert (await found.signer(idp.token())).id == "rs"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example.com"},
        {"jwks_uri": "http://192.0.2.1/jwks"},
        {"token_endpoint": None},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
async def test_an_issuer_that_is_not_what_it_should_be_is_not_used(idp: Provider, metadata: dict[str, Any]) -> None:
    idp.metadata = metadata
    with pytest.raises(IssuerError):
        await Issuer(idp.url, lambda: 0.0).signer(idp.token())
    assert idp.asked["/jwks"] == 0


async def test_an_issuer_that_is_away_is_not_asked_all_the_time(idp: Provider, clock: list[float]) -> None:
    idp.broken = True
    found = Issuer(idp.url, lambda: clock[0])
    for _ in range(20):
        with pytest.raises(IssuerError):
            await found.signer(idp.token())
        with pytest.raises(IssuerError):
            await found.metadata()
    assert idp.asked["/.well-known/openid-configuration"] <= 2
    idp.broken = False
    clock[0] += APART
    assert (await found.signer(idp.token())).id == "rs"


async def test_an_answer_without_end_is_not_read(idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer, "_LARGEST", 100)
    with pytest.raises(IssuerError, match="more than can be read"):
        await Issuer(idp.url, lambda: 0.0).signer(idp.token())


# -- sign-on in the browser ----------------------------------------------------------------------------------------


async def begin(afar: Afar) -> tuple[str, str]:
    """What a browser has after `/admin/login`: where it was sent, and its cookie."""
    status, _, headers = await afar.ask("/admin/login")
    assert status == 302 and headers["Cache-Control"] == "no-store"
    cookie = SimpleCookie(headers["Set-Cookie"])[COOKIE]
    assert cookie["secure"] and cookie["httponly"] and cookie["path"] == "/" and cookie["samesite"] == "Lax"
    return headers["Location"], cookie.value


async def agreed(afar: Afar, where: str) -> str:
    """The path that the issuer sends the browser back to once its user agreed."""
    async with aiohttp.ClientSession() as browser, browser.get(where, allow_redirects=False) as answer:
        back = answer.headers["Location"]
    assert back.startswith(f"{PUBLIC}/admin/callback?")
    return back.removeprefix(PUBLIC)


async def test_a_sign_on_in_the_browser_gives_a_session(afar: Afar) -> None:
    where, cookie = await begin(afar)
    query = parse_qs(urlsplit(where).query)
    assert query["code_challenge_method"] == ["S256"] and query["redirect_uri"] == [f"{PUBLIC}/admin/callback"]
    back = await agreed(afar, where)
    status, told, headers = await afar.ask(back, headers={"Cookie": f"{COOKIE}={cookie}"})
    assert status == 200 and headers["Cache-Control"] == "no-store"
    assert (told["name"], told["role"]) == ("oidc:ann (u1)", "viewer")
    assert afar.operator.noted == [("gateway.login", ("oidc:ann (u1)",), "oidc:ann (u1)", {"role": "viewer"})]
    token = told["token"]
    assert (await afar.ask("/admin/status", token))[0] == 200
    assert (await afar.ask("/admin/stop", token, "POST"))[0] == 403
    # A session is for the admin API alone, and a cookie is none.
    assert (await afar.ask("/v1/models", token))[0] == 401
    assert (await afar.ask("/admin/status", headers={"Cookie": f"{COOKIE}={cookie}"}))[0] == 401
    # The code is worth nothing a second time.
    assert (await afar.ask(back, headers={"Cookie": f"{COOKIE}={cookie}"}))[0] == 401
    afar.settle(max_in_flight=7)
    assert (await afar.ask("/admin/status", token))[0] == 200, "an unrelated reload ends no session"
    assert (await afar.ask("/admin/logout", token, "POST"))[1] == {"ended": True}
    assert (await afar.ask("/admin/status", token))[0] == 401


async def test_a_session_ends_by_itself_and_with_what_it_rests_on(afar: Afar) -> None:
    where, cookie = await begin(afar)
    told = (await afar.ask(await agreed(afar, where), headers={"Cookie": f"{COOKIE}={cookie}"}))[1]
    afar.now[0] = 8 * 3600 - 60
    assert (await afar.ask("/admin/status", told["token"]))[0] == 200
    afar.now[0] = 8 * 3600 + 60
    assert (await afar.ask("/admin/status", told["token"]))[0] == 401
    afar.now[0] = 0
    auth = afar.up.state.config.auth
    assert auth.oidc is not None
    changed = replace(auth, oidc=replace(auth.oidc, roles={"staff": "admin"}))
    afar.up.state.config = replace(afar.up.state.config, auth=changed)
    assert (await afar.ask("/admin/status", told["token"]))[0] == 401, "roles were changed: sign on again"


async def test_an_answer_that_another_browser_began_is_refused(afar: Afar) -> None:
    mine, cookie = await begin(afar)
    theirs, other = await begin(afar)
    back = await agreed(afar, theirs)
    for sent in (None, f"{COOKIE}={cookie}", f"{COOKIE}=x", f"{COOKIE}={other[:-1]}x", f"{COOKIE}=\xff.\xff"):
        status, body, _ = await afar.ask(back, headers={"Cookie": sent} if sent else {})
        assert (status, body["error"]["code"]) == (400, "signon_unknown"), sent
    forged = base64.urlsafe_b64encode(b'["s","n","v",9e9]').decode()
    status, _, _ = await afar.ask("/admin/callback?code=c&state=s", headers={"Cookie": f"{COOKIE}={forged}.{'0' * 64}"})
    assert status == 400
    assert afar.idp.asked["/token"] == 0
    good = {"Cookie": f"{COOKIE}={other}"}
    afar.now[0] = PATIENCE + 1
    assert (await afar.ask(back, headers=good))[0] == 400
    afar.now[0] = 0
    mixed = back.replace("iss=http", "iss=https")
    assert (await afar.ask(mixed, headers=good))[0] == 400
    assert (await afar.ask(back.replace("code=", "error=access_denied&code="), headers=good))[0] == 403
    # A code that was bound to another verifier.
    code = parse_qs(urlsplit(await agreed(afar, mine)).query)["code"][0]
    state = parse_qs(urlsplit(theirs).query)["state"][0]
    assert (await afar.ask(f"/admin/callback?code={code}&state={state}", headers=good))[0] == 401
    assert afar.operator.noted == []


async def test_who_has_no_role_gets_no_session(afar: Afar) -> None:
    afar.idp.person = {"sub": "u2", "groups": ["others"]}
    where, cookie = await begin(afar)
    status, body, _ = await afar.ask(await agreed(afar, where), headers={"Cookie": f"{COOKIE}={cookie}"})
    assert (status, body["error"]["code"]) == (403, "role_required")


async def test_without_a_public_address_nobody_is_sent_anywhere(afar: Afar) -> None:
    afar.settle(public_url=None)
    status, body, _ = await afar.ask("/admin/login", headers={"Host": "localhost"})
    assert status == 404 and "public_url" in body["error"]["message"]

"""Sign-on at a certified OpenID Connect provider, by device and in a browser, through its own pages."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import pytest
from lumen_cli import signon

from lumen.gateway.signon import COOKIE
from tests.cli.conftest import home, lumen
from tests.cli.harness import Ran
from tests.cli.test_cli_login import Elsewhere, elsewhere, login, no_context
from tests.clients import environments
from tests.gateway.certificates import Authority

__all__ = ["elsewhere", "home", "lumen", "no_context"]
pytestmark = pytest.mark.clients
PUBLIC = "https://lumen.example.com"
HERE = Path(__file__).parent
Run = Callable[..., Ran]


@dataclass
class Issuer:
    url: str


@pytest.fixture(scope="session")
def installed() -> Path:
    folder = environments.node("oidc")
    shutil.copy(HERE / "oidc_provider.mjs", folder)
    return folder


@pytest.fixture(params=["RS256", "ES256"])
def idp(installed: Path, request: pytest.FixtureRequest) -> Iterator[Issuer]:
    command = ["node", "oidc_provider.mjs", request.param, f"{PUBLIC}/admin/callback"]
    with subprocess.Popen(
        command, cwd=installed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield Issuer(process.stdout.readline().strip())
        process.stdin.close()
        process.wait(100)


class Form(HTMLParser):
    """The first form of a page: where it goes, and what it holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and self.action is None:
            self.action = found.get("action", "")
        elif tag == "input" and found.get("name"):
            self.fields.setdefault(found["name"], found.get("value", ""))


class Stay(HTTPRedirectHandler):
    """Follows redirects, but not to Lumen, which is not there under its public name."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if newurl.startswith(PUBLIC):
            raise Arrived(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Arrived(Exception):
    pass


@dataclass
class Browser:
    """Somebody who signs on and agrees to everything."""

    opener: Any = field(
        default_factory=lambda: build_opener(
            ProxyHandler({}), Stay(), HTTPCookieProcessor(CookieJar(DefaultCookiePolicy(strict_domain=False)))
        )
    )

    def agree(self, url: str) -> str:
        """Fill in form after form; where it ends, or what the last page says."""
        data = None
        for _ in range(10):
            try:
                with self.opener.open(Request(url, data), timeout=20) as answer:
                    url, page = answer.url, answer.read().decode()
            except Arrived as there:
                return str(there)
            form = Form(page)
            if form.action is None:
                return str(page)
            given = {**form.fields, **({"login": "ann", "password": "x"} if "login" in form.fields else {})}
            url, data = urljoin(url, form.action), urlencode(given).encode()
        raise AssertionError("the provider never ends")


@pytest.mark.timeout(300)
def test_a_device_sign_on_its_renewal_and_its_end(
    lumen: Run, elsewhere: Elsewhere, idp: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, begin = threading.Event(), signon.begin
    pages: list[str] = []

    def begun(*args: Any) -> Any:
        asked = begin(*args)
        assert asked.complete is not None
        pages.append(asked.complete)
        asking.set()
        return asked

    said: list[str] = []

    def agree() -> None:
        assert asking.wait(100)
        said.append(Browser().agree(pages[0]))

    monkeypatch.setattr(signon, "begin", begun)
    person = threading.Thread(target=agree, daemon=True)
    person.start()
    done = login(lumen, elsewhere)
    person.join(60)
    assert done.code == 0, (done.err, said)
    assert "oidc:ann@example (ann) (viewer)" in done.out
    assert lumen("--url", elsewhere.url, "status").code == 0
    # As if the token's time were up: its refresh token gets another.
    elsewhere.now[0] = 0.0
    monkeypatch.setattr(signon, "EARLY", 10_000_000.0)
    again = lumen("--url", elsewhere.url, "status")
    assert again.code == 0, again.err
    monkeypatch.setattr(signon, "EARLY", 30.0)
    assert lumen("logout").code == 0
    assert lumen("--url", elsewhere.url, "status").code == 1


@pytest.mark.timeout(300)
def test_a_sign_on_in_the_browser(elsewhere: Elsewhere, idp: Issuer, tmp_path: Path) -> None:
    config = elsewhere.state.config
    elsewhere.state.config = replace(config, server=replace(config.server, public_url=PUBLIC))
    trusting = Authority.trusting(elsewhere.ca)
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=trusting), Nowhere())
    with pytest.raises(HTTPError) as sent:
        opener.open(f"{elsewhere.url}/admin/login", timeout=20)
    cookie = sent.value.headers["Set-Cookie"].partition(";")[0]
    where = sent.value.headers["Location"]
    sent.value.close()
    assert cookie.startswith(COOKIE)
    back = Browser().agree(where)
    answered = opener.open(Request(back.replace(PUBLIC, elsewhere.url), headers={"Cookie": cookie}), timeout=20)
    with answered as answer:
        told = answer.read().decode()
    assert '"role":"viewer"' in told and '"name":"oidc:ann@example (ann)"' in told and "lumen-session-" in told


class Nowhere(HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None

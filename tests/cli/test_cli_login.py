"""Signing on at a gateway elsewhere, against a real one over TLS and a real provider."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.web import BaseRequest, ServerRunner, StreamResponse, TCPSite
from hypothesis import given
from hypothesis import strategies as st
from lumen_cli import contexts, signon
from lumen_cli.client import Admin
from lumen_cli.commands.top import _MOST_FRAMES, _first
from lumen_cli.errors import CliError
from lumen_cli.remote import Afar

from lumen.config.schema import Auth, Config, Oidc, Server, Tls
from lumen.core.errors import LumenError
from lumen.gateway.http import Ingress
from lumen.gateway.remote import Remote, _private
from lumen.gateway.reply import error_reply
from lumen.gateway.tls import Certificates
from lumen.keys import KeyRing, mint
from lumen.paths import Paths
from tests.cli.harness import Ran
from tests.gateway.certificates import Authority
from tests.gateway.oidc_provider import CLIENT, Provider, es256, provider
from tests.gateway.test_admin import Asked

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LUMEN_URL", "LUMEN_TOKEN", "LUMEN_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider(es256()) as made:
        made.person = {"sub": "u1", "preferred_username": "ann", "groups": ["staff"]}
        yield made


@dataclass
class Elsewhere:
    """A gateway's admin API on another thread, as another machine would have it."""

    url: str
    ca: Path
    state: Any
    operator: Asked
    now: list[float]
    served: Any = None
    calls: list[str] = field(default_factory=list)


@pytest.fixture
def elsewhere(idp: Provider, tmp_path: Path) -> Iterator[Elsewhere]:
    authority = Authority(tmp_path)
    authority.issue("server")
    config = Config(
        server=Server(remote_admin=True),
        auth=Auth(oidc=Oidc(idp.url, CLIENT, roles={"staff": "viewer", "ops": "operator"})),
    )
    operator, now = Asked(), [0.0]
    operator.status = lambda: {  # type: ignore[attr-defined]
        "version": "9.9", "pid": 1, "url": "https://elsewhere/v1", "uptime_s": 5.0, "ready": True, "models": [],
        "profile": {"name": "cpu"}, "requests": {}, "routes": [],
    }  # fmt: skip
    operator.routes = lambda: [{"did": "there"}]  # type: ignore[attr-defined]
    operator.targets = lambda: []  # type: ignore[attr-defined]
    made = Elsewhere("", authority.path, SimpleNamespace(config=config, ring=KeyRing()), operator, now)
    made.served = served = Remote(operator, made.state, lambda: time.time() + now[0])

    async def handle(request: BaseRequest) -> StreamResponse:
        made.calls.append(request.path)
        try:
            return await served.handle(request)
        except LumenError as error:
            return error_reply(error, {})

    started: Future[int] = Future()
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        runner = ServerRunner(Ingress(handle, header_timeout=30, idle_timeout=30), shutdown_timeout=0.1)
        await runner.setup()
        tls = Certificates(Tls("server.crt", "server.key"), tmp_path, print)
        await TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.context).start()
        started.set_result(runner.addresses[0][1])
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    made.url = f"https://localhost:{started.result(20)}"
    yield made
    loop.call_soon_threadsafe(stopping.set)
    thread.join(20)
    loop.run_until_complete(_quiet(loop))
    loop.close()


async def _quiet(loop: asyncio.AbstractEventLoop) -> None:
    """Wait for the last connections' own farewells: TLS has one, and the loop would end before it."""
    async with asyncio.timeout(100):
        # What is left is the loop's own way of waking itself.
        while len(loop._selector.get_map()) > 1:  # type: ignore[attr-defined]
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits between two questions; how long it would have been."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits


def login(lumen: Run, elsewhere: Elsewhere, *more: str) -> Ran:
    return lumen("login", "--url", elsewhere.url, "--ca", str(elsewhere.ca), *more)


def test_a_sign_on_by_device_makes_commands_work_there(
    lumen: Run, home: Paths, elsewhere: Elsewhere, idp: Provider, quick: list[float]
) -> None:
    idp.answers = ["authorization_pending", "slow_down", "authorization_pending"]
    done = login(lumen, elsewhere)
    assert done.code == 0, done.err
    assert "WDJB-MJHT" in done.err and f"{idp.url}/activate" in done.err
    assert "oidc:ann (u1) (viewer)" in done.out
    assert quick == [1.0, 1.0, 6.0, 6.0], "slow_down adds five seconds"
    kept = home.config_dir / "signed-on.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert lumen("--url", elsewhere.url, "status").out.startswith("Lumen 9.9 is ready at https://elsewhere")
    name = elsewhere.url.removeprefix("https://")
    assert lumen("--url", name, "target", "ls", "--json").json == []
    assert lumen("whoami", "--url", name).out.startswith("oidc:ann (u1), role viewer, until ")
    assert elsewhere.url in lumen("whoami").out
    refused = lumen("--url", name, "sleep", "m")
    assert refused.code == 1 and "needs the role operator" in refused.err
    frame = lumen("--url", name, "top", "--once", "--json")
    assert frame.code == 0, frame.err
    assert frame.json == {"number": _MOST_FRAMES}, "none of them tells of devices"
    token = next(iter(json.loads(kept.read_text())["contexts"].values()))["token"]
    assert token not in done.out + done.err


def test_a_connection_whose_other_end_says_no_farewell_is_let_go_of(tmp_path: Path) -> None:
    """The loop ends with the command, and what TLS would still wait for would be left open in it."""
    authority = Authority(tmp_path)
    authority.issue("server")
    admin = Admin(tmp_path / "none")
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://localhost:{listening.getsockname()[1]}"
        admin._door = Afar(contexts.Context(url, "token", ca=str(authority.path)), None)
        silent = threading.Thread(target=_one_frame, args=(listening, tmp_path, done), daemon=True)
        silent.start()
        assert asyncio.run(_first(admin)) == {"devices": [{}]}
        gc.collect()  # told of as an error, if it were
        done.set()
        silent.join(20)


def _one_frame(listening: socket.socket, folder: Path, done: threading.Event) -> None:
    tls = Certificates(Tls("server.crt", "server.key"), folder, print)
    connection = tls.context.wrap_socket(listening.accept()[0], server_side=True)
    with connection:
        connection.recv(4096)
        line = b'{"devices": [{}]}\n'
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(line), line))
        done.wait(100)


def test_steering_is_done_there_for_who_may(
    lumen: Run, elsewhere: Elsewhere, idp: Provider, quick: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    idp.person["groups"] = ["ops"]
    assert login(lumen, elsewhere).code == 0
    monkeypatch.setenv("LUMEN_URL", elsewhere.url)
    assert lumen("target", "drain", "acme/x").code == 0
    assert lumen("sleep", "m").code == 0
    assert elsewhere.operator.done == [("steer", "acme/x", "drain"), ("sleep", "m")]
    assert {who for _, _, who, _ in elsewhere.operator.noted} == {"oidc:ann (u1)"}


def test_what_is_about_this_machine_is_not_done_for_another(
    lumen: Run, home: Paths, elsewhere: Elsewhere, idp: Provider, quick: list[float]
) -> None:
    assert login(lumen, elsewhere).code == 0
    assert lumen("--url", elsewhere.url, "route", "ls", "--json").json == [{"did": "there"}]
    for command in (
        ["up"], ["down"], ["backup", "x"], ["pull", "x"], ["chat"], ["config", "show"], ["route", "rm", "r"],
        ["route", "set", "r", "--target", "lumen-tiny"], ["route", "ls", "--config", "x"],
    ):  # fmt: skip
        done = lumen("--url", elsewhere.url, *command)
        assert done.code == 2 and "this machine" in done.err, command
    assert not home.config_file.exists()
    done = lumen("--url", elsewhere.url, "restart")
    assert done.code == 1 and "restarted there" in done.err


def test_a_token_that_ends_is_renewed_without_a_word(
    lumen: Run, home: Paths, elsewhere: Elsewhere, idp: Provider, quick: list[float]
) -> None:
    idp.lifetime = 10
    assert login(lumen, elsewhere).code == 0
    before = idp.refreshing.copy()
    idp.lifetime = 300
    # Ten seconds are less than what is left to spare: renewed before the call.
    assert lumen("--url", elsewhere.url, "status").code == 0
    assert idp.refreshing.isdisjoint(before), "the one that was used is worth nothing any more"
    asked = idp.asked["/token"]
    assert lumen("--url", elsewhere.url, "status").code == 0
    assert idp.asked["/token"] == asked, "a fresh one is left alone"
    # One that the gateway refuses before its time: renewed after the call.
    elsewhere.now[0] = 1000.0
    idp.person["exp"] = int(time.time()) + 5000
    assert lumen("--url", elsewhere.url, "status").code == 0
    assert idp.asked["/token"] == asked + 1
    idp.refreshing.clear()
    elsewhere.now[0] = 20_000.0
    done = lumen("--url", elsewhere.url, "status")
    assert done.code == 1 and "lumen login" in done.err


def test_logging_out_forgets_here_and_gives_back_there(
    lumen: Run, home: Paths, elsewhere: Elsewhere, idp: Provider, quick: list[float]
) -> None:
    assert login(lumen, elsewhere).code == 0
    assert lumen("logout").code == 0
    assert idp.refreshing == set() and idp.asked["/revoke"] == 1
    assert 'contexts": {}' in (home.config_dir / "signed-on.json").read_text()
    done = lumen("--url", elsewhere.url, "status")
    assert done.code == 1 and "not signed on" in done.err
    assert lumen("logout").code == 2
    login(lumen, elsewhere)
    idp.broken = True
    done = lumen("logout", "--url", elsewhere.url)
    assert done.code == 0 and "could not be ended there" in done.err


@pytest.mark.parametrize(
    ("answers", "said"),
    [(["access_denied"], "refused"), (["expired_token"], "too long"), (["invalid_grant"], "invalid_grant")],
)
def test_a_sign_on_that_is_not_agreed_to_leaves_nothing(
    lumen: Run, home: Paths, elsewhere: Elsewhere, idp: Provider, quick: list[float], answers: list[str], said: str
) -> None:
    idp.answers = answers
    done = login(lumen, elsewhere)
    assert done.code == 1 and said in done.err
    assert not (home.config_dir / "signed-on.json").exists()


def test_nobody_without_a_role_is_kept(
    lumen: Run, home: Paths, elsewhere: Elsewhere, idp: Provider, quick: list[float]
) -> None:
    idp.person["groups"] = []
    done = login(lumen, elsewhere)
    assert done.code == 1 and "has a role here" in done.err
    assert not (home.config_dir / "signed-on.json").exists()


def test_a_key_with_a_role_signs_on_too(
    lumen: Run, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, home: Paths
) -> None:
    key, secret = mint("dash", role="viewer")
    elsewhere.state.ring = KeyRing([key])
    monkeypatch.setattr("sys.stdin", io.StringIO(secret + "\n"))
    done = login(lumen, elsewhere, "--key")
    assert done.code == 0, done.err
    assert "key:dash (viewer)" in done.out and secret not in done.out + done.err
    assert lumen("--url", elsewhere.url, "status").code == 0


def test_a_program_gives_its_token_in_the_environment(
    lumen: Run, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, home: Paths
) -> None:
    key, secret = mint("ci", role="viewer")
    elsewhere.state.ring = KeyRing([key])
    monkeypatch.setenv("LUMEN_TOKEN", secret)
    monkeypatch.setenv("LUMEN_CA", str(elsewhere.ca))
    monkeypatch.setenv("LUMEN_URL", elsewhere.url)
    assert lumen("status").code == 0
    assert not (home.config_dir / "signed-on.json").exists()


def test_an_authority_that_is_not_known_is_told_and_nothing_is_sent(
    lumen: Run, elsewhere: Elsewhere, home: Paths
) -> None:
    done = lumen("login", "--url", elsewhere.url)
    assert done.code == 1 and "--ca" in done.err
    assert elsewhere.calls == []
    done = lumen("login", "--url", elsewhere.url.replace("https", "http"))
    assert done.code == 2 and "over TLS only" in done.err


def test_an_issuer_that_is_not_the_expected_one_is_not_signed_on_at(
    lumen: Run, elsewhere: Elsewhere, idp: Provider
) -> None:
    done = login(lumen, elsewhere, "--issuer", "https://id.example.com")
    assert done.code == 1 and "another issuer" in done.err
    assert idp.asked["/device"] == 0


def test_a_gateway_gets_no_token_that_is_not_for_it(
    lumen: Run, elsewhere: Elsewhere, idp: Provider, quick: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"issuer": idp.url, "client_id": CLIENT, "scopes": ["openid"], "token": "refresh_token"}

    async def auth(self: Remote, request: BaseRequest) -> StreamResponse:
        return _private(told)

    monkeypatch.setattr(elsewhere.served, "_own", {("GET", "/admin/auth"): partial(auth, elsewhere.served)})
    done = login(lumen, elsewhere)
    assert done.code == 1 and "none of its business" in done.err
    assert idp.asked["/device"] == idp.asked["/token"] == 0


def test_a_file_that_is_damaged_is_told_and_left(lumen: Run, home: Paths) -> None:
    path = home.config_dir / "signed-on.json"
    for text in ("", "[]", '{"version": 2}', '{"version": 1, "contexts": {"a": {"url": 7, "token": "t"}}}',
                 '{"version": 1, "contexts": {"a": {"url": "http://x", "token": "t"}}}'):  # fmt: skip
        path.write_text(text)
        done = lumen("--url", "https://x", "status")
        assert done.code in (1, 2) and done.err, text
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://box.example", "https://box.example"),
        ("box.example:5866", "https://box.example:5866"),
        ("https://box.example:5866/v1/", "https://box.example:5866"),
        ("[::1]:5866", "https://[::1]:5866"),
    ],
)
def test_an_address_is_kept_without_what_follows(text: str, kept: str) -> None:
    assert contexts.address(text) == kept
    assert contexts.address(kept) == kept


@given(st.text(max_size=60))
def test_any_text_is_an_address_over_tls_or_refused(text: str) -> None:
    try:
        found = contexts.address(text)
    except CliError:
        return
    assert found.startswith("https://") and contexts.address(found) == found


@given(st.text(max_size=80))
def test_when_a_token_ends_is_read_or_not_known(text: str) -> None:
    assert signon.ends(text) is None or isinstance(signon.ends(text), float)

"""TLS on a real socket: what is refused, what a client must show, and files that change under it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp.web import BaseRequest, Response, ServerRunner, TCPSite

from lumen.config.schema import Tls
from lumen.core.errors import ConfigError
from lumen.gateway.http import Ingress
from lumen.gateway.tls import Certificates
from tests.gateway.certificates import Authority, Pair

pytestmark = pytest.mark.anyio


# The gateway runs on uvloop, whose TLS is its own; both loops must behave alike.
@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    return "asyncio", {"loop_factory": factory}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@dataclass
class Served:
    port: int
    certificates: Certificates
    said: list[str]

    async def names(self, context: ssl.SSLContext, host: str = "localhost") -> str:
        """Ask, and tell whose certificate was shown."""
        connection = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connection) as session,
            session.get(f"https://{host}:{self.port}/") as answer,
        ):
            assert await answer.text() == "hello"
            assert answer.connection is not None or answer.status == 200
        return await asyncio.to_thread(self.shown, context)

    def shown(self, context: ssl.SSLContext) -> str:
        import socket

        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            found: Any = secured.getpeercert()
            return str(dict(pair[0] for pair in found["subject"])["commonName"])


@pytest.fixture
async def served(tmp_path: Path, authority: Authority, request: Any, anyio_backend: Any) -> AsyncIterator[Served]:
    """A server whose files are `server.crt` and `server.key`; parametrised by a Tls for other ones."""
    authority.issue("server")
    tls = getattr(request, "param", Tls("server.crt", "server.key"))
    said: list[str] = []
    certificates = Certificates(tls, tmp_path, said.append)

    async def hello(request: BaseRequest) -> Response:
        return Response(text="hello")

    runner = ServerRunner(Ingress(hello, header_timeout=30, idle_timeout=30), shutdown_timeout=0.1)
    await runner.setup()
    await TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.context).start()
    yield Served(runner.addresses[0][1], certificates, said)
    await runner.cleanup()


def copy(pair: Pair, name: str) -> None:
    """Put a pair in place of another, as tools that renew do: written beside it and renamed."""
    for path in (pair.cert, pair.key):
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(path.read_bytes())
        new.replace(path.with_name(name + path.suffix))


async def test_a_client_that_knows_the_authority_is_served(served: Served, authority: Authority) -> None:
    assert await served.names(authority.client()) == "server"


async def test_a_client_that_does_not_know_it_goes_away(served: Served) -> None:
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await served.names(ssl.create_default_context())


async def test_nothing_older_than_tls_1_2_is_spoken(served: Served, authority: Authority) -> None:
    context = authority.client()
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(served.shown, context)
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await served.names(context) == "server"


async def test_renewed_files_are_taken_over_while_connections_stay(served: Served, authority: Authority) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=authority.client(), limit=1)) as session:
        url = f"https://localhost:{served.port}/"
        async with session.get(url) as answer:
            assert await answer.text() == "hello"
        copy(authority.issue("renewed"), "server")
        watching = asyncio.ensure_future(served.certificates.watch(0.01))
        async with asyncio.timeout(100):
            while not served.said:
                await asyncio.sleep(0.01)
        watching.cancel()
        assert served.said == ["the certificate was renewed"]
        async with session.get(url) as answer:
            assert await answer.text() == "hello"
    assert await served.names(authority.client()) == "renewed"


async def test_files_that_cannot_be_used_leave_the_old_ones_in_force(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    other = authority.issue("other")
    # The certificate is there already, its key is not yet: what every renewal is for a moment.
    (tmp_path / "server.crt").write_bytes(other.cert.read_bytes())
    assert served.certificates.look() is False
    assert "does not belong" in served.said[0]
    assert await served.names(authority.client()) == "server"
    assert served.certificates.look() is False
    assert len(served.said) == 1, "told once, not at every look"
    (tmp_path / "server.key").write_bytes(other.key.read_bytes())
    assert served.certificates.look() is True
    assert await served.names(authority.client()) == "other"
    (tmp_path / "server.key").unlink()
    assert served.certificates.look() is False
    assert await served.names(authority.client()) == "other"


MUTUAL = Tls("server.crt", "server.key", "ca.pem")


@pytest.mark.parametrize("served", [MUTUAL], indirect=True)
async def test_a_client_must_show_a_certificate_of_the_authority(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    ann = authority.issue("ann", client=True)
    assert await served.names(authority.client(ann)) == "server"
    with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
        await served.names(authority.client())
    stranger = Authority(tmp_path, "elsewhere").issue("eve", client=True)
    with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
        await served.names(authority.client(stranger))
    # A certificate that is for servers is none of a client.
    with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
        await served.names(authority.client(authority.issue("mallory")))


@pytest.mark.parametrize("served", [MUTUAL], indirect=True)
async def test_an_authority_that_was_taken_out_vouches_for_nobody(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    ann = authority.client(authority.issue("ann", client=True))
    assert await served.names(ann) == "server"
    elsewhere = Authority(tmp_path, "elsewhere")
    bob = authority.client(elsewhere.issue("bob", client=True))
    (tmp_path / "ca.pem").write_bytes(elsewhere.path.read_bytes())
    assert served.certificates.look() is True
    # The same context again: a session that could be resumed would let her in.
    with pytest.raises((aiohttp.ClientError, ConnectionError, ssl.SSLError)):
        await served.names(ann)
    assert await served.names(bob) == "server"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder, _: (folder / "server.key").unlink(), "cannot be read (No such file or directory)"),
        (lambda folder, _: (folder / "server.crt").write_text("hello"), "not a file of PEM blocks"),
        (lambda folder, ca: copy(ca.issue("locked", password=b"secret"), "server"), "locked by a password"),
        (lambda folder, _: (folder / "ca.pem").write_text("hello"), "server.tls.client_ca"),
    ],
)
def test_files_that_cannot_be_used_are_told_when_it_starts(
    tmp_path: Path, authority: Authority, change: Any, said: str
) -> None:
    authority.issue("server")
    change(tmp_path, authority)
    with pytest.raises(ConfigError) as wrong:
        Certificates(MUTUAL, tmp_path, print)
    assert said in wrong.value.message and str(tmp_path) not in wrong.value.message

"""The gateway's side and the process it starts, against an authority that checks everything for real."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.web import BaseRequest, Response, ServerRunner, TCPSite

from lumen.acme.folder import folder
from lumen.config.schema import Acme as Wanted
from lumen.config.schema import Server, Tls
from lumen.core.errors import ConfigError
from lumen.files import locked
from lumen.gateway.acme import Acme, answering
from lumen.gateway.http import Ingress
from lumen.gateway.tls import Certificates
from tests.acme.authority import AcmeAuthority
from tests.gateway.certificates import Authority

pytestmark = pytest.mark.anyio
DOMAINS = ("box.example.com", "www.box.example.com")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@dataclass
class Bench:
    """An authority, and what a gateway keeps of its certificates; `clock` may be moved on."""

    authority: AcmeAuthority
    folder: Path
    http_port: int
    ahead: float = 0.0
    said: list[str] = field(default_factory=list)

    def acme(self, **changes: Any) -> Acme:
        given = {"email": "you@example.com", "directory": self.authority.directory, **changes}
        wanted = Wanted(DOMAINS, directory_ca=str(self.authority.ca), http_port=self.http_port, **given)
        server = Server(tls=Tls(acme=wanted))
        return Acme(server, self.folder, self.folder, self.said.append, clock=self.clock, draw=lambda: 0.5)

    def clock(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
async def bench(tmp_path: Path, anyio_backend: Any) -> AsyncIterator[Bench]:
    (tmp_path / "ca").mkdir()
    authority = AcmeAuthority(tmp_path / "ca", free_port())
    await authority.start()
    yield Bench(authority, tmp_path, authority.http_port)
    authority.hang.clear()
    await authority.stop()


async def kept(acme: Acme, until: Callable[[], Any], look: Callable[[], bool] = lambda: True) -> None:
    """Have it at work until something is true."""
    task = asyncio.ensure_future(acme.keep(look))
    try:
        async with asyncio.timeout(100):
            while not until():
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_certificate_is_ordered_and_kept_for_this_user_alone(bench: Bench) -> None:
    acme = bench.acme()
    await acme.open()
    assert acme.status()["state"] == "none" and acme.status()["certified"] is False
    stopgap = acme.certificate.read_bytes()
    await kept(acme, lambda: acme.status()["certified"])
    assert stopgap != acme.certificate.read_bytes()
    for path in (acme.certificate, acme.certificate.parent / "account.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (acme.certificate.parent / "tries.json").exists()
    assert [order.names for order in bench.authority.orders] == [list(DOMAINS)]
    assert [one["body"]["contact"] for one in bench.authority.accounts.values()] == [["mailto:you@example.com"]]
    status = acme.status()
    assert status["state"] == "held" and status["failed"] == 0 and status["next"] > time.time()
    context = ssl.create_default_context(cafile=str(bench.authority.root))
    context.load_cert_chain(acme.certificate)
    assert "PRIVATE" not in json.dumps([bench.said, status])
    # The next gateway finds it, and orders nothing.
    after = bench.acme()
    await after.open()
    assert after.status()["certified"] and len(bench.authority.orders) == 1


async def test_nonces_that_are_refused_and_an_order_that_takes_its_time_are_waited_for(bench: Bench) -> None:
    bench.authority.bad_nonces, bench.authority.polls = 4, 3
    acme = bench.acme()
    await acme.open()
    await kept(acme, lambda: acme.status()["certified"])
    assert bench.authority.orders[0].polls == 3


async def test_the_same_account_orders_again_and_tells_of_another_address(bench: Bench) -> None:
    for email in ("you@example.com", "us@example.com"):
        acme = bench.acme(email=email)
        await acme.open()
        acme.certificate.unlink()
        await acme.open()
        await kept(acme, lambda: acme.status()["certified"])  # noqa: B023
    assert len(bench.authority.orders) == 2
    assert [one["body"]["contact"] for one in bench.authority.accounts.values()] == [["mailto:us@example.com"]]


async def test_a_challenge_without_a_good_answer_is_told_and_tried_again_later(bench: Bench) -> None:
    acme = bench.acme()
    bench.authority.http_port = free_port()
    await acme.open()
    await kept(acme, lambda: acme.status()["state"] == "failing")
    status = acme.status()
    assert status["failed"] == 1 and "no good answer on port 80" in status["why"] and DOMAINS[0] in status["why"]
    assert bench.clock() + 50 < status["next"] < bench.clock() + 61
    assert any("no good answer" in line and "again at" in line for line in bench.said)
    # Another gateway waits, too, unless it is to do something else.
    again, other = bench.acme(), bench.acme(directory=bench.authority.directory + "?other")
    await again.open()
    await other.open()
    assert (again.status()["failed"], other.status()["failed"]) == (1, 0)
    bench.authority.http_port, bench.ahead = bench.http_port, 100
    await kept(again, lambda: again.status()["certified"])
    assert again.status()["failed"] == 0


async def test_an_authority_that_is_limited_is_left_alone_for_as_long_as_it_says(bench: Bench) -> None:
    bench.authority.limited = 7000.0
    acme = bench.acme()
    await acme.open()
    await kept(acme, lambda: acme.status()["state"] == "failing" and "rateLimited" in acme.status()["why"])
    assert bench.clock() + 6990 < acme.status()["next"] < bench.clock() + 7121


async def test_an_authority_that_is_down_is_waited_for_and_a_port_that_is_taken_is_told(bench: Bench) -> None:
    port = bench.authority.port
    await bench.authority.stop()
    acme = bench.acme()
    await acme.open()
    await kept(acme, lambda: acme.status()["state"] == "failing" and "reached" in acme.status()["why"])
    await bench.authority.start(port)
    with socket.create_server(("127.0.0.1", bench.http_port)):
        bench.ahead += 600
        await kept(acme, lambda: acme.status()["state"] == "failing" and acme.status()["failed"] == 2)
    assert "cannot listen on 127.0.0.1" in acme.status()["why"]
    bench.ahead += 4000
    await kept(acme, lambda: acme.status()["certified"])


async def test_an_address_that_the_usual_authorities_do_not_vouch_for_is_not_spoken_to(bench: Bench) -> None:
    server = Server(tls=Tls(acme=Wanted(DOMAINS, directory=bench.authority.directory)))
    acme = Acme(server, bench.folder, bench.folder, bench.said.append)
    await acme.open()
    await kept(acme, lambda: acme.status()["state"] == "failing")
    assert "CERTIFICATE_VERIFY_FAILED" in acme.status()["why"] and not bench.authority.orders


async def test_it_is_renewed_while_what_is_open_goes_on(bench: Bench) -> None:
    acme = bench.acme()
    await acme.open()
    tls = Tls(cert=str(acme.certificate), key=str(acme.certificate))
    certificates = Certificates(tls, bench.folder, bench.said.append)

    async def hello(request: BaseRequest) -> Response:
        return Response(text="hello")

    runner = ServerRunner(Ingress(hello, header_timeout=20, idle_timeout=20), shutdown_timeout=0.1)
    await runner.setup()
    await TCPSite(runner, "127.0.0.1", 0, ssl_context=certificates.context).start()
    port = runner.addresses[0][1]

    async def shown() -> int:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=bench.authority.trusting(), server_hostname=DOMAINS[0]
        )
        found: int = int(writer.get_extra_info("peercert")["serialNumber"], 16)
        writer.close()
        await writer.wait_closed()
        return found

    with pytest.raises(ssl.SSLCertVerificationError):
        await shown()
    renewed = "the certificate was renewed"
    await kept(acme, lambda: bench.said.count(renewed) == 1, certificates.look)
    first = await shown()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=bench.authority.trusting(), server_hostname=DOMAINS[0]
    )

    async def ask() -> bool:
        """Once more on the connection that is open."""
        writer.write(b"GET / HTTP/1.1\r\nHost: box.example.com\r\n\r\n")
        return (await asyncio.wait_for(reader.readuntil(b"hello"), 100)).startswith(b"HTTP/1.1 200")

    assert await ask()
    # Two thirds of its day, and the time over which renewals are spread.
    bench.ahead = 86_400 * 0.65
    assert acme.status()["next"] > bench.clock()
    bench.ahead = 86_400 * 0.72
    await kept(acme, lambda: bench.said.count(renewed) == 2, certificates.look)
    assert await ask()
    writer.close()
    assert await shown() != first
    assert len(bench.authority.orders) == 2
    await runner.cleanup()


async def test_a_certificate_that_comes_old_is_not_ordered_again_and_again(bench: Bench) -> None:
    bench.ahead = 86_400 * 0.9
    acme = bench.acme()
    await acme.open()
    await kept(acme, lambda: acme.status()["certified"])
    assert acme.status()["next"] > bench.clock() + 3500 and len(bench.authority.orders) == 1


async def test_two_gateways_order_once(bench: Bench) -> None:
    first, second = bench.acme(), bench.acme()
    await first.open()
    await second.open()
    bench.authority.hang.set()
    one = asyncio.ensure_future(first.keep(lambda: True))
    async with asyncio.timeout(100):
        while not bench.authority.orders:
            await asyncio.sleep(0.01)
        # The other one comes in the middle of it and finds the lock.
        assert await second._try() is False
        assert second.status()["failed"] == 0
        for order in bench.authority.orders:
            for name in order.names:
                await bench.authority._validate(order, name)
        while not first.status()["certified"]:
            await asyncio.sleep(0.01)
    one.cancel()
    await asyncio.wait([one])
    # Its own order would now be for nothing, and it notices by the file.
    assert await second._try() is True
    assert second.status()["certified"] and len(bench.authority.orders) == 1


async def test_an_order_that_is_broken_off_leaves_nothing_behind(bench: Bench) -> None:
    acme = bench.acme()
    await acme.open()
    bench.authority.hang.set()
    await kept(acme, lambda: bench.authority.orders)
    # Cancelled, as a gateway that hands over does: the next one need not wait, and has the lock and the port.
    with locked(acme.certificate, wait=0.0), socket.create_server(("127.0.0.1", bench.http_port)):
        pass
    bench.authority.hang.clear()
    after = bench.acme()
    await after.open()
    assert after.status()["failed"] == 0
    await kept(after, lambda: after.status()["certified"])
    assert len(bench.authority.orders) == 2


async def test_its_process_ends_with_the_gateway_in_the_middle_of_an_order(bench: Bench) -> None:
    acme = bench.acme()
    await acme.open()
    bench.authority.hang.set()
    job = {
        "do": "order", "folder": str(acme.certificate.parent), "domains": DOMAINS, "email": None,
        "directory": bench.authority.directory, "authority": str(bench.authority.ca),
        "digest": acme._standing.digest if acme._standing else None,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lumen.acme", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    async with asyncio.timeout(100):
        assert "show" in json.loads(await process.stdout.readline())
        process.stdin.close()
        assert await process.wait() == 3
    with locked(acme.certificate, wait=0.0):
        assert not acme.certificate.with_name("certificate.pem.new").exists()


async def test_a_file_that_is_none_is_replaced_and_a_folder_that_cannot_be_written_is_told(bench: Bench) -> None:
    acme = bench.acme()
    acme.certificate.parent.mkdir(parents=True)
    acme.certificate.write_text("hello")
    await acme.open()
    assert b"BEGIN CERTIFICATE" in acme.certificate.read_bytes()
    other = bench.acme(directory="https://other.example/directory")
    folder(bench.folder, "https://other.example/directory").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        await other.open()


async def test_the_port_of_challenges_serves_nothing_else() -> None:
    async with answering({"abc": "abc.def"}, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        asked = {
            "/.well-known/acme-challenge/abc": 200, "/.well-known/acme-challenge/": 404, "/": 404, "/abc": 404,
            "/.well-known/acme-challenge/abd": 404, "/.well-known/acme-challenge/../acme-challenge/abc": 200,
        }  # fmt: skip
        for path, status in asked.items():
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert (answer.status, await answer.text() == "abc.def") == (status, status == 200), path
        async with session.post(f"http://127.0.0.1:{port}/.well-known/acme-challenge/abc") as answer:
            assert answer.status == 404


async def test_what_comes_for_another_key_is_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Authority(bench.folder / "ca", "stranger").issue("stranger")
    monkeypatch.setattr(bench.authority, "_issue", lambda csr: pair.cert.read_bytes())
    acme = bench.acme()
    await acme.open()
    before = acme.certificate.read_bytes()
    await kept(acme, lambda: acme.status()["state"] == "failing" and "another key" in acme.status()["why"])
    assert acme.certificate.read_bytes() == before


async def test_its_process_is_told_no_secrets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2")
    given: list[dict[str, str]] = []
    start = asyncio.create_subprocess_exec

    async def spied(*args: Any, env: dict[str, str], **options: Any) -> Any:
        given.append(env)
        return await start(*args, env=env, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spied)
    await bench.acme().open()
    assert given and all("hunter2" not in env.values() and env["PATH"] == os.environ["PATH"] for env in given)


def test_without_the_extra_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen.gateway.acme.find_spec", lambda name: None)
    server = replace(Server(), tls=Tls(acme=Wanted(DOMAINS)))
    with pytest.raises(ConfigError, match=r"lumen-serve\[acme\]"):
        Acme(server, tmp_path, tmp_path, print)

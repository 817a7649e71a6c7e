"""Against Pebble, the authority that Let's Encrypt gives to those who write clients (Debian: the package `pebble`)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from lumen.config.schema import Acme as Wanted
from lumen.config.schema import Server, Tls
from lumen.gateway.acme import Acme
from tests.gateway.certificates import Authority

PROGRAMS = ("pebble", "pebble-challtestsrv")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="pebble is not installed"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[Wanted]:
    """Pebble, strict, refusing a third of the nonces, with a name server of its own; what to order from it."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        api, manage, http, tls, names, steer = (one.getsockname()[1] for one in found)
    pair = (authority := Authority(tmp_path, "https")).issue("directory")
    config = {
        "listenAddress": f"127.0.0.1:{api}", "managementListenAddress": f"127.0.0.1:{manage}", "httpPort": http,
        "tlsPort": tls, "certificate": str(pair.cert), "privateKey": str(pair.key),
    }  # fmt: skip
    (tmp_path / "pebble.json").write_text(json.dumps({"pebble": config}))
    resolver = [
        PROGRAMS[1], "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
        "-dns01", f"127.0.0.1:{names}", "-management", f"127.0.0.1:{steer}",
    ]  # fmt: skip
    server = [PROGRAMS[0], "-strict", "-config", str(tmp_path / "pebble.json"), "-dnsserver", f"127.0.0.1:{names}"]
    env = {**os.environ, "PEBBLE_WFE_NONCEREJECT": "33", "PEBBLE_VA_NOSLEEP": "1"}
    processes = [subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                 for argv in (resolver, server)]  # fmt: skip
    try:
        yield Wanted(
            ("box.example.com", "www.box.example.com"), email="you@box.example.com", http_port=http,
            directory=f"https://localhost:{api}/dir", directory_ca=str(authority.path),
        )  # fmt: skip
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_a_certificate_is_ordered_and_ordered_again(pebble: Wanted, tmp_path: Path) -> None:
    # Until it listens, every try fails; this clock does not wait.
    clock = count(0.0, 3600.0)
    server = Server(tls=Tls(acme=pebble))
    for _ in range(2):
        acme = Acme(server, tmp_path, tmp_path / "data", print, clock=lambda: next(clock), draw=lambda: 0.1)
        acme.certificate.unlink(missing_ok=True)
        await acme.open()
        task = asyncio.ensure_future(acme.keep(lambda: True))
        async with asyncio.timeout(90):
            while not acme.status()["certified"]:
                await asyncio.sleep(0.2)
                assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert acme.status()["why"] is None

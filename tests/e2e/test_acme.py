"""A real box that gets its certificate itself: from nothing, over a restart, and killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import psutil
import pytest

from tests.acme.authority import AcmeAuthority
from tests.e2e.conftest import Box, until
from tests.e2e.emulated import emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-acme")]
NAME = "box.example.com"
CONFIG = """
providers:
  emu: {base_url: http://127.0.0.1:PORT/v1, dialect: openai}
routes:
  plain: {targets: [emu/words-5]}
"""


@pytest.fixture
def authority(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[AcmeAuthority]:
    """Parametrised by whether it leaves challenges unanswered."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    (tmp_path / "ca").mkdir()
    made = AcmeAuthority(tmp_path / "ca", port)
    if getattr(request, "param", False):
        made.hang.set()
    with made.running():
        yield made


@pytest.fixture
def edge(tmp_path: Path, authority: AcmeAuthority) -> Iterator[Box]:
    """A box that is up; its authority may still be at it."""
    acme = {
        "domains": [NAME], "directory": authority.directory, "directory_ca": str(authority.ca),
        "http_port": authority.http_port,
    }  # fmt: skip
    with emulated(tmp_path / "box", CONFIG + f"server:\n  tls: {json.dumps({'acme': acme})}\n") as made:
        yield made.box


def held(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = box.status()["tls"]["acme"]
    return found


def shown(box: Box, context: ssl.SSLContext) -> int:
    """The number of the certificate that a client which trusts by `context` is shown."""
    with (
        socket.create_connection(("127.0.0.1", urlsplit(box.url).port or 0), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as secured,
    ):
        found: Any = secured.getpeercert()
        return int(found["serialNumber"], 16)


def files(box: Box) -> Path:
    (found,) = (box.home / "data" / "acme").iterdir()
    return found


def test_a_box_gets_its_certificate_and_a_successor_keeps_it(edge: Box, authority: AcmeAuthority) -> None:
    until(lambda: held(edge)["certified"], "the certificate")
    number = until(lambda: _quietly(lambda: shown(edge, authority.trusting())), "the certificate to be shown")
    assert edge.lumen("chat", "plain", "--once", "hello").stdout.strip()
    with openai.DefaultHttpxClient(verify=authority.trusting()) as http:
        # By its name, which is served without being named a second time.
        answer = http.get(
            f"{edge.url}/models",
            headers={"Host": NAME, "Authorization": f"Bearer {edge.key}"},
            extensions={"sni_hostname": NAME},
        )
        assert answer.status_code == 200
    findings = json.loads(edge.lumen("doctor", "--json", check=False).stdout)["findings"]
    (found,) = (one for one in findings if one["check"] == "certificate")
    assert found["level"] == "ok" and NAME in found["what"]
    before = edge.status()["pid"]
    edge.lumen("restart")
    assert edge.status()["pid"] != before and held(edge)["certified"]
    assert shown(edge, authority.trusting()) == number and len(authority.orders) == 1
    log = (edge.home / "state" / "logs" / "gateway.log").read_text()
    assert "there is no certificate" in log and "is there, good until" in log and "PRIVATE" not in log


@pytest.mark.parametrize("authority", [True], indirect=True, ids=["slow"])
def test_a_box_that_is_killed_while_it_orders_serves_and_orders_anew(edge: Box, authority: AcmeAuthority) -> None:
    until(lambda: authority.orders, "an order")
    gateway = edge.status()["pid"]
    orderer = until(lambda: [one for one in edge.ours() if "lumen.acme" in one.cmdline()], "its process")
    os.kill(gateway, signal.SIGKILL)
    psutil.wait_procs(orderer, timeout=30)
    assert not any(one.is_running() for one in orderer)
    authority.hang.clear()
    # The wait is drawn; here it is not to be over before it was looked at.
    note = files(edge) / "tries.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "after": time.time() + 3600}))
    edge.up()
    status = held(edge)
    assert (status["state"], status["failed"], status["certified"]) == ("failing", 1, False)
    assert "ended meanwhile" in status["why"] and len(authority.orders) == 1
    done = edge.lumen("status").stdout
    assert "there is no certificate" in done and NAME in done and "ended meanwhile" in done
    # Whoever will not wait takes the note away.
    note.unlink()
    edge.lumen("restart")
    until(lambda: held(edge)["certified"], "the certificate")
    until(lambda: _quietly(lambda: shown(edge, authority.trusting())), "the certificate to be shown")


def _quietly(shown: Any) -> Any:
    """What it gives, or nothing while the certificate is another one."""
    try:
        return shown()
    except ssl.SSLCertVerificationError:
        return None

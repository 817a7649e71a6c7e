"""Names that the endpoint is addressed by, and pages that may not reach it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.errors import RequestError
from lumen.gateway.hosts import Hosts, name_of
from tests.gateway.conftest import Up

HOSTS = Hosts(["Box.example", "*.lan.example.", "gpu"])
GOOD = [
    None, "localhost", "LocalHost:5866", "127.0.0.1:5866", "[::1]:5866", "[::1]", "192.0.2.7", "localhost.:80",
    "app.localhost", "box.example", "BOX.example:443", "a.lan.example", "a.b.lan.example", "gpu:1",
]  # fmt: skip
BAD = [
    "", "evil.example", "box.example.evil.example", "xbox.example", "lan.example", "localhost.evil.example", "a b",
    "127.0.0.1.evil.example", "[::1", "[::1]x", "[evil]", "[127.0.0.1]", "localhost:x", "localhost:80:80",
    "box.example/x", "user@box.example", "localhost\x00", "ｌocalhost", "localhost:８０", "::1", "[fe80::1%25eth0]",
    ".", "a" * 300, "2130706433.evil",
]  # fmt: skip


@pytest.mark.parametrize("host", GOOD)
def test_this_machines_names_addresses_and_the_given_ones_are_served(host: str | None) -> None:
    hosts = Hosts(["Box.example", "*.lan.example.", "gpu"])
    hosts.check(host)
    assert host in hosts.known


@pytest.mark.parametrize("host", BAD)
def test_every_other_name_is_refused(host: str) -> None:
    with pytest.raises(RequestError) as refused:
        HOSTS.check(host)
    assert refused.value.status == 421 and "server.hosts" in refused.value.message
    assert host not in HOSTS.known


def test_any_name_is_served_where_that_was_asked_for() -> None:
    Hosts(["*"]).check("evil.example")


@given(st.text(max_size=40))
def test_no_text_passes_that_is_not_a_name_of_ours(text: str) -> None:
    hosts = Hosts(["box.example"])
    name = name_of(text)
    try:
        hosts.check(text)
    except RequestError:
        return
    assert name is not None and name.isascii()
    assert name in ("localhost", "box.example") or name.endswith(".localhost") or name.strip("0123456789abcdef.:") == ""


def test_what_is_remembered_has_a_bound() -> None:
    hosts = Hosts()
    for number in range(2000):
        hosts.check(f"127.0.0.1:{number}")
    assert len(hosts.known) <= 257


@pytest.mark.parametrize(
    ("origin", "good"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:1", True),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
        ("http://[x", False),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str, good: bool) -> None:
    if good:
        Hosts().check_origin(origin)
    else:
        with pytest.raises(RequestError, match="other origins"):
            Hosts().check_origin(origin)


@pytest.mark.anyio
async def test_a_name_that_points_here_is_not_enough(up: Up) -> None:
    bearer = {"Authorization": f"Bearer {up.secret}"}
    body = {"model": "warm", "messages": [{"role": "user", "content": "x"}]}
    status, said, _ = await up.post("/v1/chat/completions", body, headers={**bearer, "Host": "evil.example"})
    assert (status, said["error"]["code"]) == (421, "unknown_host")
    async with up.session.get(f"{up.url}/health", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 421
    status, _, _ = await up.post("/v1/chat/completions", body, headers={**bearer, "Host": f"localhost:{up.port}"})
    assert status == 200
    up.state.hosts = Hosts(["evil.example"])
    status, _, _ = await up.post("/v1/chat/completions", body, headers={**bearer, "Host": "evil.example"})
    assert status == 200


@pytest.mark.anyio
async def test_a_page_elsewhere_cannot_use_an_endpoint_without_keys(up: Up) -> None:
    up.state.ring = None
    body = {"model": "warm", "messages": [{"role": "user", "content": "x"}]}
    status, said, _ = await up.post("/v1/chat/completions", body, headers={"Origin": "https://evil.example"})
    assert (status, said["error"]["code"]) == (403, "foreign_origin")
    status, _, _ = await up.post("/v1/chat/completions", body, headers={"Origin": "http://localhost:3000"})
    assert status == 200


@pytest.mark.anyio
async def test_no_page_is_told_that_it_may_read_answers(up: Up) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with up.session.options(f"{up.url}/v1/chat/completions", headers=asked) as answer:
        assert answer.status == 405
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    bearer = {"Authorization": f"Bearer {up.secret}", "Origin": "https://evil.example"}
    body = {"model": "warm", "messages": [{"role": "user", "content": "x"}]}
    _, _, headers = await up.post("/v1/chat/completions", body, headers=bearer)
    assert not [name for name in headers if name.lower().startswith("access-control")]

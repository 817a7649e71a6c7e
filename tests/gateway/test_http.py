"""What comes before the pipeline: framing, deadlines, methods, keys; every answer is the API's own JSON."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp.web import BaseRequest, Response, ServerRunner, StreamResponse, TCPSite

from lumen.config.schema import Server
from lumen.gateway import app
from lumen.gateway.http import Connection, Ingress
from lumen.keys import KeyRing
from tests.gateway.conftest import Up

pytestmark = pytest.mark.anyio
# Of headers and bodies, for those that let them run out.
SOON = pytest.mark.parametrize("server_config", [Server(header_timeout=2.0, body_timeout=2.0)])
HI: dict[str, Any] = {"model": "fake/words-1", "messages": [{"role": "user", "content": "hi"}]}


async def raw(up: Up, data: bytes, *, seconds: float = 100) -> bytes:
    """Send bytes as they are; everything that comes back until the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
    writer.write(data)
    try:
        async with asyncio.timeout(seconds):
            return await reader.read(-1)
    finally:
        writer.close()


def error_of(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split(b" ")[1]), error


@SOON
async def test_a_header_that_stalls_is_408(up: Up) -> None:
    status, error = error_of(await raw(up, b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConte"))
    assert (status, error["code"]) == (408, "request_timeout")


async def test_a_header_that_begins_at_once_and_stalls_is_408(anyio_backend: str) -> None:
    """Under load its first bytes are there before the task that waits for them is."""

    async def never(request: BaseRequest) -> StreamResponse:
        raise AssertionError("there is no whole request")

    transport, said = Mock(spec=asyncio.Transport), asyncio.Event()
    transport.get_extra_info.return_value = None
    transport.write.side_effect = lambda data: said.set()
    one = Ingress(never, header_timeout=0.05, idle_timeout=60)()
    one.connection_made(transport)
    one.data_received(b"GET /hea")
    async with asyncio.timeout(100):
        await said.wait()
    assert transport.write.call_args.args[0].startswith(b"HTTP/1.1 408 ")
    one.connection_lost(None)


async def test_a_connection_on_which_nothing_ever_comes_is_let_go(up: Up) -> None:
    ingress = Ingress(app.handler(up.state), header_timeout=60, idle_timeout=0.1)
    server = await asyncio.get_running_loop().create_server(ingress, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    async with asyncio.timeout(100):
        assert await reader.read(-1) == b""
    writer.close()
    server.close()


@SOON
async def test_a_second_request_whose_header_stalls_is_408(up: Up) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"}")
    writer.write(b"GET /hea")
    async with asyncio.timeout(100):
        assert b"HTTP/1.1 408" in await reader.read(-1)
    writer.close()


@SOON
async def test_a_body_that_stalls_is_408(up: Up) -> None:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {up.secret}\r\n"
    answer = await raw(up, head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    assert error_of(answer)[0] == 408


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: [::]\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: [::]\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: [::]\r\nContent-Length: 4\r\nContent-Length: 30\r\n\r\n"
        b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: [::]\r\nContent-Length: -4\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::]\r\nBad Header: 1\r\n\r\nGET /health HTTP/1.1\r\nHost: [::]\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["nonsense", "version", "te-and-cl", "two-lengths", "negative-length", "bad-header", "long-line"],
)
async def test_broken_framing_is_answered_once_and_closed(up: Up, data: bytes) -> None:
    answer = await raw(up, data)
    assert answer.count(b"HTTP/1.") == 1
    assert error_of(answer)[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/models/x", 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/models/", 404, "not_found"),
    ],
)
async def test_paths_and_methods(up: Up, method: str, path: str, status: int, code: str) -> None:
    async with up.session.request(method, up.url + path) as answer:
        body = await answer.json()
        assert (answer.status, body["error"]["code"]) == (status, code)
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic abc"},
        {"x-api-key": "wrong"},
        {"Authorization": "Bearer " + "x" * 5000},
    ],
    ids=["none", "wrong", "no-scheme", "empty", "basic", "x-api-key", "long"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_bad_keys_are_401(up: Up, headers: dict[str, str], path: str) -> None:
    status, body, _ = await up.post(path, HI, headers=headers)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_a_wrong_key_is_told_in_the_words_that_clients_look_for(up: Up) -> None:
    """LiteLLM knows a 401 of this dialect by them alone, and takes any other for a bad request."""
    status, body, _ = await up.post("/v1/chat/completions", HI, headers={"Authorization": "Bearer wrong"})
    assert status == 401 and body["error"]["message"].startswith("Incorrect API key provided: ")
    assert body["error"]["type"] == "invalid_request_error"
    status, body, _ = await up.post("/v1/chat/completions", HI, headers={})
    assert status == 401 and body["error"]["message"].startswith("You didn't provide an API key. ")


async def test_a_revoked_key_is_401(up: Up) -> None:
    assert (await up.post("/v1/chat/completions", HI))[0] == 200
    up.state.ring = KeyRing([])
    assert (await up.post("/v1/chat/completions", HI))[0] == 401


async def test_other_sdks_send_x_api_key(up: Up) -> None:
    assert (await up.post("/v1/chat/completions", HI, headers={"x-api-key": up.secret}))[0] == 200


async def test_a_large_body_is_read_at_the_readers_pace_and_the_next_request_works(anyio_backend: str) -> None:
    """What is read lets the socket be read on only where it was paused, which a small body never makes it."""
    body = bytes(range(256)) * 16 * 1024
    paused, resumed = asyncio.Event(), Mock()

    async def slow(request: BaseRequest) -> StreamResponse:
        read, size = sha256(), 0
        if request.content_length == len(body):
            await paused.wait()
        while data := await request.content.readany():
            read.update(data)
            size += len(data)
        return Response(text=f"{size} {read.hexdigest()}")

    class Watched(Connection):
        def pause_reading(self) -> None:
            paused.set()
            super().pause_reading()

        def _resume_transport_reading(self) -> None:
            resumed()
            super()._resume_transport_reading()

    class Watching(Ingress):
        def __call__(self) -> Connection:
            return Watched(self, loop=self._loop, **self._options)

    runner = ServerRunner(Watching(slow, header_timeout=30, idle_timeout=30), shutdown_timeout=0.1)
    await runner.setup()
    await TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session, asyncio.timeout(100):
        for sent in (b"small", body, b"small again"):
            async with session.post("/", data=io.BytesIO(sent)) as answer:
                assert await answer.text() == f"{len(sent)} {sha256(sent).hexdigest()}"
            if sent == b"small":
                assert not resumed.called
    await runner.cleanup()
    assert resumed.called


async def test_too_large_is_413_declared_or_not(up: Up) -> None:
    auth = {"Authorization": f"Bearer {up.secret}", "Content-Type": "application/json"}
    body = json.dumps({**HI, "user": "x" * 100_000}).encode()

    async def pieces() -> Any:
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    for data in (body, pieces()):
        async with up.session.post(f"{up.url}/v1/chat/completions", data=data, headers=auth) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip", "Content-Type": "application/json"}]
)
async def test_other_types_and_codings_are_415(up: Up, headers: dict[str, str]) -> None:
    sent = {"Authorization": f"Bearer {up.secret}", **headers}
    async with up.session.post(f"{up.url}/v1/chat/completions", data=b"{}", headers=sent) as answer:
        assert answer.status == 415
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_the_next_good_request_works_after_every_bad_one(up: Up) -> None:
    auth = {"Authorization": f"Bearer {up.secret}", "Content-Type": "application/json"}
    for bad in (b"", b"{", b"[" * 30_000, b'{"model": 1}', b"\xff", b'{"n": ' + b"1" * 5000 + b"}"):
        async with up.session.post(f"{up.url}/v1/chat/completions", data=bad, headers=auth) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "invalid_request_error"
        assert (await up.post("/v1/chat/completions", HI))[0] == 200


async def test_models(up: Up) -> None:
    auth = {"Authorization": f"Bearer {up.secret}"}
    async with up.session.get(f"{up.url}/v1/models", headers=auth) as answer:
        names = {m["id"] for m in (await answer.json())["data"]}
    assert {"failover", "lumen/auto"} <= names
    for name, status in (("failover", 200), ("lumen/auto", 200), ("fake/any-model", 200), ("nope", 404)):
        async with up.session.get(f"{up.url}/v1/models/{name}", headers=auth) as answer:
            assert answer.status == status
    async with up.session.get(f"{up.url}/v1/models") as answer:
        assert answer.status == 401


async def test_models_as_clients_of_the_messages_api_know_them(up: Up) -> None:
    """Its SDKs show `display_name` and read on while `has_more`; those of strict languages fail without them."""
    auth = {"x-api-key": up.secret, "anthropic-version": "2023-06-01"}
    async with up.session.get(f"{up.url}/v1/models", headers=auth) as answer:
        listed = await answer.json()
    names = [m["id"] for m in listed["data"]]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, names[0], names[-1])
    async with up.session.get(f"{up.url}/v1/models/failover", headers=auth) as answer:
        model = await answer.json()
    assert model in listed["data"]
    assert (model["type"], model["display_name"]) == ("model", "failover")
    assert datetime.fromisoformat(model["created_at"]) == datetime.fromtimestamp(model["created"], UTC)


async def test_models_of_providers_are_listed_as_far_as_the_key_may_use_them(up: Up) -> None:
    up.state.table.offer(["fake/b", "fake/a", "failover"])
    ring = up.state.ring
    assert ring is not None

    async def listed(**scope: Any) -> list[tuple[str, str]]:
        up.state.ring = KeyRing([replace(ring.keys[0], **scope)])
        auth = {"Authorization": f"Bearer {up.secret}"}
        async with up.session.get(f"{up.url}/v1/models", headers=auth) as answer:
            return [(m["id"], m["owned_by"]) for m in (await answer.json())["data"]]

    every = await listed()
    assert every[-2:] == [("fake/b", "fake"), ("fake/a", "fake")]
    assert len({name for name, _ in every}) == len(every) and ("failover", "lumen") in every
    assert await listed(models=("fake/a*",)) == [("fake/a", "fake")]
    assert await listed(routes=("fail*",)) == [("failover", "lumen")]
    assert await listed(routes=("once",), models=("fake/*",)) == [
        ("once", "lumen"), ("fake/b", "fake"), ("fake/a", "fake"),
    ]  # fmt: skip
    assert await listed(models=("elsewhere/*",)) == []


async def test_health_and_ready_need_no_key(up: Up) -> None:
    for path in ("/health", "/ready"):
        async with up.session.get(up.url + path) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(("access", "with_key", "without"), [("key", 200, 401), ("open", 200, 200), ("off", 404, 404)])
async def test_who_may_read_the_metrics(up: Up, access: Any, with_key: int, without: int) -> None:
    up.state.config = replace(up.state.config, server=replace(up.state.config.server, metrics=access))
    for headers, status in (({"Authorization": f"Bearer {up.secret}"}, with_key), ({}, without)):
        async with up.session.get(f"{up.url}/metrics", headers=headers) as answer:
            assert answer.status == status
            if status == 200:
                assert b"process_resident_memory_bytes" in await answer.read()

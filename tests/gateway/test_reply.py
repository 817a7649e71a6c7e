"""The stream to a client, before readers that are slow, gone, or of an older HTTP."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp.web import BaseRequest, Server, ServerRunner, StreamResponse, TCPSite

from lumen.core.errors import LumenError, UnavailableError
from lumen.gateway.reply import EventStream, Fold, error_reply, stream_reply
from lumen.wire.call import Event

pytestmark = pytest.mark.anyio
UNSAFE = "a\r\nx-evil: 1\u00e9"
Answer = Callable[[EventStream], Awaitable[None]]
BIG = b"x" * 10_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def asked_of(
    handle: Callable[[BaseRequest], Awaitable[StreamResponse]], *, version: str = "1.1", headers: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has asked this handler; its buffer is small."""
    runner = ServerRunner(Server(handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await TCPSite(runner, "127.0.0.1", 0).start()
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    mine.connect(runner.addresses[0][:2])
    reader, writer = await asyncio.open_connection(sock=mine, limit=4096)
    writer.write(f"GET / HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode())
    try:
        async with asyncio.timeout(100):
            yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await runner.cleanup()


@asynccontextmanager
async def client(
    answer: Answer, *, keepalive: float = 30.0, stall: float = 30.0, version: str = "1.1"
) -> AsyncIterator[asyncio.StreamReader]:
    """A client that has asked for this stream; the buffers on the way are small."""

    async def handle(request: BaseRequest) -> StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        transport.set_write_buffer_limits(8192)
        stream = EventStream(request, {"x-known": UNSAFE}, lambda: {"x-told": "b"}, keepalive=keepalive, stall=stall)
        return await stream_reply(stream, answer(stream))

    async with asked_of(handle, version=version) as (reader, _):
        yield reader


async def body_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Header and body, unchunked; the body of a connection that was cut ends with `<CUT>`."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return head, await reader.read()
    body = b""
    try:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ConnectionError):
        return head, body + b"<CUT>"
    assert await reader.readexactly(2) == b"\r\n"
    return head, body


@pytest.mark.parametrize(
    ("version", "asked", "told", "kept"),
    [
        ("1.1", "", None, True),
        ("1.1", "Connection: close\r\n", "close", False),
        ("1.0", "", None, False),
        ("1.0", "Connection: keep-alive\r\n", "keep-alive", True),
    ],
)
@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_a_whole_answer(version: str, asked: str, told: str | None, kept: bool, size: int) -> None:
    async def handle(request: BaseRequest) -> StreamResponse:
        fold = Fold()
        await fold.send([Event(b"x" * size)])
        return await fold.reply(request, {"x-known": UNSAFE})

    async with asked_of(handle, version=version, headers=asked) as (reader, writer):
        for _ in range(2 if kept else 1):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(f"HTTP/{version} 200 OK\r\n".encode())
            assert b"Content-Type: application/json\r\n" in head and b"\r\nx-known: a%0D%0A" in head
            assert (f"\r\nConnection: {told}\r\n".encode() in head) if told else b"onnection" not in head
            assert await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])) == b"x" * size
            if kept:
                writer.write(f"GET / HTTP/{version}\r\nHost: x\r\n{asked}\r\n".encode())
        if not kept:
            assert await reader.read() == b""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_pushed_events_follow_those_that_were_sent(version: str) -> None:
    async def answer(stream: EventStream) -> None:
        assert not stream.opened
        await stream.send([Event(b"1"), Event(b"", comment=b": two\n\n")])
        assert stream.opened
        assert stream.push([Event(b"3")]) and stream.push([Event(b"")]) and stream.push([Event(b"4"), Event(b"5")])
        await stream.ready()
        await stream.send([Event(b"6")])

    async with client(answer, version=version) as reader:
        head, body = await body_of(reader)
    assert (b"chunked" in head.lower()) == (version == "1.1")
    assert b"x-known: a%0D%0Ax-evil: 1%C3%A9\r\n" in head and b"x-told: b\r\n" in head
    assert b"\r\nServer: lumen\r\n" in head and b"GMT\r\n" in head
    shown = b"".join(b"data: %d\n\n" % i for i in (3, 4, 5, 6))
    assert body == b"data: 1\n\n: two\n\n" + shown + b"data: [DONE]\n\n"


async def test_the_headers_go_first_also_where_nothing_is_shown_of_the_first_events() -> None:
    async def answer(stream: EventStream) -> None:
        await stream.send([Event(b"")])
        assert stream.push([Event(b"1")])

    async with client(answer) as reader:
        head, body = await body_of(reader)
    assert head.startswith(b"HTTP/1.1 200") and body == b"data: 1\n\ndata: [DONE]\n\n"


async def test_a_client_that_is_behind_is_waited_for_and_gets_it_all() -> None:
    pushed = 0

    async def answer(stream: EventStream) -> None:
        nonlocal pushed
        await stream.send([Event(b"first")])
        while pushed < 400:
            pushed += 1
            if not stream.push([Event(BIG)]):
                await stream.ready()

    async with client(answer) as reader:
        before = -1
        while before != pushed or not pushed:
            before = pushed
            await asyncio.sleep(0.05)
        assert pushed < 400
        _, body = await body_of(reader)
    assert body == b"data: first\n\n" + b"data: %b\n\n" % BIG * 400 + b"data: [DONE]\n\n"


async def test_a_client_that_never_reads_is_dropped() -> None:
    ended = asyncio.Event()

    async def answer(stream: EventStream) -> None:
        try:
            await stream.send([Event(b"first")])
            while True:
                if not stream.push([Event(BIG)]):
                    await stream.ready()
        finally:
            ended.set()

    async with client(answer, keepalive=0.02, stall=0.1) as reader:
        await ended.wait()
        with suppress(ConnectionError):
            assert b"[DONE]" not in await reader.read()


async def test_nothing_is_pushed_to_a_client_that_has_gone() -> None:
    gone: list[BaseException] = []

    async def answer(stream: EventStream) -> None:
        await stream.send([Event(b"first")])
        stream._out.abort()
        assert not stream.push([Event(b"second")])
        try:
            await stream.ready()
        except ConnectionError as error:
            gone.append(error)
            raise

    async with client(answer) as reader:
        with suppress(ConnectionError):
            assert b"second" not in await reader.read()
    assert len(gone) == 1


async def test_an_error_in_the_middle_is_told_and_the_body_has_no_end() -> None:
    async def answer(stream: EventStream) -> None:
        await stream.send([Event(b"1")])
        stream.push([Event(b"2")])
        raise LumenError("It broke.", code="broken")

    async with client(answer) as reader:
        _, body = await body_of(reader)
    assert body.startswith(b'data: 1\n\ndata: 2\n\ndata: {"error":{') and body.endswith(b"}}\n\n<CUT>")


async def test_comments_fill_a_silence_between_whole_events() -> None:
    async def answer(stream: EventStream) -> None:
        await stream.send([Event(b"1")])
        stream.push([Event(b"2")])
        while stream._writes < 5:  # two events, and three comments
            await asyncio.sleep(0.01)
        stream.push([Event(b"3")])

    async with client(answer, keepalive=0.02) as reader:
        _, body = await body_of(reader)
    blocks = body.split(b"\n\n")
    assert blocks[:2] == [b"data: 1", b"data: 2"] and blocks[-3:] == [b"data: 3", b"data: [DONE]", b""]
    assert set(blocks[2:-3]) == {b": keep-alive"}


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.4, "1"), (2.0, "2"), (30.4, "31"), (86_400.0, "86400")])
def test_who_waits_as_long_as_told_is_not_too_early(seconds: float, told: str) -> None:
    assert error_reply(UnavailableError("later", retry_after=seconds), {}).headers["Retry-After"] == told


async def test_nothing_is_said_before_its_turn_so_that_it_may_be_refused() -> None:
    looks = 0

    def until() -> float:
        """For the first ten looks of the stream its turn is still to come."""
        nonlocal looks
        looks += 1
        return math.inf if looks <= 10 else 0.0

    async def handle(request: BaseRequest) -> StreamResponse:
        async def answer() -> None:
            while looks < 5:
                await asyncio.sleep(0.01)
            raise UnavailableError("crowded", status=429)

        async def late() -> None:
            while not stream.opened:
                await asyncio.sleep(0.01)
            assert looks == 11

        stream = EventStream(request, {}, dict, keepalive=0.02, stall=30.0, quiet_until=until)
        with suppress(UnavailableError):
            await stream_reply(stream, answer())
        assert not stream.opened
        return await stream_reply(stream, late())

    async with asked_of(handle) as (reader, _):
        _, body = await body_of(reader)
    assert body.startswith(b": keep-alive") and body.endswith(b"data: [DONE]\n\n")

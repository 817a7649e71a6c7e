"""The HTTP client against raw sockets that answer well, badly, in pieces, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from lumen.gateway.client import BadAnswer, Connection, ConnectionBroke, Origin, address
from lumen.gateway.watch import Watch

pytestmark = pytest.mark.anyio
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
ANSWERS = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", b""),
    "continue": (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi", b"hi"),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def server(script: Script) -> AsyncIterator[Origin]:
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    origin = Origin(address(f"http://127.0.0.1:{port}/v1"), {"Authorization": "Bearer k"})
    try:
        yield origin
    finally:
        origin.close()
        for task in list(tasks):
            task.cancel()
        listening.close()


class Bowl:
    """Takes what is poured; `more`: what it answers to each piece."""

    def __init__(self, more: bool = True) -> None:
        self.got: list[bytes] = []
        self._more = more

    def __call__(self, data: bytes) -> bool:
        self.got.append(data)
        return self._more


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def begun(origin: Origin) -> Connection:
    """A connection that has asked, and has the header of the answer."""
    async with asyncio.timeout(100):
        connection = await origin.connect(asyncio.get_running_loop())
        connection.send(origin.head("chat/completions", "application/json", 2), b"{}")
        await connection.head()
    return connection


async def ask(origin: Origin) -> tuple[Connection, bytes]:
    async with asyncio.timeout(100):
        connection = await begun(origin)
        body = b""
        while data := await connection.read():
            body += data
    return connection, body


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("step", [1, 3, 10_000])
async def test_answers_in_pieces_and_the_connection_serves_again(name: str, step: int) -> None:
    sent, expected = ANSWERS[name]
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await request_of(reader))
            for i in range(0, len(sent), step):
                writer.write(sent[i : i + step])
                await writer.drain()
                await asyncio.sleep(0)

    async with server(script) as origin:
        loop = asyncio.get_running_loop()
        first, body = await ask(origin)
        assert (first.status, body, first.headers["content-type"]) == (200, expected, "text/plain")
        assert "x" not in first.headers
        origin.give_back(first, loop)
        again, body = await ask(origin)
        assert again is first and body == expected
        again.close()
    assert seen[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nAccept: application/json\r\nHost: 127.0.0.1:")
    assert b"Authorization: Bearer k\r\n" in seen[0] and seen[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", ConnectionBroke),
        (b"HTTP/1.1 200", ConnectionBroke),
        (OK + b"Content-Length: 50\r\n\r\nhello", ConnectionBroke),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", ConnectionBroke),
        (b"<html>no</html>", BadAnswer),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", BadAnswer),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadAnswer),
        (OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n", BadAnswer),
    ],
)
async def test_broken_answers(sent: bytes, error: type[Exception]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(sent)
        await writer.drain()

    async with server(script) as origin:
        with pytest.raises(error):
            await ask(origin)


async def test_an_answer_without_framing_ends_with_the_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"\r\nall of it")
        await writer.drain()

    async with server(script) as origin:
        connection, body = await ask(origin)
        assert body == b"all of it" and not connection.reusable


async def test_connection_close_is_not_kept() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        await reader.read(1)

    async with server(script) as origin:
        loop = asyncio.get_running_loop()
        first, body = await ask(origin)
        assert body == b"hi"
        origin.give_back(first, loop)
        assert await origin.connect(loop) is not first


async def test_bytes_nobody_asked_for_end_the_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"Content-Length: 2\r\n\r\nhi")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(OK + b"Content-Length: 6\r\n\r\npoison")
        await writer.drain()
        await reader.read(1)

    async with server(script) as origin:
        loop = asyncio.get_running_loop()
        first, _ = await ask(origin)
        origin.give_back(first, loop)
        async with asyncio.timeout(100):
            while first.reusable:
                await asyncio.sleep(0.01)
        assert await origin.connect(loop) is not first


async def test_a_reader_that_is_behind_stops_the_sender() -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(OK + b"Content-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with server(script) as origin:
        loop = asyncio.get_running_loop()
        connection = await origin.connect(loop)
        connection.send(origin.head("p", "a", 2), b"{}")
        await connection.head()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 50_000_000
        got = 0
        while data := await connection.read():
            got += len(data)
        assert got == 100_000_000


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("step", [1, 3, 10_000])
@pytest.mark.parametrize("stopping", [False, True])
async def test_an_answer_is_poured_out_in_order(name: str, step: int, stopping: bool) -> None:
    sent, expected = ANSWERS[name]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for i in range(0, len(sent), step):
            writer.write(sent[i : i + step])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read(1)

    async with server(script) as origin:
        connection = await begun(origin)
        bowl = Bowl(more=not stopping)
        async with asyncio.timeout(100):
            while await connection.pour(bowl):
                # Whatever comes between two calls is kept for the next.
                await asyncio.sleep(0.001)
            assert await connection.read() == b""
        assert b"".join(bowl.got) == expected and b"" not in bowl.got
        assert connection.reusable
        connection.close()


@pytest.mark.parametrize(("end", "error"), [(b"", ConnectionBroke), (b"zz\r\n", BadAnswer)])
async def test_what_came_before_a_break_is_poured_first(end: bytes, error: type[Exception]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n")
        await poured.wait()
        writer.write(b"2\r\nlo\r\n" + end)
        await writer.drain()

    poured = asyncio.Event()
    async with server(script) as origin:
        connection = await begun(origin)
        bowl = Bowl()
        asyncio.get_running_loop().call_later(0.02, poured.set)
        async with asyncio.timeout(100):
            while await connection.pour(bowl):
                pass
            with pytest.raises(error):
                await connection.read()
        assert b"".join(bowl.got) == b"hello"


async def test_what_a_taker_raises_is_raised_to_the_one_who_pours() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"Content-Length: 4\r\n\r\nab")
        await release.wait()
        writer.write(b"cd")
        await reader.read(1)

    release = asyncio.Event()
    async with server(script) as origin:
        connection = await begun(origin)
        got: list[bytes] = []

        def take(data: bytes) -> bool:
            got.append(data)
            release.set()
            if data == b"cd":
                raise ValueError("not this")
            return True

        async with asyncio.timeout(100):
            with pytest.raises(ValueError, match="not this"):
                await connection.pour(take)
        connection.close()
    assert got == [b"ab", b"cd"]


async def test_a_cancelled_pour_takes_no_more() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK + b"Content-Length: 4\r\n\r\nab")
        await release.wait()
        writer.write(b"cd")
        await reader.read(1)

    release = asyncio.Event()
    async with server(script) as origin:
        connection = await begun(origin)
        bowl = Bowl()
        pouring = asyncio.create_task(connection.pour(bowl))
        async with asyncio.timeout(100):
            while not bowl.got:
                await asyncio.sleep(0.001)
            pouring.cancel()
            release.set()
            with pytest.raises(asyncio.CancelledError):
                await pouring
            assert await connection.read() == b"cd"
        assert bowl.got == [b"ab"]
        connection.close()


async def test_a_taker_that_wants_no_more_stops_the_sender() -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(OK + b"Content-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with server(script) as origin:
        connection = await begun(origin)
        got = 0

        def take(data: bytes) -> bool:
            nonlocal got
            got += len(data)
            return got > 1_000_000

        async with asyncio.timeout(100):
            assert await connection.pour(take)
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 30_000_000
            while await connection.pour(take):
                pass
        assert got == 50_000_000


def test_a_header_cannot_be_smuggled_in() -> None:
    with pytest.raises(ValueError, match="line break"):
        Origin(address("http://h/v1"), {"X": "a\r\nEvil: 1"})


async def test_watch_ends_a_wait_and_only_its_own() -> None:
    loop = asyncio.get_running_loop()
    watch = Watch(loop)

    async def wait(seconds: float) -> str:
        watch.wait(loop.time() + seconds)
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            if watch.expired():
                return "expired"
            raise
        finally:
            watch.rest()
        return "slept"

    assert await asyncio.create_task(wait(0.02)) == "expired"
    other = asyncio.create_task(wait(4))
    await asyncio.sleep(0.01)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other
    watch.close()


class Hand:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, asyncio.Handle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> asyncio.Handle:
        handle = asyncio.Handle(call, (), asyncio.get_running_loop())
        self.timers.append((when, handle))
        return handle

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [one for one in self.timers if one[0] <= self.now]
        self.timers = [one for one in self.timers if one[0] > self.now]
        for _, handle in due:
            if not handle.cancelled():
                handle._run()


async def test_watch_rings_late_for_a_wait_that_was_put_off() -> None:
    clock = Hand()
    watch = Watch(clock)  # type: ignore[arg-type]
    for _ in range(4):
        watch.wait(clock.time() + 0.05)
        clock.move(0.03)
        # Nobody is cancelled, although the timer of the first wait rings in the second.
        await asyncio.sleep(0)
        watch.rest()
    clock.move(0.1)
    await asyncio.sleep(0)
    assert not watch.expired() and not clock.timers
    watch.wait(clock.time() + 0.05)
    clock.move(0.03)
    watch.wait(clock.time() + 0.05)
    clock.move(0.03)
    await asyncio.sleep(0)
    clock.move(0.03)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert watch.expired()
    watch.close()

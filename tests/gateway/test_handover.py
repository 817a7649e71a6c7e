from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.web import BaseRequest, Response, ServerRunner, StreamResponse

from lumen.gateway.http import Connection, Ingress
from lumen.handover import HandoverError, Predecessor, Successor
from lumen.paths import Paths

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@asynccontextmanager
async def serving(name: str, hold: asyncio.Event | None = None) -> AsyncIterator[ServerRunner]:
    """A server that answers with its name, once `hold` is set."""

    async def answer(request: BaseRequest) -> StreamResponse:
        await request.read()
        if hold is not None:
            await hold.wait()
        return Response(text=name)

    runner = ServerRunner(Ingress(answer, header_timeout=5, idle_timeout=60), shutdown_timeout=0.1)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return await reader.readexactly(size)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_an_idle_connection_goes_on_at_another_server_and_a_busy_one_does_not() -> None:
    loop, hold = asyncio.get_running_loop(), asyncio.Event()
    async with serving("old", hold) as old, serving("new") as new:
        assert old.server is not None and new.server is not None
        listening = await loop.create_server(old.server, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        first = asyncio.ensure_future(asked(reader, writer, GET))
        while not old.server.connections:
            await asyncio.sleep(0)
        (one,) = old.server.connections
        assert isinstance(one, Connection)
        writer.write(b"")
        while not one._request_in_progress:
            await asyncio.sleep(0)
        assert one.release() is None, "a request is under way"
        hold.set()
        assert await first == b"old"
        while (taken := one.release()) is None:
            await asyncio.sleep(0)
        # What the client sends before the other server has the connection waits in the socket.
        writer.write(GET)
        await asyncio.sleep(0.01)
        taken.setblocking(False)
        await loop.connect_accepted_socket(new.server, taken)
        assert await asked(reader, writer, b"") == b"new"
        assert await asked(reader, writer, GET) == b"new"
        writer.close()
        listening.close()


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\nHo"])
async def test_half_a_request_stays_where_it_began(part: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with serving("old") as old:
        assert old.server is not None
        listening = await loop.create_server(old.server, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        assert await asked(reader, writer, GET) == b"old"
        (one,) = old.server.connections
        assert isinstance(one, Connection)
        writer.write(part)
        while one._header_timer is None:
            await asyncio.sleep(0)
        assert one.release() is None
        assert await asked(reader, writer, GET[len(part) :]) == b"old"
        writer.close()
        listening.close()


@pytest.mark.parametrize("told", [True, False])
async def test_the_whole_conversation(tmp_path: Path, told: bool) -> None:
    went: list[str] = []
    path = tmp_path / "h.sock"
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), lambda: went.append("go"))
        assert path.stat().st_mode & 0o777 == 0o600
        after, taken = await Successor.begin(path)
        assert taken.listener.getsockname() == listening.getsockname()
        assert os.path.samestat(os.fstat(taken.lock), os.fstat(lock.fileno()))
        # Nobody else may take over meanwhile; and nothing has changed for the one that runs.
        with pytest.raises(HandoverError):
            await Successor.begin(path)
        assert went == []
        going = asyncio.ensure_future(after.go())
        while not went:
            await asyncio.sleep(0)
        assert before.gone()
        await going
        ours, theirs = socket.socketpair()
        got: list[socket.socket] = []

        async def adopt(client: socket.socket) -> None:
            got.append(client)

        freed: list[bool] = []

        async def released() -> None:
            freed.append(coming.done())

        coming = asyncio.ensure_future(after.connections(adopt, released))
        assert before.give(theirs) and theirs.fileno() == -1
        ours.sendall(b"hello")
        while not got:
            await asyncio.sleep(0)
        assert got[0].recv(5) == b"hello"
        assert not coming.done() and not freed
        if told:
            before.released()
            while not freed:
                await asyncio.sleep(0)
        before.close()
        await coming
        # Once, also where the one before was killed and said nothing.
        assert freed == [False]
        for one in (ours, *got, taken.listener):
            one.close()
        os.close(taken.lock)
        after.close()


async def test_a_successor_that_gives_up_leaves_room_for_another(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), lambda: None)
        for _ in range(3):
            after, taken = await Successor.begin(path)
            taken.listener.close()
            os.close(taken.lock)
            after.close()
            while before._task is not None:
                await asyncio.sleep(0)
        before.close()
    assert not path.exists()
    with pytest.raises(HandoverError, match="no running gateway"):
        await Successor.begin(path)


def test_the_socket_is_in_the_run_folder(tmp_path: Path) -> None:
    where = Paths(tmp_path, tmp_path, tmp_path, tmp_path / "run")
    assert where.handover_socket.parent == where.run_dir

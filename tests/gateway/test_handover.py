from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import BaseRequest, Response, ServerRunner, StreamResponse

from lumen.gateway.http import Connection, Ingress
from lumen.handover import successor
from lumen.handover.channel import HandoverError
from lumen.handover.predecessor import Giving, Predecessor
from lumen.handover.successor import Successor, Taking
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

    runner = ServerRunner(Ingress(answer, header_timeout=30, idle_timeout=60), shutdown_timeout=0.1)
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


def giving(went: list[str], busy: Any = lambda: False) -> Giving:
    return Giving(busy, lambda: went.append("ready"), lambda: went.append("leave"))


async def until(true: Any) -> None:
    async with asyncio.timeout(100):
        while not true():
            await asyncio.sleep(0)


@pytest.mark.parametrize("told", ["lent", "at the end", "killed"])
async def test_the_whole_conversation(tmp_path: Path, told: str) -> None:
    went: list[str] = []
    path = tmp_path / "h.sock"
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), giving(went))
        assert path.stat().st_mode & 0o777 == 0o600
        after, taken = await Successor.begin(path)
        assert taken.listener.getsockname() == listening.getsockname()
        assert os.path.samestat(os.fstat(taken.lock), os.fstat(lock.fileno()))
        # An engine that outlives the gateway must hold neither its lock nor its port.
        assert not os.get_inheritable(taken.lock) and not taken.listener.get_inheritable()
        # Nobody else may take over meanwhile; and nothing has changed for the one that runs.
        with pytest.raises(HandoverError):
            await Successor.begin(path)
        assert went == []
        await after.go()
        assert went == ["ready"]
        here = asyncio.ensure_future(after.here())
        await until(lambda: went == ["ready", "leave"])
        assert not here.done()
        assert await before.gone()
        await here
        await inherited(before, after, told)
        taken.listener.close()
        os.close(taken.lock)
        after.close()


async def inherited(before: Predecessor, after: Successor, told: str) -> None:
    """A client's connection and the right to answer questions go over; then `before` ends, as it was `told`."""
    ours, theirs = socket.socketpair()
    got: list[socket.socket] = []
    freed: list[bool] = []

    async def adopt(client: socket.socket) -> None:
        got.append(client)

    async def released(lent: bool) -> None:
        freed.append(lent)

    def asked(body: dict[str, Any]) -> dict[str, Any]:
        return {"twice": body["value"] * 2}

    coming = asyncio.ensure_future(after.inherit(Taking(adopt, released, asked)))
    assert before.give(theirs) and theirs.fileno() == -1
    ours.sendall(b"hello")
    await until(lambda: got)
    assert got[0].recv(5) == b"hello" and not got[0].get_inheritable()
    assert not coming.done() and not freed
    early = asyncio.ensure_future(before.ask({"value": 21}))
    if told != "killed":
        await asyncio.sleep(0.01)
        # What is asked before it can be answered waits.
        assert not early.done()
        assert before.released(lent=told == "lent")
        await until(lambda: freed)
        assert not coming.done()
        # Answers find who asked, however many do at once.
        answers = await asyncio.gather(*(before.ask({"value": value}) for value in range(20)))
        assert answers == [{"twice": 2 * value} for value in range(20)]
        assert await early == {"twice": 42}
    before.close()
    await coming
    # Once, also where the one before was killed and said nothing.
    assert freed == [told == "lent"]
    early.cancel()
    if told != "killed":
        assert await before.ask({"value": 1}) is None
    for one in (ours, *got):
        one.close()


async def test_a_successor_that_gives_up_leaves_room_for_another(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), giving([]))
        for steps in range(3):
            after, taken = await Successor.begin(path)
            if steps:
                await after.go()
            taken.listener.close()
            os.close(taken.lock)
            after.close()
            await until(lambda: before._task is None)
        before.close()
    assert not path.exists()
    with pytest.raises(HandoverError, match="no running gateway"):
        await Successor.begin(path)


@pytest.mark.parametrize("told", [False, True])
async def test_a_successor_that_dies_when_it_is_there_leaves_room_for_another(tmp_path: Path, told: bool) -> None:
    path, went = tmp_path / "h.sock", list[str]()
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), giving(went))
        after, taken = await Successor.begin(path)
        await after.go()
        here = asyncio.ensure_future(after.here())
        await until(lambda: went[-1:] == ["leave"])
        here.cancel()
        await asyncio.sleep(0)
        gone = asyncio.ensure_future(before.gone()) if told else None
        if gone is not None:
            # It is told, and dies before it has taken anything.
            await asyncio.sleep(0.01)
            assert not gone.done()
        after.close()
        # The one that runs has to go on, and can be taken over from.
        assert not await (gone or before.gone()) and path.exists()
        again, more = await Successor.begin(path)
        await again.go()
        here = asyncio.ensure_future(again.here())
        await until(lambda: went.count("leave") == 2)
        assert await before.gone()
        await here
        for one in (taken, more):
            one.listener.close()
            os.close(one.lock)
        again.close()
        before.close()


async def test_a_gateway_that_dies_when_its_successor_is_ready_is_taken_over_from(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), giving([]))
        after, taken = await Successor.begin(path)
        before.close()
        await after.go()
        await after.here()
        freed: list[bool] = []

        async def released(lent: bool) -> None:
            freed.append(lent)

        async with asyncio.timeout(100):
            await after.inherit(Taking(lambda client: asyncio.sleep(0), released, lambda body: body))
        assert freed == [False]
        taken.listener.close()
        os.close(taken.lock)
        after.close()


async def test_one_that_is_still_taking_over_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, busy = tmp_path / "h.sock", [True, True, False]
    monkeypatch.setattr(successor, "_BUSY", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "lock").open("w") as lock:
        before = Predecessor(path, lock.fileno(), listening.fileno(), giving([], lambda: busy.pop(0)))
        after, taken = await Successor.begin(path)
        assert busy == []
        taken.listener.close()
        os.close(taken.lock)
        after.close()
        await until(lambda: before._task is None)
        monkeypatch.setattr(successor, "PATIENCE", 0.05)
        busy += [True] * 1000
        with pytest.raises(HandoverError, match="still finishing"):
            await Successor.begin(path)
        before.close()


def test_the_socket_is_in_the_run_folder(tmp_path: Path) -> None:
    where = Paths(tmp_path, tmp_path, tmp_path, tmp_path / "run")
    assert where.handover_socket.parent == where.run_dir

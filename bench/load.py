"""A load generator with a hand-written HTTP/1.1 client, so that what is measured is the server.

All times are seconds on the monotonic clock. Every loop is bounded by a count.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field


@dataclass
class Sample:
    """`first`: until the first byte of the body; `total`: until its end."""

    first: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    errors: int = 0


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sample: Sample) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        start = time.perf_counter()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            sample.errors += 1
        if b"content-length: " in head:
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            sample.first.append(time.perf_counter() - start)
        else:
            await self._chunked(reader, sample, start)
        sample.total.append(time.perf_counter() - start)

    async def _chunked(self, reader: asyncio.StreamReader, sample: Sample, start: float) -> None:
        first = True
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
            if first:
                sample.first.append(time.perf_counter() - start)
                first = False
        await reader.readexactly(2)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def closed_loop(port: int, request: bytes, clients: int, each: int) -> Sample:
    """`clients` connections, each asking `each` times as fast as it is answered."""
    sample = Sample()
    made = [Client(port, request) for _ in range(clients)]

    async def run(client: Client) -> None:
        for _ in range(each):
            await client.ask(sample)
        client.close()

    await asyncio.gather(*(run(c) for c in made))
    return sample


async def open_loop(port: int, request: bytes, rate: float, count: int) -> Sample:
    """`count` requests at a steady `rate` per second, whatever the answers do."""
    sample = Sample()
    idle: list[Client] = []
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        client = idle.pop() if idle else Client(port, request)
        await client.ask(sample)
        idle.append(client)

    start = time.perf_counter()
    for i in range(count):
        await asyncio.sleep(max(0.0, start + i / rate - time.perf_counter()))
        task = asyncio.create_task(one())
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for client in idle:
        client.close()
    return sample

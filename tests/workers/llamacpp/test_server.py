"""The server's own promises, with everything behind it made up."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from lumen.workers.llamacpp.prepare import Prepared
from lumen.workers.llamacpp.protocol import parse_completion
from lumen.workers.llamacpp.sequence import Outbox
from lumen.workers.llamacpp.server import Server


def test_what_is_prepared_for_a_client_that_has_left_is_freed() -> None:
    begun, go_on = threading.Event(), threading.Event()
    freed: list[Prepared] = []

    class Slow(Prepared):
        def close(self) -> None:
            freed.append(self)

    def completion(_wanted: object, _outbox: object) -> Prepared:
        begun.set()
        assert go_on.wait(100)
        return Slow([[1]])

    worker: Any = SimpleNamespace(settings=SimpleNamespace(slots=1), preparer=SimpleNamespace(completion=completion))

    async def leave() -> None:
        server = Server(worker)
        wanted = parse_completion({"prompt": [1]}, 10)
        asked = asyncio.create_task(server._prepare(wanted, Outbox(lambda _event: None, lambda: None, 1), 1 << 20))
        await asyncio.to_thread(begun.wait, 100)
        asked.cancel()
        await asyncio.wait({asked})
        assert asked.cancelled() and not freed
        go_on.set()
        async with asyncio.timeout(100):
            while not freed:
                await asyncio.sleep(0)

    asyncio.run(leave())
    assert len(freed) == 1

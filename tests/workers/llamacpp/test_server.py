"""The server's own promises, with everything behind it made up."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from lumen.workers.llamacpp import server as module
from lumen.workers.llamacpp.prepare import Prepared
from lumen.workers.llamacpp.protocol import parse_completion, parse_embedding
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


@pytest.mark.parametrize(("many", "apart"), [(2, False), (300, True)])
def test_many_embeddings_are_not_written_on_the_loop(monkeypatch: pytest.MonkeyPatch, many: int, apart: bool) -> None:
    seen: set[int] = set()
    normalise = module.normalise

    def watched(*given: Any) -> Any:
        seen.add(threading.get_ident())
        return normalise(*given)

    monkeypatch.setattr(module, "normalise", watched)
    vectors = [np.full(64, 2.0, np.float32) for _ in range(many)]
    entries = asyncio.run(module._written(vectors, parse_embedding({"input": "x"}, 10, 64)))
    told = msgspec.json.decode(msgspec.json.encode({"data": entries}))["data"]
    assert told == [{"object": "embedding", "index": i, "embedding": [0.125] * 64} for i in range(many)]
    assert (threading.get_ident() not in seen) == apart

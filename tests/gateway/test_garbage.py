"""What a request leaves behind: nothing that only a search for cycles would find.

Such searches are rare on purpose (`runtime.py`), so that an error which holds its own frames would hold answers, too.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.gateway.conftest import Up

pytestmark = pytest.mark.anyio


@pytest.fixture
def searched() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.enable()
    gc.garbage.clear()


@pytest.mark.parametrize(
    ("model", "stream"),
    [
        *[(model, stream) for model in ("fake/words-3", "fake/cut-2", "fake/status-503", "failover", "once", "limits")
          for stream in (False, True)],
        ("silent", True),
        ("fake/nothing/there", False),
    ],
)  # fmt: skip
async def test_a_request_leaves_no_cycles(up: Up, searched: None, model: str, stream: bool) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    for number in range(3):
        if number == 1:
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
        await up.stream(body) if stream else await up.post("/v1/chat/completions", body)
    gc.collect()
    left = Counter(type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("lumen."))
    assert not left

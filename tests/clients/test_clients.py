from __future__ import annotations

import asyncio

import pytest

from tests.clients.conftest import Run
from tests.gateway.conftest import Up, anyio_backend, server_config, up

__all__ = ["anyio_backend", "server_config", "up"]
pytestmark = pytest.mark.anyio


@pytest.mark.timeout(600)
async def test_the_anthropic_sdk(up: Up, client: Run) -> None:
    printed = await asyncio.to_thread(client, "anthropic==2.12.0", "anthropic_client", up.url, up.secret)
    assert printed == "ok\n"

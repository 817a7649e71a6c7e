from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import server_config, up  # noqa: F401 - fixtures, used here as well
from tests.learning.box import Box
from tests.learning.provider import Provider


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as made:
        yield made


@pytest.fixture
def box(tmp_path: Path, provider: Provider) -> Iterator[Box]:
    made = Box(tmp_path / "box", provider)
    made.home.mkdir()
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"

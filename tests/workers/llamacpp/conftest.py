"""One real worker for each test module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.workers.llamacpp.client import Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("--slots", "8") as running:
        yield running

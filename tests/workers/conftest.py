from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder with a path short enough for UNIX sockets, which pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="lumen-"))
    yield made
    shutil.rmtree(made)

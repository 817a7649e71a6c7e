from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lumen_cli.main import main

from lumen.paths import Paths, paths
from tests.cli.harness import Ran
from tests.hub.server import FakeHub


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """An installation of its own."""
    monkeypatch.setenv("LUMEN_HOME", str(tmp_path / "h"))
    monkeypatch.delenv("LUMEN_DEBUG", raising=False)
    found = paths()
    found.make()
    return found


@pytest.fixture
def lumen(home: Paths, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run one command line in this process."""

    def run(*args: str) -> Ran:
        capfd.readouterr()
        code = main(list(args))
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def serve(home: Paths) -> Iterator[Callable[[FakeHub], FakeHub]]:
    """Run a hub beside the test, in a thread of its own, and configure it."""
    stops: list[Callable[[], None]] = []

    def start(hub: FakeHub) -> FakeHub:
        started = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        async def live() -> None:
            async with hub.running():
                started.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
        thread.start()

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)
            thread.join(20)
            loop.close()

        stops.append(end)
        assert started.wait(100)
        home.config_file.write_text(f"# mine\nhub:\n  endpoint: {hub.hub}\n")
        return hub

    yield start
    for end in stops:
        end()

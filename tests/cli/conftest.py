from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lumen_cli import gateway
from lumen_cli.main import main

from lumen.paths import Paths, paths
from tests.cli.harness import Fake, Ran


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """An installation of its own."""
    monkeypatch.setenv("LUMEN_HOME", str(tmp_path / "h"))
    for name in ("LUMEN_DEBUG", "LUMEN_FAKE"):
        monkeypatch.delenv(name, raising=False)
    found = paths()
    found.make()
    yield found
    shutil.rmtree(found.run_dir, ignore_errors=True)


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
def fake(home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    script = tmp_path / "play.json"
    monkeypatch.setenv("LUMEN_FAKE", str(script))
    monkeypatch.setenv("LUMEN_FAKE_RUN", str(home.run_dir))
    made = Fake(home, script)
    monkeypatch.setattr(gateway, "command", made.argv)
    spawn = gateway.spawn

    def spawned(*args: Any, **kwargs: Any) -> tuple[subprocess.Popen[bytes], int]:
        process, since = spawn(*args, **kwargs)
        # Detached or not, here it is a child of the tests and theirs to collect.
        made.running.append(process)
        return process, since

    monkeypatch.setattr(gateway, "spawn", spawned)
    yield made
    recorded = gateway.record(home)
    if recorded is not None:
        gateway.Process(recorded.pid, recorded.started).force()
    for process in made.running:
        process.kill()
        process.wait()

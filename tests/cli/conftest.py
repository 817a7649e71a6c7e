from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lumen_cli import gateway
from lumen_cli.main import main

from lumen.paths import Paths, paths
from tests.cli.harness import Fake, Ran
from tests.cli.vendor_server import KEY, Vendor, serving


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


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keyring of this machine's user, no keys in the environment, nobody at the keyboard."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    for name in ("GROQ_API_KEY", "OPENAI_API_KEY", "ACME_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """What comes in on standard input."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.fixture
def acme(lumen: Callable[..., Ran], typed: Callable[[str], None]) -> Iterator[Vendor]:
    """A vendor that runs and is configured as `acme`, with the right key."""
    with serving(Vendor()) as vendor:
        typed(KEY)
        ran = lumen("provider", "add", "acme", "--base-url", vendor.url, "--key", "env:ACME_KEY")
        assert ran.code == 0
        yield vendor

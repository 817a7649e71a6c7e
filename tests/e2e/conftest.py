"""The real thing: `lumen up` as a user runs it, the real engine, the built-in model, the real OpenAI SDK."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from lumen_cli.client import Admin

from lumen.paths import paths

LUMEN = [sys.executable, "-m", "lumen_cli"]
DEADLINE = 100.0


def until(true: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Poll until `true()` is truthy; the bound only turns a hang into a failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s for {what}")


@dataclass
class Box:
    """One Lumen installation in a folder of its own."""

    home: Path
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "LUMEN_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "200"}

    def lumen(self, *args: str, check: bool = True, given: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*LUMEN, *args], env=self.env, capture_output=True, text=True, timeout=120, input=given, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"lumen {' '.join(args)} → {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def up(self, *args: str) -> None:
        self.lumen("up", "--detach", "--port", "0", *args)

    def status(self) -> dict[str, Any]:
        """What runs, asked without a process of the command line: it would take longer than some states last."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LUMEN_HOME", str(self.home))
            admin = Admin(paths().admin_socket)
        return admin.status()

    @property
    def key(self) -> str:
        return (self.home / "config" / "local.key").read_text().strip()

    @property
    def url(self) -> str:
        url: str = self.status()["url"]
        return url

    def client(self, **options: Any) -> openai.OpenAI:
        made = openai.OpenAI(**{"base_url": self.url, "api_key": self.key, "max_retries": 0, "timeout": 60, **options})
        self.clients.append(made)
        return made

    def workers(self) -> list[int]:
        return [r["pid"] for m in self.status()["models"] for r in m["replicas"] if r["pid"]]

    def ours(self) -> list[psutil.Process]:
        """Every live process of this installation, found by its environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("LUMEN_HOME") == str(self.home) and process.status() != "zombie":
                    found.append(process)
        return [p for p in found if p.pid != os.getpid()]

    def engines(self) -> list[psutil.Process]:
        """Those of them that are llama.cpp workers. One that ends while it is looked at is none any more."""
        found = []
        for process in self.ours():
            with suppress(psutil.Error):
                if "lumen.workers.llamacpp" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.lumen("down", check=False)
        for process in self.ours():
            with suppress(psutil.Error):
                process.kill()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box that is up, shared by the tests of a module."""
    made = Box(tmp_path_factory.mktemp("box"))
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Box]:
    """A box of its own, not up yet."""
    made = Box(tmp_path / "box")
    try:
        yield made
    finally:
        made.end()

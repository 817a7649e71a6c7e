"""A real gateway in a process of its own before an emulated provider, and what tests ask of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning

from lumen.paths import Paths
from tests.learning.provider import Provider

CONFIG = """
# The operator's own words.
auth: {{required: false}}
providers:
  p:
    base_url: http://127.0.0.1:{port}/v1
    dialect: openai
    models:
      "*": {{price: {{input: 1, output: 2}}}}
      free: {{}}
routes:
  chat:
    # Who answers.
    targets: [p/right]   # for now
    {more}
"""


def until(true: Callable[[], Any], what: str, seconds: float = 100.0) -> Any:
    """Poll until `true()` is truthy; the bound only turns a hang into a failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s for {what}")


@dataclass
class Box:
    home: Path
    provider: Provider
    more: str = "policy: ordered"
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    log: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.home / "config" / "config.yaml"

    @property
    def paths(self) -> Paths:
        state = self.home / "state"
        return Paths(self.home / "config", state, self.home / "data", state / "run")

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "LUMEN_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "200"}

    @property
    def admin(self) -> Admin:
        # Below the folder's own path where that is too long for a socket: as the gateway says.
        return Admin(self._socket(), timeout=60)

    def _socket(self) -> Path:
        from lumen.paths import _run_dir

        return _run_dir(self.home / "state") / "admin.sock"

    def up(self) -> None:
        self.config.parent.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            self.config.write_text(CONFIG.format(port=self.provider.port, more=self.more))
        log = (self.home / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lumen", "--port", "0"], env=self.env, stdout=log, stderr=log
        )
        log.close()

        def listens() -> bool:
            assert self.process is not None and self.process.poll() is None, (self.home / "log").read_text()
            try:
                self.url = self.admin.status()["url"]
                return bool(self.admin.status()["ready"]) and bool(self.admin.get("/admin/trials"))
            except NotRunning:
                return False

        until(listens, "the gateway")
        # Clients are let in last: then all that an earlier process left is there.
        until(self._serves, "its endpoint")

    def _serves(self) -> bool:
        host, port = self.url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request("GET", "/v1/models")
            return connection.getresponse().status in (200, 401)
        except ConnectionError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def down(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(100)

    def lumen(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lumen_cli", *args], env=self.env, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{args}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def do(self, what: str, action: str, /, **options: Any) -> Any:
        body = {"route": "chat", "action": action, "options": json.dumps(options)}
        return self.admin.post(f"/admin/{what}", body)

    def refused(self, what: str, action: str, /, **options: Any) -> str:
        try:
            self.do(what, action, **options)
        except CliError as error:
            return error.what
        raise AssertionError("it was not refused")

    def trials(self) -> dict[str, Any]:
        found: dict[str, Any] = self.admin.get("/admin/trials")
        return found

    @property
    def shadow(self) -> dict[str, Any]:
        return dict(self.trials()["shadows"][0])

    @property
    def canary(self) -> dict[str, Any]:
        return dict(self.trials()["canaries"][0])

    def ask(self, count: int = 1, *, at_once: int = 4, stream: bool = True, first: int = 0, **more: Any) -> list[str]:
        """So many requests, each its own conversation; who answered each."""
        return asyncio.run(self._ask(count, at_once, {"stream": stream, **more}, first))

    async def _ask(self, count: int, at_once: int, more: dict[str, Any], first: int) -> list[str]:
        gate = asyncio.Semaphore(at_once)

        async def one(session: aiohttp.ClientSession, number: int) -> str:
            messages = [{"role": "user", "content": f"What is 2 + 2, number {number}?"}]
            async with (
                gate,
                session.post(
                    f"{self.url}/chat/completions", json={"model": "chat", "messages": messages, **more}
                ) as answer,
            ):
                await answer.read()
                self.log.append(answer.headers["x-request-id"])
                return answer.headers.get("x-lumen-target") or str(answer.status)

        async with aiohttp.ClientSession() as session:
            return list(await asyncio.gather(*(one(session, first + number) for number in range(count))))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        host, port = self.url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

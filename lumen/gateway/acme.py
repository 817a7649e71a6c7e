"""Keeps the endpoint's certificate from an ACME authority: says when one is ordered, answers the authority meanwhile.

Nothing here fails the gateway: what goes wrong is told, and tried again, while the certificate that is there serves on.
The orders are carried out by a process of their own, see `lumen/acme/`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp.web import BaseRequest, Response, ServerRunner, TCPSite

from lumen.acme import plan
from lumen.acme.folder import CERTIFICATE, folder, load_tries, save_tries
from lumen.acme.plan import Standing, Tries
from lumen.config.schema import Server
from lumen.core.errors import ConfigError
from lumen.gateway.http import Ingress

_PATH = "/.well-known/acme-challenge/"
# Seconds: of an order, of looking at a file, until another gateway's order is looked for again, from one certificate to
# the next at least, and of one sleep: the machine's clock may be set, or the machine have slept.
_ORDER, _LOOK, _BUSY, _AGAIN, _LONGEST = 300.0, 30.0, 20.0, 3600.0, 600.0
_LINE = 65_536
# What the process is given of the environment: no secret is among it.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PLACES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LUMEN_HOME", "LD_LIBRARY_PATH", "PYTHONPATH")
_ENVIRONMENT = (*_PLACES, *_AUTHORITIES, *_PROXIES)


class Acme:
    """The certificate of `server.tls.acme`, kept below `data_dir`. `base`: the configuration's folder.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(
        self,
        server: Server,
        base: Path,
        data_dir: Path,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if find_spec("acme") is None or find_spec("josepy") is None:
            raise ConfigError("server.tls.acme needs the package's extra: install lumen-serve[acme]")
        assert server.tls.acme is not None
        self._wanted, self._host = server.tls.acme, server.host
        self._authority = None if self._wanted.directory_ca is None else str(base / self._wanted.directory_ca)
        self._folder = folder(data_dir, self._wanted.directory)
        self._about = json.dumps([sorted(self._wanted.domains), self._wanted.http_port, self._host])
        self._say, self._clock, self._draw = say, clock, draw
        # One draw for a gateway's life: a renewal's hour does not wander.
        self._spread = draw()
        self._standing: Standing | None = None
        self._tries = Tries()
        self._ordering = False

    @property
    def certificate(self) -> Path:
        """Key and certificate, as one file."""
        return self._folder / CERTIFICATE

    async def open(self) -> None:
        """Have a certificate in place: the one that is there, or one that nobody vouches for until there is another.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
            self._tries = await asyncio.to_thread(load_tries, self._folder, self._about)
            said = await self._run("stopgap", _LOOK)
        except OSError as error:
            raise ConfigError(f"{self._folder} cannot be written ({error.strerror or error})") from None
        self._stand(said)
        if self._standing is None and not self.certificate.exists():
            raise ConfigError(f"{self.certificate} cannot be written: {said.get('failed')}")
        if self._standing is None or not self._standing.covers(self._wanted.domains):
            self._say(f"there is no certificate for {self._names} yet: it is ordered from {self._wanted.directory}")

    async def keep(self, look: Callable[[], bool]) -> None:
        """Order and renew for as long as the gateway runs. `look`: takes a new certificate over; blocking."""
        while True:
            wait = max(self._due, self._tries.after) - self._clock()
            if wait > 0:
                await asyncio.sleep(min(wait, _LONGEST))
                continue
            if not await self._try():
                # Another gateway is at it.
                await asyncio.sleep(_BUSY)
                self._stand(await self._run("look", _LOOK))
            await asyncio.to_thread(look)

    def status(self) -> dict[str, Any]:
        """For operators: what serves, until when, what comes next and what went wrong."""
        standing, tries = self._standing, self._tries
        certified = standing is not None and standing.covers(self._wanted.domains)
        return {
            "domains": list(self._wanted.domains),
            "directory": self._wanted.directory,
            "state": "ordering" if self._ordering else "failing" if tries.failed else "held" if certified else "none",
            "certified": certified,
            "not_after": None if standing is None else standing.not_after,
            "next": max(self._due, tries.after),
            "failed": tries.failed,
            "why": tries.why,
        }

    @property
    def _due(self) -> float:
        return plan.due(self._standing, self._wanted.domains, self._spread)

    @property
    def _names(self) -> str:
        return ", ".join(self._wanted.domains)

    def _stand(self, said: Mapping[str, Any]) -> None:
        if found := said.get("standing"):
            self._standing = Standing(**{**found, "names": tuple(found["names"])})

    async def _try(self) -> bool:
        """One order, whatever comes of it. False: another gateway is ordering."""
        before = self._tries
        self._ordering = True
        try:
            # Written down as failed before it is begun: whatever ends this process, the next one waits.
            await self._write(plan.failed(before, "the gateway ended meanwhile", self._clock(), self._draw()))
            said = await self._run("order", _ORDER)
        except asyncio.CancelledError:
            await self._write(before)
            raise
        finally:
            self._ordering = False
        if said.get("busy"):
            await self._write(before)
            return False
        if "standing" in said:
            await self._write(Tries())
            # Where this machine's clock is wrong, what has just come may seem due.
            self._tries = Tries(after=self._clock() + _AGAIN)
            self._stand(said)
            assert self._standing is not None
            self._say(f"the certificate for {self._names} is there, good until {_day(self._standing.not_after)}")
            return True
        why, wait = str(said.get("failed", "it ended without a word")), float(said.get("wait", 0.0))
        tries = plan.failed(before, why, self._clock(), self._draw(), wait)
        await self._write(tries)
        self._say(
            f"no certificate for {self._names} came of try {tries.failed}: {why}; "
            f"again at {_minute(tries.after)}, what is there serves on"
        )
        self._tries = tries
        return True

    async def _write(self, tries: Tries) -> None:
        try:
            await asyncio.to_thread(save_tries, self._folder, self._about, tries)
        except OSError as error:
            self._say(f"{self._folder} cannot be written ({error.strerror or error})")

    async def _run(self, do: str, limit: float) -> dict[str, Any]:
        """Have a job done by a process of its own; its last word, or {"failed": why}."""
        job = {
            "do": do,
            "folder": str(self._folder),
            "domains": self._wanted.domains,
            "directory": self._wanted.directory,
            "email": self._wanted.email,
            "authority": self._authority,
            "digest": None if self._standing is None else self._standing.digest,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "lumen.acme", stdin=PIPE, stdout=PIPE, limit=_LINE,
                env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT},
            )  # fmt: skip
        except OSError as error:
            return {"failed": f"its process cannot be started ({error.strerror or error})"}
        try:
            async with asyncio.timeout(limit):
                await _put(process, job)
                return await self._talk(process)
        except TimeoutError:
            return {"failed": f"it did not end within {limit:.0f} s"}
        except (OSError, ValueError) as error:
            return {"failed": f"its process broke off ({error})"}
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.wait()

    async def _talk(self, process: Process) -> dict[str, Any]:
        said = await _next(process)
        if "show" not in said:
            return said
        try:
            async with answering(said["show"], self._host, self._wanted.http_port):
                await _put(process, {"shown": True})
                return await _next(process)
        except OSError as error:
            where = f"{self._host}:{self._wanted.http_port}"
            return {"failed": f"cannot listen on {where} for the challenge ({error.strerror or error})"}


@asynccontextmanager
async def answering(answers: Mapping[str, str], host: str, port: int) -> AsyncIterator[int]:
    """Serve an authority's http-01 challenges (RFC 8555, 8.3), {token: answer}, and nothing else; the port.

    Raises:
        OSError: the port cannot be had.
    """

    async def answer(request: BaseRequest) -> Response:
        found = answers.get(request.path.removeprefix(_PATH)) if request.path.startswith(_PATH) else None
        if found is None or request.method not in ("GET", "HEAD"):
            return Response(status=404, text="There is nothing here.\n")
        return Response(text=found, content_type="application/octet-stream")

    runner = ServerRunner(Ingress(answer, header_timeout=10, idle_timeout=5), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await TCPSite(runner, host, port, backlog=64).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _put(process: Process, message: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def _next(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise ValueError("it ended")
    found: dict[str, Any] = json.loads(line)
    return found


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _minute(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")

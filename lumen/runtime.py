"""The life of a gateway process: its lock, its sockets, its signals, its end. What it serves is `service.py`'s."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import os
import signal
import socket
import ssl
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from aiohttp.web import ServerRunner, SockSite, UnixSite

from lumen.core.errors import ConfigError
from lumen.files import write_atomic
from lumen.gateway import admin, app
from lumen.gateway.acme import Acme
from lumen.gateway.http import Connection, Ingress
from lumen.gateway.remote import Remote
from lumen.gateway.tls import Certificates
from lumen.handover.predecessor import Giving, Predecessor
from lumen.handover.successor import Successor, Taken, Taking
from lumen.operator import Operator
from lumen.owner import owner
from lumen.paths import Paths, paths
from lumen.service import AlreadyRunning, Options, Service, say

# Seconds between two looks for connections that a successor can have.
_PASS_ON = 0.01


class Runtime:
    """One running gateway."""

    def __init__(self, options: Options, where: Paths) -> None:
        self._paths = where
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lock: IO[str] | None = None
        self._watching: asyncio.Future[Any] | None = None
        self._options = options
        # Whom this gateway took over from and with what; where another may take over from it; whether one does.
        self._before: tuple[Successor, Taken] | None = None
        self._handover: Predecessor | None = None
        self._given = False
        # The listening socket once more, to give away or to listen on again; whether the run folder's files are ours.
        self._kept: socket.socket | None = None
        self._mine = self._lent = False
        self._inheriting: asyncio.Future[None] | None = None
        self._service = Service(options, where, self._signalled)

    async def run(self) -> None:
        """Serve until a signal or `stop`, then drain.

        Raises:
            AlreadyRunning: another gateway holds this run folder.
            ConfigError: the port cannot be bound, the configuration cannot be used, or a running gateway does not
                hand over.
        """
        self._paths.make()
        if self._options.succeed:
            self._before = await Successor.begin(self._paths.handover_socket)
            self._lock = os.fdopen(self._before[1].lock, "a")
        else:
            self._lock = _take_lock(self._paths.run_dir / "gateway.lock")
        self._handle_signals()
        service = self._service
        server = service.config.server
        timeouts = {"header_timeout": server.header_timeout, "idle_timeout": server.idle_timeout}
        public = ServerRunner(Ingress(app.handler(service.state), **timeouts), shutdown_timeout=0.5)
        operator = Operator(service)
        service.state.remote = Remote(operator, service.state).handle
        private = ServerRunner(
            Ingress(admin.handler(operator), header_timeout=5, idle_timeout=60), shutdown_timeout=0.5
        )
        try:
            await public.setup()
            await private.setup()
            # Bound first, so that a port in use is told before an engine is started; served last, so that the
            # first request finds everything in place.
            certificates = await self._certificates()
            listening = self._bind("http" if certificates is None else "https")
            if self._before is None:
                await self._listen_admin(private)
                await service.start()
            else:
                await service.start_beside()
                await self._before[0].go()
                service.take_over()
            secured = None if certificates is None else certificates.context
            self._kept = listening.dup()
            await SockSite(public, listening, backlog=1024, ssl_context=secured).start()
            if self._before is not None:
                await self._before[0].here()
                await self._listen_admin(private)
            self._announce()
            if self._before is not None:
                self._inheriting = asyncio.ensure_future(self._inherit(self._before[0], public))
            giving = Giving(self._busy, service.save, self._signalled_to_give)
            self._handover = Predecessor(self._paths.handover_socket, self._lock.fileno(), self._kept.fileno(), giving)
            await operator.begun(owner())
            _freeze()
            await self._stopping.wait()
            while self._given and not await self._give(self._handover, public, private):
                await self._again(public, private, secured)
                await self._stopping.wait()
            await self._drain(public)
        finally:
            await self._end(public, private)

    async def _end(self, public: ServerRunner, private: ServerRunner) -> None:
        service = self._service
        # A successor has its own; one that never got so far has none.
        if self._mine and not self._given:
            self._paths.gateway_file.unlink(missing_ok=True)
            self._paths.admin_socket.unlink(missing_ok=True)
        await self._unwatched()
        if self._inheriting is not None:
            self._inheriting.cancel()
        await public.cleanup()
        await private.cleanup()
        grace = 0.0 if self._hurry.is_set() else service.config.server.drain
        await service.close(grace, self._released)
        if self._kept is not None:
            self._kept.close()
        if self._before is not None:
            self._before[0].close()
        if self._handover is not None:
            # Last: it tells a successor that the engines are gone.
            self._handover.close()

    def _released(self) -> None:
        if self._handover is not None and not self._lent:
            self._handover.released()

    async def _certificates(self) -> Certificates | None:
        """TLS of the endpoint, watched from now on; `None` where it has none."""
        service = self._service
        tls, base = service.config.server.tls, service.config_file.absolute().parent
        if not tls.on:
            return None
        if tls.acme is None:
            found = Certificates(tls, base, say)
            self._watching = asyncio.ensure_future(found.watch())
            return found
        service.acme = acme = Acme(service.config.server, base, self._paths.data_dir, say)
        await acme.open()
        found = Certificates(replace(tls, cert=str(acme.certificate), key=str(acme.certificate)), base, say)
        self._watching = asyncio.gather(found.watch(), acme.keep(found.look))
        return found

    async def _unwatched(self) -> None:
        """An order that is under way ends here, so that whoever is next can make it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    def _bind(self, scheme: str) -> socket.socket:
        server = self._service.config.server
        if self._before is not None:
            listening = self._before[1].listener
            host, port = listening.getsockname()[:2]
            # Configured to be elsewhere by now, it listens there, and nobody where it was.
            if server.port in (0, port) and _same_host(server.host, host):
                return self._named(listening, scheme)
            listening.close()
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        try:
            made = socket.create_server((server.host, server.port), family=family, backlog=1024)
        except OSError as error:
            # Python says behind it what it was about.
            why = (error.strerror or str(error)).partition(" (while")[0]
            raise ConfigError(
                f"cannot listen on {server.host}:{server.port} ({why}); choose another with --port"
            ) from None
        return self._named(made, scheme)

    def _named(self, made: socket.socket, scheme: str) -> socket.socket:
        host, port = made.getsockname()[:2]
        self._service.url = f"{scheme}://{'[' + host + ']' if ':' in host else host}:{port}/v1"
        return made

    async def _listen_admin(self, private: ServerRunner) -> None:
        self._paths.admin_socket.unlink(missing_ok=True)
        umask = os.umask(0o177)
        try:
            await UnixSite(private, str(self._paths.admin_socket)).start()
        finally:
            os.umask(umask)
        self._mine = True

    def _announce(self) -> None:
        service = self._service
        told = {"pid": os.getpid(), "started": time.time(), "url": service.url, "argv": sys.argv}
        write_atomic(self._paths.gateway_file, json.dumps(told).encode(), mode=0o600)
        say(f"listening on {service.url}, profile {service.profile.name} ({service.why})")

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _signalled_to_give(self) -> None:
        self._given = True
        self._stopping.set()

    async def _inherit(self, before: Successor, public: ServerRunner) -> None:
        """Take over the clients of the gateway before this one, and its ledger when it has ended."""
        loop = asyncio.get_running_loop()

        async def adopt(client: socket.socket) -> None:
            client.setblocking(False)
            try:
                assert public.server is not None
                await loop.connect_accepted_socket(public.server, client)
            except OSError:
                # Its client left on the way.
                client.close()

        async def released(lent: bool) -> None:
            await self._service.inherit(lent=lent)
            say("the gateway before this one has closed the ledger; its ledger is taken over")

        billing = self._service.state.billing
        await before.inherit(Taking(adopt, released, lambda body: billing.grant(body.get("hold"))))
        billing.over()
        await self._service.supervisor.alone()
        say("the gateway before this one has ended")

    def _busy(self) -> bool:
        """Whether the gateway before this one is still at work."""
        inheriting = self._inheriting is not None and not self._inheriting.done()
        return inheriting or self._service.state.billing.sharing

    async def _again(self, public: ServerRunner, private: ServerRunner, secured: ssl.SSLContext | None) -> None:
        """Whoever was to take over has died before it did: go on as if nothing had been."""
        say("the gateway that was to take over is gone; this one goes on")
        assert self._kept is not None
        self._given = False
        if not self._hurry.is_set():
            self._stopping.clear()
        await SockSite(public, self._kept.dup(), backlog=1024, ssl_context=secured).start()
        await self._listen_admin(private)

    async def _give(self, handover: Predecessor | None, public: ServerRunner, private: ServerRunner) -> bool:
        """Let a successor have the sockets, the ledger, and each connection once nothing is under way on it.

        False: it has died, and nothing is given.
        """
        assert handover is not None and self._kept is not None
        for site in [*public.sites, *private.sites]:
            await site.stop()
        if not await handover.gone():
            return False
        await self._unwatched()
        self._kept.close()
        lending = asyncio.ensure_future(self._lend(handover))
        await self._pass_on(handover, public)
        self._lent = await lending
        return True

    async def _lend(self, handover: Predecessor) -> bool:
        """Let the successor keep the accounts; False: that is to be done at the end."""
        lent = await self._service.lend(handover.ask)
        while lent:
            if handover.released(lent=True):
                break
            await asyncio.sleep(_PASS_ON)
        return lent

    async def _pass_on(self, handover: Predecessor, public: ServerRunner) -> None:
        state, loop = self._service.state, asyncio.get_running_loop()
        say(f"another gateway takes over; {state.counters.in_flight} requests are finished here")
        until = loop.time() + state.config.server.drain
        waiting: list[socket.socket] = []
        while loop.time() < until and not self._hurry.is_set():
            assert public.server is not None
            clients = [one for one in public.server.connections if isinstance(one, Connection)]
            waiting += [freed for one in clients if (freed := one.release()) is not None]
            while waiting and handover.give(waiting[-1]):
                waiting.pop()
            if not waiting and not state.counters.in_flight and all(one.secured for one in clients):
                break
            await asyncio.sleep(_PASS_ON)
        for client in waiting:
            client.close()

    async def _drain(self, public: ServerRunner) -> None:
        """Stop accepting, let running answers finish within the configured time; a second signal ends it now."""
        state = self._service.state
        state.draining = True
        for site in list(public.sites):
            await site.stop()
        say(f"draining {state.counters.in_flight} requests")
        state.idle.clear()
        if state.counters.in_flight:
            waits = [asyncio.ensure_future(e.wait()) for e in (state.idle, self._hurry)]
            await asyncio.wait(waits, timeout=state.config.server.drain, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()


def _freeze() -> None:
    """What lives from here on is the program itself: keep it out of every later collection."""
    gc.collect()
    gc.freeze()
    # Requests make no cycles to speak of; looking for them every 700 objects costs more than it finds.
    gc.set_threshold(20_000, 20, 50)


def _same_host(configured: str, bound: str) -> bool:
    return configured == bound or (configured == "localhost" and bound in ("127.0.0.1", "::1"))


def _take_lock(path: Path) -> IO[str]:
    """Held until the process ends, however it ends."""
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise AlreadyRunning("another Lumen gateway is already running here; see: lumen status") from None
    return handle


def serve(options: Options) -> int:
    """Run the gateway in this process until it is stopped; 0 after a clean end."""
    # Imported here: nothing else in the program may depend on the loop's implementation.
    import uvloop

    async def main() -> None:
        await Runtime(options, paths()).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except (ConfigError, AlreadyRunning, PermissionError) as error:
        say(f"error: {error}")
        return 1
    return 0

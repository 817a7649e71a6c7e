"""What operators ask of a running gateway, each a method of one class: the other side of `gateway/admin.py`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psutil

import lumen
from lumen.clerk import Clerk
from lumen.config.differences import differences
from lumen.core.errors import RequestError
from lumen.gateway import overview, planning
from lumen.service import Service, say
from lumen.wire.call import chat_call
from lumen.wire.parse import parse_chat
from lumen.workers.logs import tail

# Requests and failovers in one frame of the live view, and lines of a log.
_MOST_SHOWN = 100
_LINES = 300


class Operator:
    """Tells what goes on in `service`, and has done what an operator wants."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._process = psutil.Process()
        self.learning = service.learning
        self.clerk = Clerk(service.paths, self.reload)

    def memory(self) -> dict[str, Any]:
        return self._service.memory.describe()

    def status(self) -> dict[str, Any]:
        service = self._service
        served, states, standings = service.served, service.supervisor.states(), service.supervisor.standings()
        return {
            "version": lumen.__version__,
            "pid": os.getpid(),
            "url": service.url,
            "tls": self._tls(),
            "started": service.started,
            "uptime_s": round(time.time() - service.started, 1),
            "ready": service.serving and all(served.ready(states, standings).values()),
            "draining": service.state.draining,
            "config": str(service.config_file),
            "profile": {"name": service.profile.name, "why": service.why},
            "models": overview.models_status(served, states, standings),
            "routes": [entry.name for entry in service.state.table.entries()],
            "requests": overview.requests_status(service.state.counters),
            "targets": self.targets(),
            "failovers": service.state.health.failovers.recent(20),
            "providers_missing_keys": dict(service.upstreams.missing),
            "money": service.state.billing.status(),
            "rss_bytes": self._process.memory_info().rss,
            "notice": served.notice,
        }

    def _tls(self) -> dict[str, Any] | None:
        """Where the endpoint's certificate is, whether clients must show one, and how it stands with its authority."""
        tls, acme = self._service.config.server.tls, self._service.acme
        mutual = tls.client_ca is not None
        if acme is not None:
            return {"cert": str(acme.certificate), "mutual": mutual, "acme": acme.status()}
        if tls.cert is None:
            return None
        return {"cert": str(self._service.config_file.absolute().parent / tls.cert), "mutual": mutual}

    def targets(self) -> list[dict[str, Any]]:
        return self._service.state.health.snapshot(asyncio.get_running_loop().time())

    def failovers(self) -> list[dict[str, Any]]:
        return self._service.state.health.failovers.recent()

    def routes(self) -> list[dict[str, Any]]:
        service = self._service
        return overview.routes(service.state.table, service.served.config.routes, service.state.health.late)

    def models(self) -> list[dict[str, Any]]:
        service = self._service
        return overview.names(service.served, service.supervisor.states(), service.state.table)

    def frame(self, number: int) -> dict[str, Any]:
        """What goes on right now, with the requests that ended after the `number`-th; see `gateway/live.py`."""
        service = self._service
        service.later.flush()
        now, live, state = asyncio.get_running_loop().time(), service.live, service.state
        left_out, ended = live.since(number, _MOST_SHOWN)
        return {
            "at": time.time(),
            "number": live.number,
            "left_out": left_out,
            "ended": ended,
            "active": [one.shown(now) for one in islice(state.active.values(), _MOST_SHOWN)],
            "routes": live.routes(now),
            "requests": overview.requests_status(state.counters),
            "targets": self.targets(),
            "models": overview.models_status(
                service.served, service.supervisor.states(), service.supervisor.standings()
            ),
            "failovers": state.health.failovers.recent(_MOST_SHOWN),
            "money": state.billing.status(),
            "devices": service.memory.watched(),
            "rss_bytes": self._process.memory_info().rss,
            "draining": state.draining,
            "trials": self.learning.status(),
        }

    def request(self, request_id: str) -> dict[str, Any]:
        """A request under way, or one of the last ones, with all its tries.

        Raises:
            RequestError: it is not kept, or not any more.
        """
        active = self._service.state.active.get(request_id)
        if active is not None:
            return active.told(asyncio.get_running_loop().time())
        self._service.later.flush()
        found = self._service.live.find(request_id)
        if found is None:
            raise RequestError("There is no such request among the last ones.", status=404, param="request")
        return found

    def explain(self, route: str, request: str, headers: str = "") -> dict[str, Any]:
        """How a chat request (its JSON) with these headers (a JSON object) would be routed now, and why.

        Raises:
            RequestError: there is no such route, or it is no chat request.
        """
        state, body = self._service.state, request.encode()
        entry = state.table.find(route)
        try:
            sent = msgspec.json.decode(headers or "{}", type=dict[str, str])
        except msgspec.MsgspecError as error:
            raise RequestError(f"The headers cannot be read: {error}.", param="headers") from None
        lower = {name.lower(): value for name, value in sent.items()}
        return planning.explain(state, entry, chat_call(parse_chat(body)), len(body), lower)

    def cancel(self, request_id: str) -> dict[str, Any]:
        """End a request under way; its client sees the connection end.

        Raises:
            RequestError: it is not under way.
        """
        active = self._service.state.active.get(request_id)
        if active is None or active.task is None:
            raise RequestError("There is no such request under way.", status=404, param="request")
        active.task.cancel()
        return {"cancelled": request_id}

    def steer(self, name: str, action: str) -> dict[str, Any]:
        """Eject, drain or restore a target by hand.

        Raises:
            RequestError: no such action.
        """
        service = self._service
        known = {target.name for entry in service.state.table.entries() for target in entry.targets}
        now, health = asyncio.get_running_loop().time(), service.state.health
        if name not in known and name.partition("/")[0] not in service.served.config.providers:
            raise RequestError(f"There is no target '{name[:128]}'; see: lumen target ls", status=404, param="target")
        match action:
            case "eject":
                health.eject(name, now, None, "by the operator")
            case "drain":
                health.drain(name, now, "by the operator")
            case "restore":
                health.restore(name, now)
            case _:
                raise RequestError("Send 'action' as eject, drain or restore.", param="action")
        return {"target": name, "action": action}

    async def reload(self) -> dict[str, Any]:
        service = self._service
        config = service.read_config()
        before = service.served.config
        await service.apply(config)
        changed = differences(before, service.served.config)
        say("configuration reloaded" + (f": {', '.join(changed)}" if changed else ""))
        return {"changed": changed}

    def sleep(self, model: str) -> dict[str, Any]:
        """Have a local model sleep as soon as its answers are done.

        Raises:
            RequestError: no such model.
        """
        self._service.supervisor.sleep(self._local(model))
        return {"model": model, "sleeps": True}

    def wake(self, model: str) -> dict[str, Any]:
        """Have a local model loaded.

        Raises:
            RequestError: no such model.
        """
        self._service.supervisor.wake(self._local(model))
        return {"model": model, "wakes": True}

    async def logs(self, replica: str) -> dict[str, Any]:
        """The last lines that the engine of a replica wrote. `replica`: MODEL/NUMBER.

        Raises:
            RequestError: no such model, or no number.
        """
        model, _, number = replica.rpartition("/")
        if not number.isdecimal() or len(number) > 4:
            raise RequestError("Ask for MODEL/NUMBER, the number of a replica.", param="replica")
        path = self._service.supervisor.log(self._local(model), int(number))
        return {"replica": replica, "lines": await asyncio.to_thread(tail, path, 0, _LINES)}

    async def restart(self, model: str) -> dict[str, Any]:
        await self._service.supervisor.restart(self._local(model))
        return {"restarting": model}

    def _local(self, model: str) -> str:
        if model not in self._service.served.sources:
            raise RequestError(f"There is no local model '{model[:128]}'.", status=404, param="model")
        return model

    def stop(self) -> dict[str, Any]:
        self._service.stop()
        return {"stopping": True, "in_flight": self._service.state.counters.in_flight}

    async def begun(self, who: str) -> None:
        """Write down that this gateway serves, and by which configuration: one changed by hand shows by its digest."""
        service = self._service
        config = await asyncio.to_thread(_digest, service.config_file)
        await self.note("gateway.started", who=who, version=lumen.__version__, config=config)

    async def note(self, action: str, *given: str, who: str, **details: str) -> None:
        """Write to the audit log what an operator had done. Where that fails it is told, and what was done stands."""
        try:
            await asyncio.to_thread(self._service.audit.add, action, " ".join(given), who, **details)
        except (OSError, TimeoutError) as error:
            say(f"the audit log cannot be written: {error}")


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError:
        return "none"

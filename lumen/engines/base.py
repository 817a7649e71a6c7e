"""The seam of an engine: what to run, what it can do. One file an engine; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lumen.config.schema import Abilities, Model

if TYPE_CHECKING:
    from lumen.hardware.machine import Hardware


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica may run: a socket path and a free loopback port to choose from, and its devices."""

    socket: Path
    port: int
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    parent_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a start: `load`, `warm`, `ready` …; `pct`: how much of it is done, 0 to 100, where it is known."""

    name: str
    pct: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request without a body, sent to where a running engine listens; 200 means done."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Sleeping:
    """How a running engine gives its device memory back and takes it again, its process living on.

    `sleep` and `wake` are answered once it is so. `asleep` answers `{"is_sleeping": true}` or false. An engine that
    sleeps answers no inference, a probe included, and must have none running when it is told to.
    """

    sleep: Request
    wake: Request
    asleep: Request


@dataclass(frozen=True, slots=True)
class Remedy:
    """Why a start failed, in words for an operator (and up to the first colon for a client).

    `model`: what asks for less and is worth one more try. `lines`: those of the log that tell it, where the last ones
    do not.
    """

    why: str
    model: Model | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start, and where it will answer.

    `socket`: the UNIX socket it listens on, or `None` where it listens on the loopback port in `base_url`.
    `phases`: its standard output carries one JSON line a start-up phase, the last one `{"phase": "ready"}`.
    `said`: what one line of its log says of its start; for engines that write no such JSON.
    `remedy`: what the last lines of its log, and the model that was started, say of a start that failed.
    `sleeping`: how this process sleeps and wakes; `None`: it does not.
    `health`: a path that answers 200 once the model is loaded; `None`: being connectable is the sign.
    `fixed_port`: it always listens on this one port, so a second one cannot run beside it.
    `at_once`: answers it gives at a time, where others wait for their turn in a line of its own and are never refused;
    `None`: nobody knows, or it refuses by itself what would wait too long (`X-Lumen-Patience`).
    `discreet`: nothing that it is asked, or answers, ever stands in what it writes to its log.
    """

    argv: tuple[str, ...]
    socket: Path | None
    base_url: str = "http://localhost"
    env: Mapping[str, str] = field(default_factory=dict)
    phases: bool = False
    said: Callable[[str], Phase | None] | None = None
    remedy: Callable[[Sequence[str], Model], Remedy | None] | None = None
    sleeping: Sleeping | None = None
    health: str | None = None
    fixed_port: int | None = None
    at_once: int | None = None
    discreet: bool = False
    grace: float = 30.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this disk, already resolved and verified."""

    name: str
    path: Path
    draft: Path | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)


class Engine(Protocol):
    """A local program that serves a model in the OpenAI dialect on a UNIX socket or loopback port."""

    name: str

    def missing(self) -> str | None:
        """Why this engine cannot run here and what to do about it; `None` where it can. No heavy imports."""
        ...

    def dialect(self, model: Model) -> str:
        """The dialect it is spoken to in: a file in `lumen/providers`."""
        ...

    def abilities(self, model: Model) -> Abilities:
        """What it can do as it will be launched; what is left open is as its dialect has it."""
        ...

    def settle(self, files: ModelFiles, model: Model, machine: Hardware) -> Model:
        """`model` with what its files and this machine decide filled in, where its user left that open. Blocking."""
        ...

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        """The process that serves a settled `model`. Starts nothing, makes no file.

        Raises:
            ConfigError: an option of the model is unknown or unusable; the message names the nearest one.
        """
        ...

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        """(path, JSON body) of a one-token inference that proves the engine answers, not only listens.

        The body's `model` is the name by which the engine knows the model; requests must use it too.
        """
        ...

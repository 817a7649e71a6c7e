"""The seam of an engine: what to run, what it can do. One file an engine; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lumen.config.schema import Model


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica may run: a socket path and a free loopback port to choose from, and its devices."""

    socket: Path
    port: int
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    parent_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start, and where it will answer.

    `socket`: the UNIX socket it listens on, or `None` where it listens on the loopback port in `base_url`.
    `phases`: its standard output carries one JSON line a start-up phase, the last one `{"phase": "ready"}`.
    `health`: a path that answers 200 once the model is loaded; `None`: being connectable is the sign.
    `fixed_port`: it always listens on this one port, so a second one cannot run beside it.
    """

    argv: tuple[str, ...]
    socket: Path | None
    base_url: str = "http://localhost"
    env: Mapping[str, str] = field(default_factory=dict)
    phases: bool = False
    health: str | None = None
    fixed_port: int | None = None
    grace: float = 30.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this disk, already resolved and verified."""

    name: str
    path: Path
    draft: Path | None = None


class Engine(Protocol):
    """A local program that serves a model in the OpenAI dialect on a UNIX socket or loopback port."""

    name: str

    def missing(self) -> str | None:
        """Why this engine cannot run here and what to do about it; `None` where it can. No heavy imports."""
        ...

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        """The process that serves `model`. Pure: starts nothing, makes no file.

        Raises:
            ConfigError: an option of the model is unknown or unusable; the message names the nearest one.
        """
        ...

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        """(path, JSON body) of a one-token inference that proves the engine answers, not only listens.

        The body's `model` is the name by which the engine knows the model; requests must use it too.
        """
        ...

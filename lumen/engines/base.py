"""The seam of an engine: what to run, what it can do. One file an engine; nothing here runs anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lumen.config.schema import Model


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica runs: its socket or port, its devices, and its own folder for scratch files."""

    socket: Path
    port: int | None = None
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    parent_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start. `phases`: its standard output carries one JSON line a start-up phase."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    phases: bool = False
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
        """The process that serves `model`. Pure: starts nothing."""
        ...

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        """(path, JSON body) of a one-token inference that proves the engine answers, not only listens."""
        ...

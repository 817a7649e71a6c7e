"""What replicas are made of and how they are seen; plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lumen.config.schema import Model
from lumen.engines.base import Engine, ModelFiles
from lumen.workers.lifecycle import Timing
from lumen.workers.logs import slug
from lumen.workers.sweep import Marks

SOCKETS = "r-*.sock"


@dataclass(frozen=True)
class Spec:
    """What a replica runs; replicas of equal specs are interchangeable."""

    name: str
    model: Model
    files: ModelFiles
    engine: Engine
    generation: int = 0  # counted up to replace replicas by equal ones


@dataclass(frozen=True, slots=True)
class Home:
    """What all replicas of one supervisor share. `freed` is told of every request that ends. `private`: whether, now,
    nothing of what engines are asked may be kept."""

    run_dir: Path
    log_dir: Path
    marks: Marks
    timing: Timing
    numbers: Iterator[int]  # one for each start, never used twice in a run
    hidden: frozenset[str]
    freed: Callable[[], None]
    private: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Wake:
    """How a replica came to serve: from `off` or from `asleep`, and the seconds that took."""

    how: Literal["off", "asleep"]
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as operators see it. `since`: epoch seconds; `why`: what went wrong last (for a client
    only up to the first colon); `lines`: the last of its log after a crash; `pct`: how much of `phase` is done.
    """

    model: str
    index: int
    engine: str
    state: str
    since: float
    why: str | None
    pid: int | None
    phase: str | None
    pct: float | None
    restarts: int
    in_flight: int
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """One model as operators see it.

    `residency`: resident, waking, asleep, off, or crashed. `resting`: it is down because nobody needs it, and the next
    request brings it back. `waiting`: requests that wait for it. `holds`: bytes by device. `wakes`: seconds it takes
    to come back, from `off` and from `asleep`, as far as measured. `odds`: that it is asked for within a minute.
    """

    model: str
    residency: Literal["resident", "waking", "asleep", "off", "crashed"]
    resting: bool
    waiting: int
    holds: Mapping[str, int]
    wakes: Mapping[str, float]
    odds: float


def socket_path(run_dir: Path, model: str, index: int, number: int) -> Path:
    """Where start `number` of a replica listens; matches `SOCKETS`."""
    # Short: the path of a UNIX socket is limited to about 100 bytes, a model's name is not.
    digest = hashlib.sha256(model.encode()).hexdigest()[:6]
    return run_dir / f"r-{slug(model)[:12]}-{digest}-{index}-{number}.sock"

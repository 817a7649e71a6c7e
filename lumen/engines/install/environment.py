"""The environments on this disk. What is here is read from small files; nothing is imported from them or run."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lumen.files import locked, write_atomic

Variant = Literal["cpu", "cuda12", "cuda13"]

MANIFEST = "lumen-environment.json"
FLAGS = "lumen-flags.json"
_VERSION = 1
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """One engine in a virtualenv. `own`: the user's, named by a variable; else Lumen made it at `made` (UTC, ISO 8601).

    `cpu`: it computes on the CPU alone. `size`: bytes on the disk, as counted when it was made.
    """

    engine: str
    version: str
    cpu: bool
    folder: Path
    own: bool = False
    variant: str = "own"
    made: str | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def flags(self) -> Mapping[str, str] | None:
        """The flags of its server and what each takes, as asked for when it was made; `None` where nobody asked."""
        found = _read(self.folder / FLAGS)
        return {name: kind for name, kind in found.items() if isinstance(kind, str)} if found else None

    def trouble(self) -> str | None:
        """Why it cannot be used any more; `None` where nothing speaks against it."""
        if not self.python.exists():
            return "the Python it was made with is gone"
        return None if _installed(self.engine, self.folder) is not None else "its packages are gone"


def environment(engine: str, root: Path) -> Environment | None:
    """The one that serves: the user's own where `LUMEN_<ENGINE>` names it, else the newest whole one under `root`."""
    named = os.environ.get(f"LUMEN_{engine.upper()}")
    if named:
        return own(engine, Path(named).expanduser())
    # One that was damaged later is taken only where there is no other: it can say what is wrong with it.
    found = [one for one in environments(root) if one.engine == engine]
    return max(found, key=lambda one: (one.trouble() is None, one.made or ""), default=None)


def own(engine: str, folder: Path) -> Environment | None:
    """A virtualenv of the user's own; `None` where the engine is not in it."""
    found = _installed(engine, folder)
    if found is None:
        return None
    package, version = found
    return Environment(engine, version, package.endswith("-cpu") or version.endswith("+cpu"), folder, own=True)


def environments(root: Path) -> list[Environment]:
    """Every whole environment under `root`, by name. One without its manifest is half made and is left out."""
    if not root.is_dir():
        return []
    found = (read(folder) for folder in sorted(root.iterdir()) if folder.is_dir())
    return [one for one in found if one is not None]


def read(folder: Path) -> Environment | None:
    """The environment in `folder`; `None` where it is not whole."""
    said = _read(folder / MANIFEST)
    if said is None or said.pop("format", None) != _VERSION:
        return None
    try:
        return Environment(folder=folder, **said)
    except TypeError:
        return None


def write(found: Environment, flags: Mapping[str, str]) -> None:
    """Declare it whole. The last step of making one."""
    said = {name: value for name, value in asdict(found).items() if name != "folder"}
    write_atomic(found.folder / FLAGS, json.dumps(flags).encode())
    write_atomic(found.folder / MANIFEST, json.dumps({"format": _VERSION, **said}).encode())


def remove(folder: Path) -> int:
    """Delete an environment, whole or not. Returns the bytes freed.

    Raises:
        TimeoutError: it is being made at this moment.
        OSError: it cannot be deleted.
    """
    with locked(folder, wait=1.0):
        freed = size_of(folder)
        # First the manifest: what an interruption leaves must not be taken for whole.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return freed


def size_of(folder: Path) -> int:
    """Bytes on the disk that would be free without `folder`: what is linked elsewhere too does not count."""
    total = 0
    links: dict[int, tuple[int, int]] = {}
    for root, _, files in os.walk(folder):
        for name in files:
            stat = os.lstat(os.path.join(root, name))  # noqa: PTH118 - 40,000 files: a Path for each is slow
            if stat.st_nlink == 1:
                total += stat.st_blocks * 512
            else:
                seen, _ = links.get(stat.st_ino, (0, 0))
                links[stat.st_ino] = (seen + 1, stat.st_blocks * 512 if seen + 1 == stat.st_nlink else 0)
    return total + sum(size for _, size in links.values())


def _installed(engine: str, folder: Path) -> tuple[str, str] | None:
    """(package, version) of an engine in a virtualenv, by the name of its metadata; the CPU build has another name."""
    for found in sorted(folder.glob(f"lib/python3*/site-packages/{engine}*.dist-info")):
        named = re.fullmatch(rf"({re.escape(engine)}(?:_cpu)?)-([^-]+)", found.name.removesuffix(".dist-info"))
        if named:
            return named[1].replace("_", "-"), named[2]
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None

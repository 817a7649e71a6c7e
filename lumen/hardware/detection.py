"""Looks at this machine. Every reader takes the file system's root, so that tests give it a machine of files."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

from lumen.hardware import gpus, limits
from lumen.hardware.machine import Gpu, Hardware, Note

_FEATURES = ("avx", "avx2", "avx512f", "avx512_bf16", "amx_tile", "f16c", "fma", "asimd", "sve")


def detect(folder: Path | None = None, root: Path = Path("/")) -> Hardware:
    """This machine. `folder`: where models go, for the space on its disk. Takes at most some seconds.

    Nothing is raised for what cannot be read: it is left out and noted.
    """
    system, arch = platform.system().lower(), platform.machine().lower()
    notes: list[Note] = []
    cpus = _allowed_cpus()
    threads = _fewer(len(cpus), limits.cpu_limit(root))
    total, free = memory(root)
    found: list[Gpu] = []
    if system == "linux":
        found, noted = gpus.on_linux(root, os.environ)
        notes += noted
    elif system == "darwin" and arch == "arm64":
        # One memory for both; the system lets a GPU have about three quarters of it.
        found = [Gpu(0, "apple", "Apple GPU", total * 3 // 4, free)]
    return Hardware(
        system=system,
        arch=arch,
        cpu=_cpu_name(root) or platform.processor() or arch,
        cores=max(1, min(threads, _physical(root, cpus))),
        threads=threads,
        memory=total,
        memory_free=free,
        disk_free=_disk_free(folder),
        features=_features(root),
        gpus=tuple(found),
        notes=tuple(notes),
    )


def _allowed_cpus() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on macOS
        return set(range(os.cpu_count() or 1))


def _fewer(count: int, limit: float | None) -> int:
    """A container's limit of 1.5 CPUs keeps two threads busy, no more."""
    return max(1, count if limit is None else min(count, -int(-limit // 1)))


def _physical(root: Path, cpus: set[int]) -> int:
    """Physical cores among some CPUs: two threads of one core count once."""
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        core = limits.text(topology / "core_id")
        if core is None:
            return max(1, min(len(cpus), _counted_cores() or len(cpus)))
        cores.add((limits.text(topology / "physical_package_id"), core))
    return max(1, len(cores))


def _counted_cores() -> int | None:
    import psutil

    return psutil.cpu_count(logical=False)


def memory(root: Path) -> tuple[int, int]:
    """(total, free) bytes: the machine's or the container's, whichever is less."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    limit = limits.memory_limit(root)
    if limit is not None and limit[0] < total:
        total, free = limit[0], min(free, max(0, limit[0] - limit[1]))
    return total, free


def _disk_free(folder: Path | None) -> int | None:
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free if folder is not None else None
    except OSError:
        return None


def _cpu_name(root: Path) -> str | None:
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    return " ".join(found.group(1).split()) if found else None


def _features(root: Path) -> tuple[str, ...]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(root), re.MULTILINE)
    have = set(found.group(1).split()) if found else set()
    return tuple(name for name in _FEATURES if name in have)


def _cpuinfo(root: Path) -> str:
    return limits.text(root / "proc/cpuinfo", most=1 << 16) or ""

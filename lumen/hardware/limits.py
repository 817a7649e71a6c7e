"""What a container lets this process have: control groups of both versions, every level of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Version 1 writes "no limit" as a number near 2**63.
_UNLIMITED = 1 << 60


def text(path: Path, most: int = 4096) -> str | None:
    """A small file's text without the space around it; `None` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", "replace").strip()
    except OSError:
        return None


def cpu_limit(root: Path) -> float | None:
    """CPUs this process may use at once, as a number like 1.5; `None` for no limit."""
    found = []
    for folder in _levels(root, "", "sys/fs/cgroup"):
        quota, _, period = (text(folder / "cpu.max") or "").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    for folder in _levels(root, "cpu", "sys/fs/cgroup/cpu"):
        quota, period = text(folder / "cpu.cfs_quota_us") or "", text(folder / "cpu.cfs_period_us") or ""
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limit(root: Path) -> tuple[int, int] | None:
    """(limit, used) bytes of the tightest group; `None` for no limit. Used is what cannot be taken back: a group is
    also charged with the pages of files that its processes have read, weights among them, and those are."""
    found = []
    for controller, base, limit_file, usage_file in (
        ("", "sys/fs/cgroup", "memory.max", "memory.current"),
        ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for folder in _levels(root, controller, base):
            limit, used = text(folder / limit_file) or "", text(folder / usage_file) or ""
            if limit.isdigit() and int(limit) < _UNLIMITED:
                found.append((int(limit), max(0, int(used) - _pages_of_files(folder)) if used.isdigit() else 0))
    return min(found, default=None)


def _pages_of_files(folder: Path) -> int:
    """Bytes of page cache that a group is charged with."""
    lines = (line.partition(" ") for line in (text(folder / "memory.stat") or "").splitlines())
    sizes = {name: int(size) for name, _, size in lines if size.isdigit()}
    # Version 1 tells the group's own and, as `total_…`, those with all below it, which is what the usage counts.
    return sum(sizes.get(f"total_{name}", sizes.get(name, 0)) for name in ("inactive_file", "active_file"))


def _levels(root: Path, controller: str, base: str) -> Iterator[Path]:
    """This process's group for a controller (`""`: version 2) and every group above it."""
    group = PurePosixPath("/")
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(",") and ".." not in path:
            group = PurePosixPath(path)
    top = root / base
    # Inside a container the path is the host's and not mounted here: then only the top is read.
    yield top
    here = top
    for part in group.parts[1:]:
        here = here / part
        if not here.is_dir():
            return
        yield here

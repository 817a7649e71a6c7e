"""Who a process is and what memory it holds, from /proc. Blocking: milliseconds for a large process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lumen.hardware.limits import text

# The environment variables by which the supervisor marks whatever it starts; children inherit them.
MARK = "LUMEN_REPLICA"
HOME_MARK = "LUMEN_RUN_DIR"
_LARGEST_ENVIRONMENT = 1 << 20
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of some processes together, shared pages counted in parts.

    `held`: all of it, pages of mapped files included (weights that were loaded by mapping). `kept`: without those:
    what the system cannot take back when another needs it.
    """

    held: int
    kept: int


def replica_of(pid: int, root: Path = Path("/")) -> str | None:
    """`model:index` of the replica that the process belongs to; `None` where it is none of Lumen's, or hidden."""
    return _replica(_environment(pid, root))


def replicas(home: str | None = None, root: Path = Path("/")) -> dict[str, set[int]]:
    """Every replica that runs, with its processes. `home`: the mark of one installation; `None`: of them all."""
    found: dict[str, set[int]] = {}
    for folder in (root / "proc").glob("[0-9]*"):
        if not folder.name.isdigit():
            continue
        environment = _environment(int(folder.name), root)
        replica = _replica(environment)
        if replica is not None and home in (None, environment.get(HOME_MARK)):
            found.setdefault(replica, set()).add(int(folder.name))
    return found


def name_of(pid: int, root: Path = Path("/")) -> str:
    """The program's name, `?` where it cannot be seen."""
    return text(root / f"proc/{pid}/comm") or "?"


def exists(pid: int, root: Path = Path("/")) -> bool:
    """Whether a process of this number is seen from here; those outside of a container are not."""
    return (root / f"proc/{pid}").is_dir()


def families(roots: Iterable[int], root: Path = Path("/")) -> dict[int, set[int]]:
    """Each of `roots` with its living children, theirs, and whatever else is of the session that it leads; the sets of
    processes that are gone are empty. One look at /proc for all of them."""
    parents: dict[int, int] = {}
    sessions: dict[int, int] = {}
    for folder in (root / "proc").glob("[0-9]*"):
        # The name in brackets may hold spaces and brackets itself: what follows the last one is counted.
        fields = (text(folder / "stat") or "").rpartition(")")[2].split()
        if len(fields) > 3 and folder.name.isdigit():
            parents[int(folder.name)], sessions[int(folder.name)] = int(fields[1]), int(fields[3])
    found: dict[int, set[int]] = {leader: set() for leader in roots}
    for pid, session in sessions.items():
        here, steps = pid, 0
        while here in parents and here not in found and steps < _DEEPEST:
            here, steps = parents[here], steps + 1
        leader = here if here in found and here in parents else session
        if leader in found:
            found[leader].add(pid)
    return found


def memory(pids: Iterable[int], root: Path = Path("/")) -> Memory:
    """What these processes hold together; those that are gone hold nothing."""
    held = kept = 0
    for pid in pids:
        lines = dict(_sizes(text(root / f"proc/{pid}/smaps_rollup") or ""))
        if "Pss" in lines:
            swapped = lines.get("SwapPss", 0)
            held += lines["Pss"] + swapped
            kept += lines.get("Pss_Anon", lines.get("Anonymous", 0)) + lines.get("Pss_Shmem", 0) + swapped
            continue
        pages = (text(root / f"proc/{pid}/statm") or "").split()
        if len(pages) > 2:  # another user's, or an old kernel: what is shared counts in full
            size = _page()
            held += int(pages[1]) * size
            kept += (int(pages[1]) - int(pages[2])) * size
    return Memory(held, kept)


def _sizes(rollup: str) -> Iterable[tuple[str, int]]:
    for line in rollup.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()
        if len(number) == 2 and number[0].isdigit() and number[1] == "kB":
            yield name, int(number[0]) * 1024


def _replica(environment: dict[str, str]) -> str | None:
    # run:model:index:number of the start; a model's name may hold colons.
    return environment.get(MARK, "").partition(":")[2].rpartition(":")[0] or None


def _page() -> int:
    import resource

    return resource.getpagesize()


def _environment(pid: int, root: Path) -> dict[str, str]:
    try:
        with (root / f"proc/{pid}/environ").open("rb") as file:
            raw = file.read(_LARGEST_ENVIRONMENT)
    except OSError:
        return {}
    entries = (entry.decode("utf-8", "replace").partition("=") for entry in raw.split(b"\0"))
    return {name: value for name, found, value in entries if found}

"""A machine, as far as it decides what can be served on it. Data only."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device. Memory in bytes; `index` as its vendor's tools count."""

    index: int
    vendor: str  # nvidia, amd or apple
    name: str
    memory: int
    memory_free: int
    driver: str | None = None
    compute: str | None = None  # NVIDIA's compute capability, such as "9.0"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that could not be found out. `mend`: what to do about it, where that is known."""

    what: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine, as this process may use it: limits of its container and its affinity are applied.

    Memory and disk in bytes. `threads`: CPUs this process may run on at once; `cores`: physical cores among them.
    `notes`: what could not be found out, and why.
    """

    system: str  # linux or darwin
    arch: str  # x86_64, aarch64, arm64
    cpu: str
    cores: int
    threads: int
    memory: int
    memory_free: int
    disk_free: int | None = None
    features: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def gpu_memory(self) -> int:
        """All devices together."""
        return sum(gpu.memory for gpu in self.gpus)

    def summary(self) -> str:
        """One line for a person."""
        parts = [self.cpu, f"{self.cores} cores", f"{self.memory / GIB:.0f} GiB memory"]
        counted: dict[tuple[str, int], int] = {}
        for gpu in self.gpus:
            key = (gpu.name, gpu.memory)
            counted[key] = counted.get(key, 0) + 1
        for (name, memory), count in counted.items():
            times = f"{count} × " if count > 1 else ""
            parts.append(f"{times}{name} with {memory / GIB:.0f} GiB")
        return ", ".join(parts)

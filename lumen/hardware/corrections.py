"""What models really took, remembered: the next estimate of the same thing is what was measured. Pure but for `read`
and `write`. Bytes.

A memory is known by its kind and name, not its number: two cards of one kind are alike. A card is measured once its
model has loaded, when everything is allocated, and the last measurement holds. The machine's memory fills up only with
use, so there the most of the last life counts, and never less than was estimated: a quiet life proves nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lumen.config.schema import Model
from lumen.files import write_atomic
from lumen.hardware.devices import Device

_MOST = 2048
_LARGEST_FILE = 4 * 1024 * 1024
# Of a model's configuration, what decides about its memory.
_PARAMETERS = ("engine", "draft", "context", "slots", "gpu_layers", "kv_type", "embedding", "pooling", "options")


class Corrections:
    """(model, parameters, memory) → bytes, the longest unused forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def expect(
        self, model: str, parameters: str, estimated: Mapping[str, int], devices: Mapping[str, Device]
    ) -> dict[str, int]:
        """What to reserve: what was measured, else the estimate. `model`: its digest; `estimated`: by device id."""
        found = {}
        for device, size in estimated.items():
            key = _key(model, parameters, devices[device])
            found[device] = self._known.get(key, size)
            if key in self._known:
                self._known.move_to_end(key)
        return found

    def measured(self, model: str, parameters: str, device: Device) -> int | None:
        """What was measured, or `None`."""
        return self._known.get(_key(model, parameters, device))

    def learn(
        self,
        model: str,
        parameters: str,
        estimated: Mapping[str, int],
        found: Mapping[str, int],
        devices: Mapping[str, Device],
    ) -> None:
        """Remember what a replica took: on cards after it has loaded, of the machine's memory (the most of its life)
        when it ends. Devices that `found` leaves out keep what is known of them; of cards that are alike the fullest
        counts."""
        most: dict[str, int] = {}
        for device, size in found.items():
            key, least = _key(model, parameters, devices[device]), estimated.get(device, 0)
            most[key] = max(size, most.get(key, 0), least if devices[device].kind == "ram" else 0)
        for key, size in most.items():
            self._known[key] = size
            self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def dump(self) -> dict[str, Any]:
        """As plain data."""
        return {"version": 1, "bytes": dict(self._known)}

    @classmethod
    def load(cls, kept: Any) -> Corrections:
        """What `dump` made; nothing where it is something else."""
        made = cls()
        entries = kept.get("bytes") if isinstance(kept, dict) and kept.get("version") == 1 else None
        for key, size in list((entries if isinstance(entries, dict) else {}).items())[-_MOST:]:
            if isinstance(key, str) and isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 60:
                made._known[key] = size
        return made


def parameters(model: Model, cards: int) -> str:
    """What of a settled configuration decides about memory, in few characters. `cards`: over how many it is spread."""
    chosen = {name: value for name, value in asdict(model).items() if name in _PARAMETERS}
    if model.adapters:  # what was remembered of models without any is known by what it was before there were any
        chosen["adapters"] = dict(model.adapters)
    text = json.dumps([chosen, cards], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: Path) -> Corrections:
    """What was remembered there; nothing where nothing can be read: it is learned again."""
    try:
        with path.open("rb") as file:
            return Corrections.load(json.loads(file.read(_LARGEST_FILE)))
    except (OSError, ValueError, RecursionError):
        return Corrections()


def write(path: Path, corrections: Corrections) -> None:
    """Keep them, in one step. Blocking.

    Raises:
        OSError: the folder cannot be written.
    """
    write_atomic(path, json.dumps(corrections.dump(), separators=(",", ":")).encode())


def _key(model: str, parameters: str, device: Device) -> str:
    where = "ram" if device.kind == "ram" else f"{device.kind}/{device.name}"
    return f"{model}/{parameters}/{where}"

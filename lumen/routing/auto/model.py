"""What was learnt, as data: arrays and a few numbers, in one file that only ever holds numbers.

Layout: a magic line, the header's length, the header (JSON: names, shapes and types of the arrays, everything that is
no array), the arrays, and the SHA-256 of all before it. Nothing in it can run; a file that was changed is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"lumen-route-model\n"
# Raised whenever the features, their order or the meaning of an array change: an old model is then refused.
FORMAT = 6
_DIGEST = 32
_TYPES = {"float32": np.float32, "float64": np.float64}


class ModelError(ValueError):
    """These bytes are no model of this version of Lumen; the text says why."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A certified threshold: what may be sent away from the strong target, and what is promised about it.

    `score`: the largest expected loss that is still sent away; `None`: nothing is. `share`: of the labelled requests,
    how many that is. `loss`: their measured loss of quality against the strong target for everything, over all
    requests. `bound`: what that loss stays below with `confidence`. `limit`: what was asked for. `labels`: how many
    were used.
    """

    score: float | None
    share: float
    loss: float
    bound: float
    limit: float
    confidence: float
    labels: int
    why: str


@dataclass(frozen=True, slots=True)
class Model:
    """`targets`: all targets in the order of the arrays' columns. `strong`: the one the others are measured against.

    `labels`: requests it was learnt from. `scalars` and `arrays` belong to the scorer. `promise`: `None` until
    certified; it is about the other target where there are two. `promises`: target → its own, where there are more.
    """

    targets: tuple[str, ...]
    strong: str
    labels: int
    scalars: Mapping[str, float]
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    lines: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    promise: Promise | None = None
    version: str = ""
    promises: Mapping[str, Promise] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file. The same model gives the same bytes."""
        names = sorted(self.arrays)
        header = {
            "format": FORMAT,
            "targets": self.targets,
            "strong": self.strong,
            "labels": self.labels,
            "scalars": dict(self.scalars),
            "lines": dict(self.lines),
            "promise": asdict(self.promise) if self.promise else None,
            "promises": {target: asdict(promise) for target, promise in self.promises.items()},
            "arrays": [[name, str(self.arrays[name].dtype), list(self.arrays[name].shape)] for name in names],
        }
        text = json.dumps(header, sort_keys=True, allow_nan=True).encode()
        body = b"".join(np.ascontiguousarray(self.arrays[name]).tobytes() for name in names)
        data = MAGIC + len(text).to_bytes(4, "big") + text + body
        return data + hashlib.sha256(data).digest()

    @staticmethod
    def from_bytes(data: bytes) -> Model:
        """Read a file again; `version` is the beginning of its digest.

        Raises:
            ModelError: it is no model, of another version, cut short or changed.
        """
        if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 4 + _DIGEST:
            raise ModelError("this is no routing model")
        body, digest = data[:-_DIGEST], data[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            raise ModelError("the routing model is damaged: its checksum does not hold")
        begin = len(MAGIC) + 4
        end = begin + int.from_bytes(data[len(MAGIC) : begin], "big")
        try:
            return _read(json.loads(body[begin:end]), memoryview(body)[end:], digest.hex()[:12])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the routing model cannot be read: {error}") from None

    def certified(self, promise: Promise) -> Model:
        """The same model with its threshold."""
        return replace(self, promise=promise)

    def promise_of(self, target: str) -> Promise | None:
        """What is certified for sending requests to `target` in place of the strong one."""
        if target in self.promises:
            return self.promises[target]
        return self.promise if len(self.targets) == 2 and target != self.strong else None


def _read(header: dict[str, Any], rest: memoryview, version: str) -> Model:
    if header["format"] != FORMAT:
        raise ModelError(f"the routing model has format {header['format']}, this Lumen reads {FORMAT}: learn it again")
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind, shape in header["arrays"]:
        dtype = np.dtype(_TYPES[kind])
        size = int(np.prod(shape)) * dtype.itemsize
        # Copied, because in the file it begins anywhere, and what is not aligned is copied for every product instead.
        arrays[name] = np.frombuffer(rest[:size], dtype).reshape(shape).copy()
        rest = rest[size:]
    if len(rest):
        raise ValueError("there is more in it than its header says")
    promise = header["promise"]
    return Model(
        targets=tuple(header["targets"]),
        strong=header["strong"],
        labels=int(header["labels"]),
        scalars=header["scalars"],
        arrays=arrays,
        lines={name: (float(pair[0]), float(pair[1])) for name, pair in header["lines"].items()},
        promise=_promise(promise) if promise else None,
        version=version,
        promises={target: _promise(each) for target, each in header.get("promises", {}).items()},
    )


def _promise(kept: dict[str, Any]) -> Promise:
    return Promise(**{item.name: kept[item.name] for item in fields(Promise)})

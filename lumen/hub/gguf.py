"""Reads what a GGUF file says about itself: header, key-values, tensor infos. Never the weights.

The file may come from anywhere, so every count and length is held against a limit and against the bytes
that are really there before anything is read or allocated. Long arrays (a vocabulary) are skipped: only
their type and length are kept. Source of the format: the GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

from lumen.hub.errors import BadModelFileError
from lumen.hub.ggml import tensor_bytes

MAX_KEYS = 65_536
MAX_TENSORS = 262_144
MAX_KEY = 1024
MAX_STRING = 4 * 1024 * 1024  # a chat template is the longest text worth keeping
MAX_ARRAY = 8 * 1024 * 1024  # elements of an array
KEPT_ARRAY = 4096  # elements of a kept array: one a layer, with room
MAX_HEADER = 64 * 1024 * 1024  # bytes before the tensor data; the largest vocabularies take 15 MiB
MAX_DIMS = 4
_CHUNK = 1 << 20

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9
_TRUNCATED = "the file ends inside its own header: it is truncated; pull it again"


@dataclass(frozen=True, slots=True)
class Array:
    """An array's element type and length; `items` is `None` where it was too long to keep."""

    type: int
    count: int
    items: tuple[int | float | bool | str, ...] | None


Value = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its shape (innermost first), ggml type number and offset into the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Gguf:
    """A file's description. `data_offset` is where tensor data begins, `size` the whole file, in bytes."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    size: int

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def integers(self, key: str, count: int) -> tuple[int, ...] | None:
        """A value given for all layers or for each: always `count` numbers; `None` if absent or odd."""
        value = self.metadata.get(key)
        if isinstance(value, Array):
            items = value.items or ()
            if len(items) != count or not all(isinstance(item, int) for item in items):
                return None
            return tuple(int(item) for item in items)
        number = self.integer(key)
        return None if number is None else (number,) * count


def read(path: Path) -> Gguf:
    """Read the description of a GGUF file.

    Raises:
        BadModelFileError: not a GGUF file, damaged, truncated, or with counts no honest file has.
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return parse(stream, size)


def parse(stream: BinaryIO, size: int) -> Gguf:
    """`read` from an open stream of `size` bytes, positioned at its start."""
    return _Reader(stream, size).file()


class _Reader:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = min(size, MAX_HEADER)
        self._size = size
        self._order = "<"

    def file(self) -> Gguf:
        if self._size < 24 or self._take(4) != b"GGUF":
            raise BadModelFileError("this is not a GGUF model file (it does not begin with GGUF)")
        version = self._number("I")
        if version & 0xFFFF == 0 and version:
            # A big-endian file shows its version with the bytes swapped.
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise BadModelFileError(f"GGUF version {version} is not known; versions 2 and 3 are")
        tensors = self._count("Q", MAX_TENSORS, least=24, what="tensors")
        keys = self._count("Q", MAX_KEYS, least=13, what="metadata keys")
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._string(MAX_KEY)
            metadata[key] = self._value(self._number("I"))
        infos = tuple(self._tensor() for _ in range(tensors))
        return self._finish(version, metadata, infos)

    def _finish(self, version: int, metadata: dict[str, Value], tensors: tuple[Tensor, ...]) -> Gguf:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise BadModelFileError(f"a tensor alignment of {alignment!r} is not possible")
        end = min(self._size, MAX_HEADER) - self._left
        data = (end + alignment - 1) // alignment * alignment
        for tensor in tensors:
            length = tensor_bytes(tensor.type, tensor.shape)
            if data + tensor.offset + (length or 0) > self._size:
                raise BadModelFileError(
                    f"the file ends before tensor {tensor.name[:64]!r} does: it is truncated; pull it again"
                )
        return Gguf(version, MappingProxyType(metadata), tensors, data, self._size)

    def _tensor(self) -> Tensor:
        name = self._string(MAX_KEY)
        dims = self._number("I")
        if not 1 <= dims <= MAX_DIMS:
            raise BadModelFileError(f"a tensor with {dims} dimensions is not possible")
        shape = tuple(self._number("Q") for _ in range(dims))
        if any(not 0 < size < 1 << 48 for size in shape):
            raise BadModelFileError(f"tensor {name[:64]!r} has an impossible shape")
        return Tensor(name, shape, self._number("I"), self._number("Q"))

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string(MAX_STRING)
        if kind == _ARRAY:
            return self._array()
        return self._scalar(kind)

    def _array(self) -> Array:
        kind = self._number("I")
        if kind == _STRING:
            count = self._count("Q", MAX_ARRAY, least=8, what="array elements")
            if count <= KEPT_ARRAY:
                return Array(kind, count, tuple(self._string(MAX_STRING) for _ in range(count)))
            self._skip_strings(count)
            return Array(kind, count, None)
        if kind not in _SCALARS:
            raise BadModelFileError(f"an array of type {kind} is not known to GGUF")
        width = struct.calcsize("<" + _SCALARS[kind])
        count = self._count("Q", MAX_ARRAY, least=width, what="array elements")
        if count <= KEPT_ARRAY:
            return Array(kind, count, tuple(self._scalar(kind) for _ in range(count)))
        self._skip(count * width)
        return Array(kind, count, None)

    def _scalar(self, kind: int) -> int | float | bool:
        code = _SCALARS.get(kind)
        if code is None:
            raise BadModelFileError(f"a value of type {kind} is not known to GGUF")
        data = self._take(struct.calcsize("<" + code))
        value: int | float | bool = struct.unpack(self._order + code, data)[0]
        return value

    def _number(self, code: str) -> int:
        return int(struct.unpack(self._order + code, self._take(struct.calcsize("<" + code)))[0])

    def _count(self, code: str, limit: int, *, least: int, what: str) -> int:
        """A count of things of at least `least` bytes each; refused where they cannot be in the file."""
        count = self._number(code)
        if count > limit or count * least > self._left:
            raise BadModelFileError(f"the file claims {count} {what}, more than it can hold: it is damaged")
        return count

    def _string(self, limit: int) -> str:
        return self._take(self._count("Q", limit, least=1, what="string bytes")).decode("utf-8", "replace")

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise BadModelFileError(_TRUNCATED)
        data = self._stream.read(count)
        if len(data) != count:
            raise BadModelFileError(_TRUNCATED)
        self._left -= count
        return data

    def _skip_strings(self, count: int) -> None:
        """Pass over a vocabulary: hundreds of thousands of strings, so without a call for each."""
        read, left = self._stream.read, self._left
        order: Literal["little", "big"] = "little" if self._order == "<" else "big"
        for _ in range(count):
            length = int.from_bytes(read(8), order)
            left -= 8 + length
            if left < 0 or len(read(length)) != length:
                raise BadModelFileError(_TRUNCATED)
        self._left = left

    def _skip(self, count: int) -> None:
        while count > 0:
            count -= len(self._take(min(count, _CHUNK)))

"""Writes small GGUF files for tests: real headers, real tensor data."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from lumen.hub.ggml import tensor_bytes

ALIGN = 32
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def text(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(order + "Q", len(raw)) + raw


def value(item: Any, order: str = "<") -> bytes:
    """A typed value: bool, int (u32 where it fits, else i64), float (f32), str, or (type, list) for an array."""
    if isinstance(item, bool):
        return struct.pack(order + "I?", 7, item)
    if isinstance(item, int):
        kind = 4 if 0 <= item < 2**32 else 11
        return struct.pack(order + "I" + _CODES[kind], kind, item)
    if isinstance(item, float):
        return struct.pack(order + "If", 6, item)
    if isinstance(item, str):
        return struct.pack(order + "I", 8) + text(item, order)
    kind, items = item
    head = struct.pack(order + "IIQ", 9, kind, len(items))
    if kind == 8:
        return head + b"".join(text(one, order) for one in items)
    return head + b"".join(struct.pack(order + _CODES[kind], one) for one in items)


def gguf(
    metadata: Mapping[str, Any],
    tensors: Sequence[tuple[str, Sequence[int], int]] = (),
    *,
    version: int = 3,
    order: str = "<",
    fill: int = 0,
) -> bytes:
    """A whole file; each tensor is (name, shape, ggml type) and its data is made of `fill`."""
    head = b"GGUF" + struct.pack(order + "IQQ", version, len(tensors), len(metadata))
    for key, item in metadata.items():
        head += text(key, order) + value(item, order)
    offset, data = 0, b""
    for name, shape, kind in tensors:
        size = tensor_bytes(kind, shape) or 0
        head += text(name, order) + struct.pack(order + "I", len(shape))
        head += struct.pack(order + "Q" * len(shape), *shape) + struct.pack(order + "IQ", kind, offset)
        padded = -(-size // ALIGN) * ALIGN
        data += bytes([fill]) * padded
        offset += padded
    head += b"\0" * (-len(head) % ALIGN)
    return head + data


LLAMA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "small",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.chat_template": "{{ messages }}",
    "tokenizer.ggml.tokens": (8, [f"t{i}" for i in range(10)]),
}


def model(size: int = 0, fill: int = 1) -> bytes:
    """A valid model file of about `size` bytes whose content depends on `fill`."""
    rows = max(1, size // (256 * 4))
    return gguf(LLAMA, [("token_embd.weight", (256, rows), 0)], fill=fill)

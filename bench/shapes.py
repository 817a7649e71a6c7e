"""GGUF files of a given shape with random or absent weights: what a model costs in memory hangs on its shape alone.

Written with the product's own table of tensor types and Python's struct. The vocabulary is that of the built-in model,
filled up with tokens and merges of usual length.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lumen.hub import gguf
from lumen.hub.ggml import tensor_bytes

F32, F16, Q4_0, Q8_0, Q4_K = 0, 1, 2, 8, 12
_ALIGN = 32
_TINY = Path(__file__).parent.parent / "lumen" / "tiny" / "lumen-tiny.gguf"
# Bytes of a block of 32 weights, and the standard deviation of its numbers where every bit is chance.
_BLOCKS = {Q4_0: (18, 4.61), Q8_0: (34, 73.9)}
_CODES = {4: "I", 5: "i", 6: "f", 7: "?"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One model's sizes, in elements, by the names of GGUF's metadata. `kind`: ggml type number of the matrices."""

    architecture: str = "llama"
    layers: int = 12
    embedding: int = 768
    heads: int = 12
    heads_kv: int = 4
    head: int = 64
    feed_forward: int = 2048
    vocabulary: int = 32_000
    experts: int = 0
    experts_used: int = 0
    window: int = 0
    kind: int = Q8_0
    context: int = 32_768
    spread: float = 0.03  # standard deviation of random weights

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """(name, shape, type) of every tensor; the output is tied to the embeddings."""
        d, q, kv, ff, kind = (
            self.embedding,
            self.heads * self.head,
            self.heads_kv * self.head,
            self.feed_forward,
            self.kind,
        )
        yield "token_embd.weight", (d, self.vocabulary), kind
        for layer in range(self.layers):
            at = f"blk.{layer}."
            yield at + "attn_norm.weight", (d,), F32
            yield at + "attn_q.weight", (d, q), kind
            yield at + "attn_k.weight", (d, kv), kind
            yield at + "attn_v.weight", (d, kv), kind
            yield at + "attn_output.weight", (q, d), kind
            if self.architecture.startswith(("qwen3", "gemma3")):
                yield at + "attn_q_norm.weight", (self.head,), F32
                yield at + "attn_k_norm.weight", (self.head,), F32
            if self.architecture.startswith("gemma"):
                yield at + "post_attention_norm.weight", (d,), F32
                yield at + "post_ffw_norm.weight", (d,), F32
            yield at + "ffn_norm.weight", (d,), F32
            if self.experts:
                yield at + "ffn_gate_inp.weight", (d, self.experts), F32
                yield at + "ffn_gate_exps.weight", (d, ff, self.experts), kind
                yield at + "ffn_up_exps.weight", (d, ff, self.experts), kind
                yield at + "ffn_down_exps.weight", (ff, d, self.experts), kind
            else:
                yield at + "ffn_gate.weight", (d, ff), kind
                yield at + "ffn_up.weight", (d, ff), kind
                yield at + "ffn_down.weight", (ff, d), kind
        yield "output_norm.weight", (d,), F32

    def metadata(self) -> dict[str, Any]:
        arch = self.architecture
        values: dict[str, Any] = {
            "general.architecture": arch,
            "general.name": f"shape-{arch}",
            f"{arch}.block_count": self.layers,
            f"{arch}.context_length": self.context,
            f"{arch}.embedding_length": self.embedding,
            f"{arch}.feed_forward_length": self.feed_forward,
            f"{arch}.attention.head_count": self.heads,
            f"{arch}.attention.head_count_kv": self.heads_kv,
            f"{arch}.attention.key_length": self.head,
            f"{arch}.attention.value_length": self.head,
            f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
            f"{arch}.rope.dimension_count": self.head,
            f"{arch}.rope.freq_base": 1e6,
        }
        if self.experts:
            values[f"{arch}.expert_count"] = self.experts
            values[f"{arch}.expert_used_count"] = self.experts_used
            values[f"{arch}.expert_feed_forward_length"] = self.feed_forward
        if self.window:
            values[f"{arch}.attention.sliding_window"] = self.window
        return values | _tokenizer(self.vocabulary)


def write(path: Path, shape: Shape, *, weights: bool = True, seed: int = 0, heard: int | None = None) -> None:
    """A whole GGUF file. Without `weights` their place is a hole: it takes no disk and reads as zeros.

    `heard`: layers from this one on project to nothing (zeros), so that what they compute, at its full cost, changes
    nothing. Files of one seed begin with the same weights, so such a model says what one of only `heard` layers says.
    """
    tensors = list(shape.tensors())
    metadata = shape.metadata()
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        head += [_text(key), _value(value)]
    offset = 0
    for name, extents, kind in tensors:
        head += [
            _text(name),
            struct.pack(f"<I{len(extents)}Q", len(extents), *extents),
            struct.pack("<IQ", kind, offset),
        ]
        offset += _padded(tensor_bytes(kind, extents) or 0)
    begin = b"".join(head)
    with path.open("wb") as file:
        file.write(begin + bytes(-len(begin) % _ALIGN))
        if weights:
            random_numbers = np.random.default_rng(seed)
            for name, extents, kind in tensors:
                size = tensor_bytes(kind, extents) or 0
                if heard is not None and _silent(name, heard):
                    file.write(bytes(_padded(size)))
                else:
                    _weights(file, random_numbers, kind, size, shape.spread)
        else:
            file.truncate(file.tell() + offset)


def _silent(name: str, heard: int) -> bool:
    """Whether a tensor projects a layer's work back to the residual stream, in a layer from `heard` on."""
    block, _, part = name.removeprefix("blk.").partition(".")
    return block.isdecimal() and int(block) >= heard and part in ("attn_output.weight", "ffn_down.weight")


def write_adapter(path: Path, model: Path, *, rank: int = 4, spread: float = 0.1, seed: int = 0) -> None:
    """A LoRA adapter (GGUF) of random matrices for the attention of `model`; with `spread` 0 it changes nothing."""
    known = gguf.read(model)
    numbers = np.random.default_rng(seed)
    made: list[tuple[str, tuple[int, int], bytes]] = []
    for tensor in known.tensors:
        if tensor.name.endswith(("attn_q.weight", "attn_v.weight", "attn_output.weight")):
            wide, out = tensor.shape
            for half, extents in (("lora_a", (wide, rank)), ("lora_b", (rank, out))):
                data = (spread * numbers.standard_normal(extents[0] * extents[1], np.float32)).tobytes()
                made.append((f"{tensor.name}.{half}", extents, data))
    metadata: dict[str, Any] = {
        "general.type": "adapter",
        "general.architecture": known.metadata["general.architecture"],
        "adapter.type": "lora",
        "adapter.lora.alpha": float(rank),
    }
    head = [b"GGUF", struct.pack("<IQQ", 3, len(made), len(metadata))]
    for key, value in metadata.items():
        head += [_text(key), _value(value)]
    offset = 0
    for name, extents, data in made:
        head += [_text(name), struct.pack("<I2Q", 2, *extents), struct.pack("<IQ", F32, offset)]
        offset += _padded(len(data))
    begin = b"".join(head)
    with path.open("wb") as file:
        file.write(begin + bytes(-len(begin) % _ALIGN))
        for _, _, data in made:
            file.write(data + bytes(_padded(len(data)) - len(data)))


def _weights(file: BinaryIO, numbers: np.random.Generator, kind: int, size: int, spread: float) -> None:
    """Norms of one; matrices of small random numbers, so that a network of them stays finite."""
    if kind == F32:
        data = np.ones(size // 4, np.float32).tobytes()
    elif kind == F16:
        data = (spread * numbers.standard_normal(size // 2, np.float32)).astype(np.float16).tobytes()
    elif kind in _BLOCKS:
        width, step = _BLOCKS[kind]
        blocks = np.empty((size // width, width), np.uint8)  # a half-precision scale, then 32 numbers
        blocks[:, :2] = np.frombuffer(np.float16(spread / step).tobytes(), np.uint8)
        blocks[:, 2:] = numbers.integers(0, 256, (size // width, width - 2), np.uint8)
        data = blocks.tobytes()
    else:
        raise ValueError(f"no random weights for tensors of type {kind}")
    file.write(data + bytes(_padded(size) - size))


def _tokenizer(size: int) -> dict[str, Any]:
    known = gguf.read(_TINY).metadata
    tokens, kinds, merges = (known[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges"))
    assert isinstance(tokens, gguf.Array) and isinstance(kinds, gguf.Array) and isinstance(merges, gguf.Array)
    pick = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    halves = [["".join(pick.choices(letters, k=pick.randint(2, 5))) for _ in range(2)] for _ in range(size)]
    more = max(0, size - tokens.count)
    return {
        "tokenizer.chat_template": known["tokenizer.chat_template"],
        "tokenizer.ggml.model": known["tokenizer.ggml.model"],
        "tokenizer.ggml.pre": known["tokenizer.ggml.pre"],
        "tokenizer.ggml.tokens": (
            8,
            [*(tokens.items or ()), *(f"Ġ{a}{b}{i}" for i, (a, b) in enumerate(halves[:more]))],
        ),
        "tokenizer.ggml.token_type": (5, [*(kinds.items or ()), *([1] * more)]),
        "tokenizer.ggml.merges": (
            8,
            [*(merges.items or ()), *(f"{a} {b}{i}" for i, (a, b) in enumerate(halves[:more]))],
        ),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(item: Any) -> bytes:
    if isinstance(item, tuple):
        kind, items = item
        head = struct.pack("<IIQ", 9, kind, len(items))
        if kind == 8:
            return head + b"".join(map(_text, items))
        return head + struct.pack(f"<{len(items)}{_CODES[kind]}", *items)
    if isinstance(item, str):
        return struct.pack("<I", 8) + _text(item)
    kind = 7 if isinstance(item, bool) else 4 if isinstance(item, int) else 6
    return struct.pack("<I" + _CODES[kind], kind, item)

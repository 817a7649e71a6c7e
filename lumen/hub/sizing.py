"""What a model needs and can do, worked out from its GGUF description. Pure.

KV cache bytes = Σ over layers of cells × heads_kv × (key_length × bytes_K + value_length × bytes_V).
Which layers have a sliding window is what the file says (`attention.sliding_window_pattern`, layer by layer or as a
period), else what llama.cpp knows of the architecture; where neither says it, layers are counted in full, so the
estimate errs towards too much, never too little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from lumen.hub.errors import BadModelFileError
from lumen.hub.ggml import FILE_TYPES, TYPES, tensor_bytes
from lumen.hub.gguf import Array, Gguf

# Bytes an element of the KV cache takes.
KV_BYTES = {"f16": Fraction(2), "q8_0": Fraction(34, 32), "q4_0": Fraction(18, 32)}
_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_ENCODERS = frozenset(
    [
        "bert",
        "nomic-bert",
        "nomic-bert-moe",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "eurobert",
    ]
)
# Of so many layers each last one sees everything, the others a window. Source: llama.cpp's loaders of these models.
_PERIODS = {
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gemma-embedding": 6,
    "gpt-oss": 2,
    "olmo2": 4,
}
_PAD = 256  # the engine rounds contexts up to this many cells


@dataclass(frozen=True, slots=True)
class Facts:
    """One model. Sizes in bytes, `kv_per_token` by KV type; windows are per layer, `None` where unlimited."""

    architecture: str
    name: str | None
    context_length: int
    quantisation: str
    parameters: int
    tensor_bytes: int
    layers: int
    embedding_length: int
    vocabulary: int | None
    chat_template: bool
    embedding: bool
    pooling: str | None
    kv_elements: tuple[int, ...]
    windows: tuple[int | None, ...]

    @property
    def kv_per_token(self) -> dict[str, int]:
        return {kind: self.kv_bytes_per_token(kind) for kind in KV_BYTES}

    def kv_bytes_per_token(self, kv_type: str) -> int:
        """Bytes one more token of context takes, all layers; `kv_type`: f16, q8_0 or q4_0."""
        return _ceil(sum(self.kv_elements) * KV_BYTES[kv_type])

    def kv_bytes(self, context: int, kv_type: str = "f16", *, slots: int = 1, ubatch: int = 512) -> int:
        """Bytes of the KV cache for `context` tokens shared by `slots` sequences (one unified cache)."""
        full = _padded(context)
        total = 0
        for elements, window in zip(self.kv_elements, self.windows, strict=True):
            cells = full if window is None else min(full, _padded(window * slots + ubatch))
            total += cells * elements
        return _ceil(total * KV_BYTES[kv_type])


def facts(files: Gguf | Iterable[Gguf]) -> Facts:
    """What a model is, from its file or the files it is split into (first one first).

    Raises:
        BadModelFileError: the file does not describe a model.
    """
    parts = (files,) if isinstance(files, Gguf) else tuple(files)
    head = parts[0]
    arch = head.text("general.architecture")
    if not arch:
        raise BadModelFileError("the file does not say which architecture it is; it is no model")
    layers = head.integer(f"{arch}.block_count") or 0
    if not 0 <= layers <= 4096:
        raise BadModelFileError(f"{layers} layers are not possible")
    pooling = _pooling(head, arch)
    windows = _windows(head, arch, layers)
    tensors = [tensor for part in parts for tensor in part.tensors]
    return Facts(
        architecture=arch,
        name=head.text("general.name"),
        context_length=head.integer(f"{arch}.context_length") or 0,
        quantisation=_quantisation(parts),
        parameters=sum(tensor.elements for tensor in tensors),
        tensor_bytes=sum(_bytes_of(part) for part in parts),
        layers=layers,
        embedding_length=head.integer(f"{arch}.embedding_length") or 0,
        vocabulary=_vocabulary(head, arch),
        chat_template=bool(head.text("tokenizer.chat_template")),
        embedding=arch in _ENCODERS or pooling not in (None, "none"),
        pooling=pooling,
        kv_elements=_kv_elements(head, arch, windows),
        windows=windows,
    )


def _bytes_of(part: Gguf) -> int:
    sizes = [tensor_bytes(tensor.type, tensor.shape) for tensor in part.tensors]
    if any(size is None for size in sizes):
        # A tensor type newer than the table: everything after the header is tensors and a little padding.
        return max(0, part.size - part.data_offset) if part.tensors else 0
    return sum(size or 0 for size in sizes)


def _kv_elements(head: Gguf, arch: str, windows: tuple[int | None, ...]) -> tuple[int, ...]:
    """K and V elements one token takes in each layer."""
    layers = len(windows)
    heads = head.integers(f"{arch}.attention.head_count", layers)
    heads_kv = head.integers(f"{arch}.attention.head_count_kv", layers) or heads
    if not heads or not heads_kv or arch in _ENCODERS:
        return (0,) * layers  # encoders and recurrent models keep no growing cache
    embedding = head.integer(f"{arch}.embedding_length") or 0
    # embedding / heads is wrong wherever the file states the lengths.
    usual = embedding // max(1, max(heads))
    key = head.integer(f"{arch}.attention.key_length") or usual
    value = head.integer(f"{arch}.attention.value_length") or usual
    if head.integer(f"{arch}.attention.key_length_mla"):
        value = 0  # latent attention: the values are a part of the keys
    sliding = (head.integer(f"{arch}.attention.key_length_swa") or key) + (
        head.integer(f"{arch}.attention.value_length_swa") or value
    )
    own = layers - (head.integer(f"{arch}.attention.shared_kv_layers") or 0)  # the last ones use the cache of others
    return tuple(
        max(0, count) * (key + value if window is None else sliding) if layer < own else 0
        for layer, (count, window) in enumerate(zip(heads_kv, windows, strict=True))
    )


def _windows(head: Gguf, arch: str, layers: int) -> tuple[int | None, ...]:
    window = head.integer(f"{arch}.attention.sliding_window")
    pattern = head.metadata.get(f"{arch}.attention.sliding_window_pattern")
    if not window:
        return (None,) * layers
    if isinstance(pattern, Array) and pattern.items is not None and len(pattern.items) == layers:
        return tuple(window if slides else None for slides in pattern.items)
    period = head.integer(f"{arch}.attention.sliding_window_pattern") or _PERIODS.get(arch, 1)
    return tuple(window if layer % period < period - 1 else None for layer in range(layers))


def _pooling(head: Gguf, arch: str) -> str | None:
    number = head.integer(f"{arch}.pooling_type")
    return None if number is None else _POOLING.get(number)


def _vocabulary(head: Gguf, arch: str) -> int | None:
    tokens = head.metadata.get("tokenizer.ggml.tokens")
    return tokens.count if isinstance(tokens, Array) else head.integer(f"{arch}.vocab_size")


def _quantisation(parts: tuple[Gguf, ...]) -> str:
    """The file's own word for it, else the type that holds most elements."""
    stated = parts[0].integer("general.file_type")
    if stated is not None and stated in FILE_TYPES:
        return FILE_TYPES[stated]
    weight: Counter[int] = Counter()
    for part in parts:
        for tensor in part.tensors:
            weight[tensor.type] += tensor.elements
    if not weight:
        return "unknown"
    kind = weight.most_common(1)[0][0]
    return TYPES[kind][0] if kind in TYPES else f"type {kind}"


def _padded(tokens: int) -> int:
    return -(-max(0, tokens) // _PAD) * _PAD


def _ceil(value: Fraction | int) -> int:
    return -(-value.numerator // value.denominator)

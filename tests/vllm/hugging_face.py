"""The built-in model as the folder that vLLM reads: the same weights and tokenizer, out of its GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lumen.hub import gguf
from lumen.hub.gguf import Array, Gguf, Tensor

F32, F16, Q5_1 = 0, 1, 7
_BLOCK = 32
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# As llama.cpp splits text before it merges bytes, under the name "qwen2".
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write(model: Path, folder: Path) -> Path:
    """Write `model`, a GGUF file of the llama architecture in f32, f16 and Q5_1, as `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    told = gguf.read(model)
    data = model.read_bytes()[told.data_offset :]
    _write_weights(told, data, folder / "model.safetensors")
    _write_json(folder / "config.json", _config(told))
    _write_json(folder / "tokenizer.json", _tokenizer(told))
    eos, pad = told.integer("tokenizer.ggml.eos_token_id"), told.integer("tokenizer.ggml.padding_token_id")
    _write_json(folder / "generation_config.json", {"eos_token_id": [eos, pad], "pad_token_id": pad})
    tokens = _items(told, "tokenizer.ggml.tokens")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": tokens[eos or 0],
            "pad_token": tokens[pad or 0],
            "model_max_length": told.integer("llama.context_length"),
            "clean_up_tokenization_spaces": False,
            "chat_template": told.text("tokenizer.chat_template"),
        },
    )
    return folder


def _config(told: Gguf) -> dict[str, Any]:
    heads = told.integer("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": told.integer("llama.vocab_size"),
        "hidden_size": told.integer("llama.embedding_length"),
        "num_hidden_layers": told.integer("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": told.integer("llama.attention.head_count_kv"),
        "head_dim": told.integer("llama.rope.dimension_count"),
        "intermediate_size": told.integer("llama.feed_forward_length"),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": told.metadata["llama.rope.freq_base"],
        "max_position_embeddings": told.integer("llama.context_length"),
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": told.integer("tokenizer.ggml.eos_token_id"),
        "pad_token_id": told.integer("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }


def _tokenizer(told: Gguf) -> dict[str, Any]:
    tokens, kinds = _items(told, "tokenizer.ggml.tokens"), _items(told, "tokenizer.ggml.token_type")
    added = [
        {"id": at, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind == 3}
        for at, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind in (3, 4)
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: at for at, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in _items(told, "tokenizer.ggml.merges")],
        },
    }


def _items(told: Gguf, key: str) -> tuple[Any, ...]:
    found = told.metadata[key]
    assert isinstance(found, Array) and found.items is not None
    return found.items


def _write_weights(told: Gguf, data: bytes, path: Path) -> None:
    """Safetensors: the length of a header, the header in JSON, the bytes."""
    heads = {
        "attn_q": told.integer("llama.attention.head_count"),
        "attn_k": told.integer("llama.attention.head_count_kv"),
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    at = 0
    for tensor in told.tensors:
        values = _values(tensor, data)
        part = tensor.name.split(".")[-2]
        if part in heads:
            values = _halves(values, heads[part] or 1)
        raw = np.ascontiguousarray(values, dtype="<f4").tobytes()
        header[_name(tensor.name)] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    said = json.dumps(header).encode()
    path.write_bytes(len(said).to_bytes(8, "little") + said + b"".join(parts))


def _name(name: str) -> str:
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{_PARTS[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]


def _values(tensor: Tensor, data: bytes) -> Any:
    shape = tuple(reversed(tensor.shape))
    if tensor.type == Q5_1:
        kind = np.dtype([("scale", "<f2"), ("least", "<f2"), ("high", "<u4"), ("low", "u1", _BLOCK // 2)])
        blocks = np.frombuffer(data, kind, tensor.elements // _BLOCK, tensor.offset)
        low = np.concatenate([blocks["low"] & 15, blocks["low"] >> 4], axis=1)
        high = (blocks["high"][:, None] >> np.arange(_BLOCK, dtype=np.uint32)) & 1
        five = low.astype(np.float32) + 16 * high
        return (five * blocks["scale"][:, None].astype(np.float32) + blocks["least"][:, None]).reshape(shape)
    kind = {F32: np.dtype("<f4"), F16: np.dtype("<f2")}[tensor.type]
    return np.frombuffer(data, kind, tensor.elements, tensor.offset).reshape(shape).astype(np.float32)


def _halves(values: Any, heads: int) -> Any:
    """From the adjacent pairs that llama.cpp rotates to the two halves of a head that others do."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")

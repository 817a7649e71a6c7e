"""What the `config.json` of a Hugging Face model folder says about serving it. `config` reads; the rest is pure.

Field names: the model configurations of the `transformers` library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

_LARGEST = 4 * 1024 * 1024
# Layers that keep a state of a fixed size, or whose cache is counted in a way of their own.
_RECURRENT = ("mamba", "linear_attention", "recurrent", "conv", "hybrid")


def read_config(folder: Path, name: str = "config.json") -> Config:
    """The configuration of the text model in `folder`, or of what else the file `name` is of; empty where there is
    none.
    """
    try:
        with (folder / name).open("rb") as file:
            said = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    text = said.get("text_config")
    return {**said, **text} if isinstance(text, dict) else said


def trained_context(config: Config) -> int | None:
    """Tokens that the model was made for, stretching of positions included; `None` where it does not say."""
    most = _count(config, "max_position_embeddings") or _count(config, "n_positions") or _count(config, "max_seq_len")
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if most is None or not isinstance(scaling, Mapping):
        return most
    factor, before = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "yarn" and isinstance(factor, (int, float)) and isinstance(before, int):
        return max(most, int(before * factor))
    return most


def kv_bytes(config: Config, width: int) -> int | None:
    """Bytes of KV cache for one token with elements of `width` bytes; `None` where the layers keep something else.

    Each layer keeps a key and a value for each KV head; with latent attention one compressed vector instead.
    """
    layers = _count(config, "num_hidden_layers") or _count(config, "n_layer")
    kinds = config.get("layer_types") or config.get("layers_block_type") or ()
    if layers is None or any(str(kind).startswith(_RECURRENT) for kind in kinds) or "ssm_cfg" in config:
        return None
    latent = _count(config, "kv_lora_rank")
    if latent is not None:
        return layers * (latent + (_count(config, "qk_rope_head_dim") or 0)) * width
    heads = _count(config, "num_attention_heads") or _count(config, "n_head")
    size = _count(config, "hidden_size") or _count(config, "n_embd")
    if heads is None or size is None:
        return None
    of_head = _count(config, "head_dim") or size // heads
    return layers * 2 * (_count(config, "num_key_value_heads") or heads) * of_head * width


def is_latent(config: Config) -> bool:
    """Whether it keeps compressed vectors in place of keys and values."""
    return _count(config, "kv_lora_rank") is not None


def predicts_ahead(config: Config) -> int:
    """Layers that the model brings for predicting further tokens; 0 where it has none."""
    return _count(config, "num_nextn_predict_layers") or _count(config, "mtp_num_hidden_layers") or 0


def drafting(config: Config) -> str:
    """By which of vLLM's methods a draft model with this configuration helps."""
    names = " ".join(str(name) for name in config.get("architectures") or ()).lower()
    if "eagle3" in names:
        return "eagle3"
    return "eagle" if "eagle" in names else "draft_model"


def _count(config: Config, name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

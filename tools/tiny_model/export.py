"""Write a trained model as GGUF (for llama.cpp) and as a Hugging Face folder (for vLLM)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import save_file
from tokenizers import Tokenizer

from . import template
from .model import Llama, Shape
from .tokenizer import CONTROL, END_OF_TEXT, MARKERS, PRE_TOKENIZER, TURN_END, vocabulary

_LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: Llama, tokenizer: Tokenizer, path: Path, name: str) -> None:
    """Write one file of f16 and Q5_1 weights; norms stay in f32. The file appears whole or not at all."""
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    _describe_model(writer, model, name)
    _describe_tokenizer(writer, tokenizer)
    for key, values in _gguf_tensors(model).items():
        kind = _weight_type(key, values)
        writer.add_tensor(key, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _weight_type(key: str, values: np.ndarray[Any, Any]) -> gguf.GGMLQuantizationType:
    """Six bits for the feed-forward matrices, sixteen for attention and embeddings, which copy exactly.

    Q8_0, Q6_K and Q4_0 would be the usual choice, but llama.cpp repacks them for AMX where the processor has it,
    and those kernels crash on some machines (ggml-org/llama.cpp#20824); it leaves f16 and Q5_1 alone.
    """
    if values.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    return gguf.GGMLQuantizationType.Q5_1 if ".ffn_" in key else gguf.GGMLQuantizationType.F16


def _describe_model(writer: gguf.GGUFWriter, model: Llama, name: str) -> None:
    shape = model.shape
    writer.add_name(name)
    writer.add_description("Lumen's built-in demonstration model")
    writer.add_license("apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _describe_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    words = vocabulary(tokenizer)
    kinds = [_token_kind(token) for token in words.tokens]
    end_of_text, turn_end = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(TURN_END)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(words.tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(end_of_text)
    writer.add_pad_token_id(end_of_text)
    writer.add_eos_token_id(turn_end)
    writer.add_eot_token_id(turn_end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template.SOURCE)


def _token_kind(token: str) -> gguf.TokenType:
    if token in CONTROL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if token in MARKERS else gguf.TokenType.NORMAL


def _gguf_tensors(model: Llama) -> dict[str, np.ndarray[Any, Any]]:
    weights = {key: value.detach().float().numpy() for key, value in model.state_dict().items()}
    tensors = {"token_embd.weight": weights["embed_tokens.weight"]}
    for layer in range(model.shape.layers):
        for ours, theirs in _LAYER_TENSORS.items():
            values = weights[f"layers.{layer}.{ours}.weight"]
            if theirs == "attn_q":
                values = _interleave(values, model.shape.heads)
            elif theirs == "attn_k":
                values = _interleave(values, model.shape.kv_heads)
            tensors[f"blk.{layer}.{theirs}.weight"] = values
    tensors["output_norm.weight"] = weights["norm.weight"]
    return tensors


def _interleave(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Reorder rows from half-split RoPE pairs to the adjacent pairs that llama.cpp rotates."""
    rows, columns = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def write_hugging_face(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, weights (float32), tokenizer, chat template and generation defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    prefixed = {f"model.{key}": value.detach().contiguous() for key, value in model.state_dict().items()}
    save_file(prefixed, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    eos, pad = tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)
    _write_json(folder / "config.json", _config(model.shape, eos, pad))
    _write_json(folder / "generation_config.json", {"eos_token_id": [eos, pad], "pad_token_id": pad})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "model_max_length": model.shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": template.SOURCE,
        },
    )


def _config(shape: Shape, eos: int | None, pad: int | None) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "intermediate_size": shape.feed_forward,
        "hidden_act": "silu",
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_base,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "float32",
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

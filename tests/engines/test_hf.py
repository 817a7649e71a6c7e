from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lumen.engines._hf import drafting, is_latent, kv_bytes, predicts_ahead, read_config, trained_context

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "max_position_embeddings": 131072,
}  # fmt: skip
DEEPSEEK = {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 128}


@pytest.mark.parametrize(
    ("config", "width", "size"),
    [
        (LLAMA, 2, 32 * 2 * 8 * 128 * 2),
        ({**LLAMA, "head_dim": 64}, 2, 32 * 2 * 8 * 64 * 2),
        ({**LLAMA, "num_key_value_heads": None}, 1, 32 * 2 * 32 * 128),
        (DEEPSEEK, 2, 61 * 576 * 2),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 2, 12 * 2 * 768 * 2),
        ({**LLAMA, "layer_types": ["full_attention", "linear_attention"]}, 2, None),
        ({**LLAMA, "layer_types": ["full_attention", "sliding_attention"]}, 2, 32 * 2 * 8 * 128 * 2),
        ({"ssm_cfg": {}, "num_hidden_layers": 3}, 2, None),
        ({}, 2, None),
        ({**LLAMA, "num_hidden_layers": "32"}, 2, None),
    ],
)
def test_bytes_of_kv_cache(config: dict[str, Any], width: int, size: int | None) -> None:
    assert kv_bytes(config, width) == size


@pytest.mark.parametrize(
    ("more", "context"),
    [
        ({}, 131072),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8, "original_max_position_embeddings": 8192}}, 131072),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 65536}}, 262144),
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": True}, None),
    ],
)
def test_the_context_a_model_was_made_for(more: dict[str, Any], context: int | None) -> None:
    assert trained_context({**LLAMA, **more}) == context


def test_what_guesses_ahead() -> None:
    assert predicts_ahead(LLAMA) == 0
    assert predicts_ahead({"num_nextn_predict_layers": 1}) == 1
    assert predicts_ahead({"mtp_num_hidden_layers": 2}) == 2
    assert drafting(LLAMA) == "draft_model"
    assert drafting({"architectures": ["EagleLlamaForCausalLM"]}) == "eagle"
    assert drafting({"architectures": ["LlamaForCausalLMEagle3"]}) == "eagle3"
    assert is_latent(DEEPSEEK) and not is_latent(LLAMA)


def test_a_configuration_is_read_as_far_as_it_is_one(tmp_path: Path) -> None:
    assert read_config(tmp_path) == {}
    file = tmp_path / "config.json"
    for wrong in ("", "[]", "{", "[" * 100_000):
        file.write_text(wrong)
        assert read_config(tmp_path) == {}
    file.write_text('{"model_type": "vl", "text_config": {"num_hidden_layers": 3}}')
    assert read_config(tmp_path) == {
        "model_type": "vl", "num_hidden_layers": 3, "text_config": {"num_hidden_layers": 3},
    }  # fmt: skip

"""How much memory a model in Hugging Face's format takes with vLLM, from its `config.json`. Pure; bytes everywhere.

Weights and KV cache follow from the files. What the engine itself takes beside them is typical of its versions 0.3x and
less certain than llama.cpp's: the first measurement takes its place. Sources: vLLM's memory profiling (activations of
one full batch, logits of all sequences, captured graphs) and the sizes it logs at its start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lumen.config.schema import Model
from lumen.engines._hf import is_latent, kv_bytes, trained_context
from lumen.hardware.devices import RAM
from lumen.hub.estimate import MIB, Estimate, Item

GIB = 1024 * MIB

_SLOTS = 4
_BATCH, _SEQUENCES = 2048, 256  # vLLM's own defaults
_CARD = 600 * MIB  # CUDA's context, its libraries and their workspaces
_GRAPHS = 700 * MIB
_LINKED = 300 * MIB  # buffers of a card that works with others
_HOST, _HOST_CARD = 2500 * MIB, 1200 * MIB  # the server and its engine; each further card has a process of its own
_CPU_ENGINE = 1500 * MIB


@dataclass(frozen=True, slots=True)
class Weights:
    """A model folder: its configuration and the bytes of its weights."""

    config: Mapping[str, Any]
    size: int

    @property
    def context(self) -> int:
        """Tokens it was made for; 4,096 where it does not say."""
        return trained_context(self.config) or 4096

    @property
    def heads(self) -> int:
        """KV heads, by which it is divided among cards."""
        found = self.config.get("num_key_value_heads") or self.config.get("num_attention_heads")
        return found if isinstance(found, int) and found > 0 else 1

    def kv_for_token(self, model: Model) -> int:
        """Bytes of KV cache one token takes, on all cards together; 0 where its layers keep something else."""
        return kv_bytes(self.config, _width(model)) or 0


def vllm(body: Weights, model: Model, cards: Sequence[str] = (), totals: Mapping[str, int] | None = None) -> Estimate:
    """What one replica of a settled model takes, split alike over `cards`; without cards in the machine's memory.

    `totals`: bytes of each card, for a model that is told to take a share of its card.
    """
    parts = max(1, len(cards))
    weights = -(-body.size // parts)
    cache = _cache(body, model, parts)
    if not cards:
        return Estimate((Item("weights", RAM, weights), Item("KV cache", RAM, cache), Item("engine", RAM, _CPU_ENGINE)))
    items = []
    share = model.options.get("gpu_memory_utilization")
    for card in cards:
        rest = _activations(body, model, parts)
        engine = _CARD + (0 if model.options.get("enforce_eager") else _GRAPHS) + (_LINKED if parts > 1 else 0)
        size = cache
        if isinstance(share, int | float) and totals and model.options.get("kv_cache_memory_bytes") is None:
            size = max(0, int(totals[card] * share) - weights - rest - engine)
        items += [
            Item("weights", card, weights),
            Item("KV cache", card, size),
            Item("compute", card, rest),
            Item("engine", card, engine),
        ]
    return Estimate((*items, Item("engine", RAM, _HOST + _HOST_CARD * (parts - 1))))


def vllm_asleep(awake: Estimate) -> Estimate:
    """What it keeps while it sleeps: its weights in the machine's memory, on its cards the engine alone."""
    engines = tuple(item for item in awake.items if item.what == "engine")
    weights = awake.of("weights") + awake.of("adapters")
    return Estimate((*engines, Item("weights", RAM, weights)))


def _cache(body: Weights, model: Model, parts: int) -> int:
    told = model.options.get("kv_cache_memory_bytes")
    if isinstance(told, int):
        return told
    divided = 1 if is_latent(body.config) else max(1, min(parts, body.heads))
    tokens = (model.slots or _SLOTS) * (model.context or body.context)
    return tokens * body.kv_for_token(model) // divided


def _activations(body: Weights, model: Model, parts: int) -> int:
    """One full batch through the widest layer, and the logits of all sequences, in three types along the way."""
    config, options = body.config, model.options
    batch = _number(options, "max_num_batched_tokens", _BATCH)
    sequences = _number(options, "max_num_seqs", _SEQUENCES)
    wide, hidden = _number(config, "hidden_size", 4096), _number(config, "intermediate_size", 0)
    hidden = max(hidden, _number(config, "moe_intermediate_size", 0) * _number(config, "num_experts_per_tok", 1))
    rows = batch * 2 * (6 * wide + 3 * hidden // parts)
    return rows + min(batch, sequences) * _number(config, "vocab_size", 0) * (2 + 4 + 4)


def _width(model: Model) -> int:
    if str(model.options.get("kv_cache_dtype", "")).startswith("fp8"):
        return 1
    return 4 if model.options.get("dtype") in ("float32", "float") else 2


def _number(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default

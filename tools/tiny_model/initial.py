"""First weights: small random ones, and one circuit that already copies.

A model this small, trained this briefly, does not discover by itself how to copy a name out of its prompt: in trials
its calls had the right tool and a city from memory. So it starts with the two attention heads that do it, known as an
induction circuit, and training shapes everything around them. In layer 0 a head looks one token back and writes down
what stood there; in layer 1 a head looks for places whose note matches the token at hand and predicts what stands
there.

Source of the circuit: Olsson and others, "In-context Learning and Induction Heads" (2022).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .model import Block, Llama

EMBEDDING, OUTPUT = 0.5, 0.05
"""Large embeddings keep a token's identity readable above what the layers add in the first steps; as the output layer
is the same matrix, the last norm starts small in return."""

CONSTANT = 8.0
"""Every embedding has this many standard deviations in its first dimension: what a head reads to attend by place."""

_FAST, _SLOW = slice(0, 8), slice(16, 32)
"""RoPE frequencies of a head of width 64: fast ones tell neighbours apart, slow ones hardly turn at all."""


@torch.no_grad()
def initialise(model: Llama) -> None:
    """Set every weight of a new model whose heads are 64 wide. Draws from torch's global generator."""
    nn.init.normal_(model.embed_tokens.weight, std=EMBEDDING)
    model.embed_tokens.weight[:, 0] = CONSTANT * EMBEDDING
    for name, weight in model.layers.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.zeros_(weight)
        elif weight.ndim == 2:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    nn.init.constant_(model.norm.weight, OUTPUT)
    _plant_copying(model)


def _plant_copying(model: Llama) -> None:
    width, head = model.shape.width, model.shape.head_width
    note, read, copied = (_orthonormal(head, width) for _ in range(3))
    first, second = (cast(Block, model.layers[at]).self_attn for at in (0, 1))
    _look_back(first.q_proj.weight[:head], first.k_proj.weight[:head], model.shape.rope_base)
    first.v_proj.weight[:head] = note
    first.o_proj.weight[:, :head] = 3 * EMBEDDING * read.T
    second.q_proj.weight[:head] = _slow_rows(note) * 2.2
    second.k_proj.weight[:head] = _slow_rows(read) * 2.2
    second.v_proj.weight[:head] = copied
    second.o_proj.weight[:, :head] = 30 * EMBEDDING * copied.T


def _look_back(query: Tensor, key: Tensor, base: float) -> None:
    """A head whose score for a key d places back is the sum of cos((d - 1) * frequency): highest for the last token."""
    half = query.shape[0] // 2
    angles = base ** -(torch.arange(half)[_FAST] / half)
    for weight in (query, key):
        nn.init.normal_(weight, std=0.01)
    query[:half, 0][_FAST] = 0.8 * angles.cos()
    query[half:, 0][_FAST] = -0.8 * angles.sin()
    key[:half, 0][_FAST] = 0.8


def _slow_rows(rows: Tensor) -> Tensor:
    """The rows at slow RoPE frequencies, zero elsewhere: a match counts at any distance."""
    half = rows.shape[0] // 2
    kept = torch.zeros_like(rows)
    for start in (0, half):
        kept[start : start + half][_SLOW] = rows[start : start + half][_SLOW]
    return kept


def _orthonormal(rows: int, columns: int) -> Tensor:
    """Orthonormal rows that do not read the constant dimension."""
    matrix = torch.empty(rows, columns)
    nn.init.orthogonal_(matrix[:, 1:])
    matrix[:, 0] = 0
    return matrix

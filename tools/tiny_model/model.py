"""A Llama-architecture decoder in plain PyTorch: RoPE, RMSNorm, SwiGLU, grouped queries, tied embeddings.

Weight names and the half-split RoPE layout are those of Hugging Face's LlamaForCausalLM, so that a state dict
saved here loads there unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one model. `context` is declared, longer than the rows trained on (see batches.py)."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    context: int = 4096
    rope_base: float = 100_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


MAIN = Shape(vocabulary=2048, width=256, layers=4, heads=4, kv_heads=2, feed_forward=768)
DRAFT = Shape(vocabulary=2048, width=128, layers=2, heads=2, kv_heads=1, feed_forward=512)


class Norm(nn.Module):
    """RMSNorm with a learned scale."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_width
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        rows, length, width = x.shape
        q = self._split(self.q_proj(x), self.shape.heads)
        k = self._split(self.k_proj(x), self.shape.kv_heads)
        v = self._split(self.v_proj(x), self.shape.kv_heads)
        repeat = self.shape.heads // self.shape.kv_heads
        k = _rotate(k, rope).repeat_interleave(repeat, dim=1)
        v = v.repeat_interleave(repeat, dim=1)
        mixed = F.scaled_dot_product_attention(_rotate(q, rope), k, v, is_causal=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, width))
        return out

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, self.shape.head_width).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.width, shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.width, shape.epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """The decoder. Output weights are the embedding's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits (rows, length, vocabulary) for token ids and RoPE positions, both (rows, length)."""
        return self.head(self.hidden(tokens, positions))

    def hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Final states of shape (rows, length, width)."""
        x = self.embed_tokens(tokens)
        rope = _rope_tables(positions, self.shape, x.dtype)
        for layer in self.layers:
            x = layer(x, rope)
        states: Tensor = x
        return states

    def head(self, states: Tensor) -> Tensor:
        """Logits of final states; apart from `hidden`, so that training can skip positions without loss."""
        return F.linear(self.norm(states), self.embed_tokens.weight)

    def parameter_count(self) -> int:
        return sum(weight.numel() for weight in self.parameters())


def _rope_tables(positions: Tensor, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of shape (rows, 1, length, head width), both halves alike."""
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = positions[:, None, :, None].float() * shape.rope_base**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rope
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine

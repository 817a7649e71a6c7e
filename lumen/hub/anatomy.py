"""What of a GGUF model decides how much memory it takes, beyond `sizing.Facts`: tensors by place, widths. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lumen.hub import sizing
from lumen.hub.ggml import tensor_bytes
from lumen.hub.gguf import Gguf

_F32 = 4


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One model. Bytes of tensors by where llama.cpp puts them; widths in elements, the widest layer's.

    `input_bytes`: the embedding table, which stays in the machine's memory. `output_bytes`: the head; where it is tied
    to the embeddings, a card gets a copy of them. `query`, `keys`, `values`: all heads together. `hidden`: the feed
    forward's width, of a mixture all experts that one token uses; `mixed`: then those experts' results side by side.
    `state_bytes`: per sequence, of layers that keep a state in place of a cache.
    """

    facts: sizing.Facts
    layer_bytes: tuple[int, ...]
    input_bytes: int
    output_bytes: int
    tied: bool
    heads: int
    query: int
    keys: int
    values: int
    hidden: int
    mixed: int
    state_bytes: int
    merges: int

    @property
    def weights(self) -> int:
        """All tensors, once."""
        return self.facts.tensor_bytes

    @property
    def rewinds(self) -> bool:
        """Whether a sequence can be cut anywhere: no sliding windows, no recurrent state."""
        return self.state_bytes == 0 and not self.slides

    @property
    def slides(self) -> bool:
        """Whether any layer has a sliding window."""
        return any(window is not None for window in self.facts.windows)


def anatomy(parts: tuple[Gguf, ...]) -> Anatomy:
    """What a model is made of, from its file or the files it is split into (first one first).

    Raises:
        BadModelFileError: the file does not describe a model.
    """
    facts, head = sizing.facts(parts), parts[0]
    arch = facts.architecture
    layers, shared, table, output = _by_place(parts, facts.layers)
    # What belongs to no layer and to neither end (norms, position tables) goes with the head.
    heads = max(head.integers(f"{arch}.attention.head_count", facts.layers) or (0,))
    usual = facts.embedding_length // max(1, heads)
    key = head.integer(f"{arch}.attention.key_length") or usual
    value = head.integer(f"{arch}.attention.value_length") or usual
    heads_kv = max(head.integers(f"{arch}.attention.head_count_kv", facts.layers) or (heads,))
    used = head.integer(f"{arch}.expert_used_count") or 0
    width = max(head.integers(f"{arch}.feed_forward_length", facts.layers) or (0,))
    hidden = used * (head.integer(f"{arch}.expert_feed_forward_length") or width) if used else width
    return Anatomy(
        facts=facts,
        layer_bytes=tuple(layers),
        input_bytes=table,
        output_bytes=(output or table) + shared,
        tied=not output,
        heads=heads,
        query=heads * key,
        keys=heads_kv * key,
        values=heads_kv * value,
        hidden=hidden,
        mixed=used * facts.embedding_length,
        state_bytes=_state(head, arch, facts),
        merges=_merges(head),
    )


def _by_place(parts: tuple[Gguf, ...], count: int) -> tuple[list[int], int, int, int]:
    """Bytes of each layer, of what is shared, of the embedding table, of the head."""
    layers = [0] * count
    shared = table = output = 0
    for part in parts:
        for tensor in part.tensors:
            size = tensor_bytes(tensor.type, tensor.shape) or 0
            group, _, rest = tensor.name.partition(".")
            number = rest.partition(".")[0]
            if group == "blk" and number.isdigit() and int(number) < count:
                layers[int(number)] += size
            elif group == "token_embd":
                table += size
            elif group == "output":
                output += size
            else:
                shared += size
    return layers, shared, table, output


def _state(head: Gguf, arch: str, facts: sizing.Facts) -> int:
    """Bytes one sequence keeps in recurrent layers: those of a model with a state space that have no KV heads."""
    inner, state = head.integer(f"{arch}.ssm.inner_size") or 0, head.integer(f"{arch}.ssm.state_size") or 0
    kernel, groups = head.integer(f"{arch}.ssm.conv_kernel") or 0, head.integer(f"{arch}.ssm.group_count") or 0
    rolling = max(0, kernel - 1) * (inner + 2 * groups * state)
    recurrent = sum(1 for elements in facts.kv_elements if not elements)
    return recurrent * (rolling + inner * state) * _F32


def _merges(head: Gguf) -> int:
    found = head.metadata.get("tokenizer.ggml.merges")
    count = getattr(found, "count", 0)
    return int(count)

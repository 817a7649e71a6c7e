"""How much memory a model takes where, before it is loaded: for llama.cpp from GGUF metadata. Pure; bytes everywhere.

The sizes of weights, KV cache and output buffer follow from the file. The compute buffer is what llama.cpp's graph
allocator needs at the widest point of the graph for one full batch: in attention without flash attention (the scores),
else in the feed forward part, or at the head. The formulas were found by comparing with llama.cpp's own figures over
many shapes; `bench/fit.py` repeats the comparison and writes it down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lumen.config.schema import Model
from lumen.hardware.devices import RAM
from lumen.hub.anatomy import Anatomy
from lumen.hub.sizing import KV_BYTES

MIB = 1024 * 1024

# The worker's own defaults; a test holds them against the worker.
CONTEXT, CELLS, SLOTS, BATCH, PARKED = 8192, 32768, 8, 512, 32
SCORES_BATCH = 128
GUESSES = 16
SCORES_LIMIT = 256 * MIB
SHELF = 512 * MIB

# The worker's process without a model, measured; a part of it are pages of libraries that several workers share.
_PROCESS = 71 * MIB
FOR_TOKEN = 400  # of the vocabulary, with its merges
# What CUDA's context, its kernels and their workspaces take on a card, and its share of the process. Typical of cards
# of the last years; the first measurement takes its place.
_CARD = 440 * MIB
_CARD_HOST = 320 * MIB
_WORK = 1.15  # bytes an activation takes while it is multiplied with quantised weights


@dataclass(frozen=True, slots=True)
class Item:
    """One part of an estimate: what, and where it lies (a device id)."""

    what: str
    device: str
    size: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one replica takes."""

    items: tuple[Item, ...]

    def by_device(self) -> dict[str, int]:
        """Bytes on each device."""
        return self._sums(self.items)

    def least(self) -> dict[str, int]:
        """Bytes on each device without what is kept only while there is room for it: prefixes of finished answers."""
        return self._sums(item for item in self.items if item.what != "prefixes")

    @staticmethod
    def _sums(items: Iterable[Item]) -> dict[str, int]:
        found: dict[str, int] = {}
        for item in items:
            found[item.device] = found.get(item.device, 0) + item.size
        return found

    def of(self, what: str) -> int:
        """Bytes of one part, on all devices."""
        return sum(item.size for item in self.items if item.what == what)

    @property
    def total(self) -> int:
        return sum(item.size for item in self.items)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a llama.cpp worker is started, every choice made. Tokens, but for `shelf` (bytes).

    `context`: the most of one prompt and its answer. `cells`: the KV cache, of all sequences together. `sequences`:
    that can be kept apart in it, running and parked. `gpu_layers`: layers on cards, the head counted as one; below
    zero: all. `lanes`: each sequence has cells of its own, `cells / sequences` of them; else all share all. `guesses`:
    rows of one decode that may hold guessed tokens.
    """

    context: int
    cells: int
    slots: int
    sequences: int
    ubatch: int
    kv_type: str
    flash: bool
    shelf: int
    gpu_layers: int
    embedding: bool = False
    lanes: bool = False
    guesses: int = 0

    @property
    def reach(self) -> int:
        """Cells that one token attends over at most."""
        return self.cells // self.sequences if self.lanes else self.cells


def plan(model: Model, body: Anatomy, *, cards: int = 0) -> Plan:
    """What the worker makes of a model's configuration. `cards`: how many it may use."""
    options: dict[str, Any] = dict(model.options)
    trained = body.facts.context_length or CONTEXT
    context = model.context or min(trained, CONTEXT)
    kv = int(options.get("kv") or 0)
    if kv and not model.context:
        context = min(context, kv)
    slots = model.slots or SLOTS
    batch = int(options.get("batch") or BATCH)
    layers = (model.gpu_layers if model.gpu_layers is not None else 0) if cards else 0
    shelf = int(options.get("shelf_mb", SHELF // MIB)) * MIB
    if model.embedding or body.facts.embedding:
        return Plan(context, padded(context), 1, 1, min(batch, context), "f16", True, 0, layers, True)
    cells = kv or min(context * slots, max(context, CELLS))
    # Where there are enough for all, each sequence has its own: as many as its longest answer may need.
    lanes = context * slots <= cells and not body.state_bytes
    sequences = slots + (PARKED if body.rewinds and not lanes else 0)
    wanted = int(options.get("ubatch") or 0)
    scores = (context if lanes else cells) * (wanted or SCORES_BATCH) * body.heads * 4
    flashes = flash(str(options.get("flash_attn", "auto")), scores, model.gpu_layers or 0, model.kv_type)
    ubatch = min(wanted or (BATCH if flashes else SCORES_BATCH), batch)
    cells = padded(context) * slots if lanes else padded(cells)
    guesses = GUESSES if body.rewinds and options.get("speculate") != "off" else 0
    return Plan(
        context, cells, slots, sequences, ubatch, model.kv_type, flashes, shelf, layers, lanes=lanes, guesses=guesses
    )


def llamacpp(body: Anatomy, made: Plan, cards: Sequence[str] = (), shares: Sequence[float] = ()) -> Estimate:
    """What a worker takes when it works at full load.

    `cards`: ids of the cards that its layers are spread over, `shares` of them in proportion to these numbers (as
    llama.cpp does by free memory; default: alike). Without cards everything lies in the machine's memory.
    """
    layers = len(body.layer_bytes)
    on_cards = min(layers + 1, made.gpu_layers if made.gpu_layers >= 0 else layers + 1) if cards else 0
    first = layers + 1 - on_cards  # the first layer on a card; `layers` itself stands for the head
    where = [RAM] * first + _spread(on_cards, cards, shares)
    items = [Item("weights", RAM, body.input_bytes)] if not body.tied or first <= layers else []
    items += [Item("weights", where[layer], size) for layer, size in enumerate(body.layer_bytes)]
    items.append(Item("weights", where[layers], body.output_bytes))
    items += [Item("KV cache", where[layer], size) for layer, size in enumerate(_kv(body, made))]
    used = {device for device in where if device != RAM}
    copies = 4 if len(used) > 1 else 1  # several cards work on batches one behind the other, each with its own inputs
    for card in sorted(used):
        items.append(Item("compute", card, compute(body, made, copies=copies)))
        items.append(Item("engine", card, _CARD))
    if used:
        items.append(Item("engine", RAM, _CARD_HOST))
        items.append(Item("compute", RAM, _masks(body, made) + _tokens(made) * body.facts.embedding_length * 4))
    if first > 0 and not (used and first == layers):
        items.append(Item("compute", RAM, compute(body, made) + _work(body, made)))
    items.append(Item("output", RAM, output(body, made)))
    if made.lanes and made.slots > 1:  # an answer that moves to another lane goes through a copy
        items.append(Item("copies", RAM, sum(_kv(body, made)) // made.sequences))
    items.append(Item("engine", RAM, _PROCESS + FOR_TOKEN * (body.facts.vocabulary or 0)))
    if made.shelf:
        items.append(Item("prefixes", RAM, made.shelf))
    return Estimate(_merged(items))


def with_adapters(found: Estimate, size: int) -> Estimate:
    """The same with `size` bytes of LoRA adapters, in proportion to the weights of each device."""
    weights = {item.device: item.size for item in found.items if item.what == "weights"}
    whole = sum(weights.values())
    if not size or not whole:
        return found
    more = (Item("adapters", device, -(-size * share // whole)) for device, share in weights.items())
    return Estimate((*found.items, *more))


def compute(body: Anatomy, made: Plan, *, copies: int = 1) -> int:
    """llama.cpp's compute buffer on one device."""
    rows, facts = _tokens(made), body.facts
    masks = _masks(body, made) * copies
    wide, query = facts.embedding_length, body.query
    attention = 4 * rows * (3 * wide + 2 * query)
    if not made.flash:
        groups = _cells(body, made)
        attention += 4 * rows * max(groups) * body.heads + 8 * rows * body.values * len(groups)
    # A block that held the query is used again for rows of the model's width where they fill it.
    beside = 4 * wide if not body.mixed and wide and query % wide == 0 else 3 * wide + query
    forward = 4 * rows * (3 * body.hidden + body.mixed + beside)
    head = 0 if made.embedding else 4 * made.sequences * ((facts.vocabulary or 0) + 5 * wide)
    return max(masks + attention, masks + forward, head)


def output(body: Anatomy, made: Plan) -> int:
    """The buffer of results: logits for each sequence and guess, or a vector for each token."""
    if made.embedding:
        return 4 * made.ubatch * body.facts.embedding_length
    return 4 * (made.sequences + made.guesses) * (body.facts.vocabulary or 0)


def _kv(body: Anatomy, made: Plan) -> list[int]:
    """Bytes of each layer's cache, or of its recurrent state for all sequences."""
    facts = body.facts
    recurrent = sum(1 for elements in facts.kv_elements if not elements)
    state = body.state_bytes * made.sequences // recurrent if recurrent else 0
    found = []
    for elements, window in zip(facts.kv_elements, facts.windows, strict=True):
        cells = made.reach if window is None else _windowed(window, made)
        size = cells * (made.sequences if made.lanes else 1) * elements * KV_BYTES[made.kv_type]
        found.append(-(-size.numerator // size.denominator) if elements else state)
    return found


def _cells(body: Anatomy, made: Plan) -> list[int]:
    """The caches of a model, in cells within a token's reach: one for all layers, one more for those with a window."""
    windows = {window for window in body.facts.windows if window is not None}
    full = [made.reach] if None in body.facts.windows or not windows else []
    return full + [_windowed(window, made) for window in sorted(windows)]


def _windowed(window: int, made: Plan) -> int:
    return min(made.reach, padded(window * (1 if made.lanes else made.sequences) + made.ubatch))


def _masks(body: Anatomy, made: Plan) -> int:
    return sum(_cells(body, made)) * _tokens(made) * (2 if made.flash else 4)


def _tokens(made: Plan) -> int:
    """Rows of the largest graph: as many for each sequence."""
    return -(-made.ubatch // made.sequences) * made.sequences


def _work(body: Anatomy, made: Plan) -> int:
    """What the CPU needs beside the graph: the other side of a product, in the type that it is multiplied in."""
    rows = _tokens(made)
    products = int(rows * max(body.hidden, body.query, body.facts.embedding_length) * _WORK)
    return products if made.flash else max(products, 2 * rows * max(_cells(body, made)) * body.heads)


def flash(wanted: str, scores: int, layers: int, kv_type: str) -> bool:
    """As the worker decides: on a CPU without it, as long as the scores (bytes) stay small."""
    if wanted != "auto" or layers or kv_type != "f16":
        return wanted != "off"
    return scores > SCORES_LIMIT


def _spread(count: int, cards: Sequence[str], shares: Sequence[float]) -> list[str]:
    """`count` layers over cards, in order, as many on each as its share."""
    if not count:
        return []
    parts = list(shares) if shares else [1.0] * len(cards)
    total, edge, place = sum(parts), 0.0, 0
    found: list[str] = []
    for card, part in zip(cards, parts, strict=True):
        edge += part / total * count
        while place < count and place < round(edge):
            found.append(card)
            place += 1
    return found + [cards[-1]] * (count - len(found))


def _merged(items: Sequence[Item]) -> tuple[Item, ...]:
    sums: dict[tuple[str, str], int] = {}
    for item in items:
        sums[item.what, item.device] = sums.get((item.what, item.device), 0) + item.size
    return tuple(Item(what, device, size) for (what, device), size in sums.items() if size)


def padded(tokens: int) -> int:
    """Cells that a cache for so many tokens has."""
    return -(-tokens // 256) * 256

"""Which quantisation, context and number of parallel answers of a model fit where on a machine, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lumen.config.schema import Model
from lumen.hardware.devices import RAM, Device
from lumen.hub.anatomy import Anatomy
from lumen.hub.estimate import Estimate
from lumen.hub.estimate_hf import Weights
from lumen.hub.needs import Body, needs

_CONTEXTS = (1_048_576, 524_288, 262_144, 131_072, 65_536, 32_768, 16_384, 8192, 4096, 2048, 1024, 512)
_SLOTS = (64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Variant:
    """One form in which a model can be had. `size`: bytes of its files; `body`: what they are made of; `draft`: what
    the draft model beside it is made of; `adapters`: bytes of its LoRA adapters.
    """

    quant: str
    size: int
    body: Body
    draft: Body | None = None
    adapters: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One form of a model on one place of a machine.

    `model`: as it would be configured, with room for every answer at its full length. `cards`: ids of those it uses,
    none for the machine's memory alone; with `layers` (of `all_layers`, the head counted) only so many lie on them and
    the rest in the machine's memory. `takes`: bytes by device. `missing`: those that a device cannot give; empty: it
    fits. `busy`: those that it could give, but others have them now. `most_context`, `most_slots`: how far each could
    go with the other as it is; 0: not at all.
    """

    variant: Variant
    model: Model
    context: int
    slots: int
    cards: tuple[str, ...]
    layers: int | None
    all_layers: int
    estimate: Estimate
    missing: Mapping[str, int]
    busy: Mapping[str, int]
    most_context: int
    most_slots: int

    @property
    def fits(self) -> bool:
        return not self.missing

    @property
    def takes(self) -> dict[str, int]:
        return self.estimate.by_device()


@dataclass(frozen=True, slots=True)
class Room:
    """What the devices of a machine can give at all (`most`), and now (`free`), bytes by id."""

    devices: Mapping[str, Device]
    most: Mapping[str, int]
    free: Mapping[str, int]

    @classmethod
    def of(cls, found: Iterable[tuple[Device, int]]) -> Room:
        """From devices with what is free on each; the margin that is never given away is taken off."""
        known = {device.id: (device, free) for device, free in found}
        return cls(
            {name: device for name, (device, _) in known.items()},
            {name: max(0, device.total - device.margin) for name, (device, _) in known.items()},
            {name: max(0, free - device.margin) for name, (device, free) in known.items()},
        )


def scaled(body: Anatomy, size: int) -> Anatomy:
    """The same model in another quantisation, whose files have `size` bytes: all tensors in proportion."""
    ratio = size / max(1, body.weights)
    return replace(
        body,
        facts=replace(body.facts, tensor_bytes=size),
        layer_bytes=tuple(int(part * ratio) for part in body.layer_bytes),
        input_bytes=int(body.input_bytes * ratio),
        output_bytes=int(body.output_bytes * ratio),
    )


def verdicts(variants: Sequence[Variant], model: Model, room: Room, *, offloads: bool = True) -> list[Verdict]:
    """Every variant on every kind of place, the largest variant first, cards before the machine's memory.

    `model`: with the context and slots that are wanted, where they are. `offloads`: whether its engine can use cards.
    """
    found = []
    for variant in sorted(variants, key=lambda one: -one.size):
        places = _places(variant.body, model, room) if offloads else [()]
        tried = [_judge(variant, _put(model, variant.body, cards), cards, room) for cards in places]
        if not any(one.fits for one in tried if one.cards) and isinstance(variant.body, Anatomy):
            tried += [part for one in tried if len(one.cards) == 1 and (part := _partly(one, room)) is not None][:1]
        found += tried
    return found


def best(found: Iterable[Verdict]) -> Verdict | None:
    """The one to take: of those that fit, all on cards before a part before nothing, and then the best quality."""
    fitting = [one for one in found if one.fits]
    return max(fitting, key=lambda one: (_rank(one), one.variant.size, -len(one.cards)), default=None)


def _rank(one: Verdict) -> int:
    return 0 if not one.cards else 1 if one.layers is not None else 2


def _places(body: Body, model: Model, room: Room) -> list[tuple[str, ...]]:
    """One card of each kind, all of them together, the machine's memory."""
    cards = [device for device in room.devices.values() if device.kind in ("cuda", "rocm")]
    if model.gpus:
        cards = [card for card in cards if card.index in model.gpus]
    singles: dict[tuple[str, int], str] = {}
    for card in sorted(cards, key=lambda card: -room.free[card.id]):
        singles.setdefault((card.name, card.total), card.id)
    places: list[tuple[str, ...]] = [(card,) for card in singles.values()]
    group = tuple(card.id for card in cards)
    if isinstance(body, Weights):
        # It is divided by heads, so only into as many parts as divide them.
        size = max((n for n in range(1, len(group) + 1) if body.heads % n == 0), default=0)
        group = group[:size]
    if len(group) > 1:
        places.append(group)
    return [*places, ()]


def _put(model: Model, body: Body, cards: tuple[str, ...]) -> Model:
    if isinstance(body, Weights):
        return replace(model, engine="vllm")
    if not cards:
        return replace(model, gpu_layers=0)
    return replace(model, gpu_layers=-1) if not model.gpu_layers else model


def _judge(variant: Variant, model: Model, cards: tuple[str, ...], room: Room) -> Verdict:
    body = variant.body
    trained = body.context if isinstance(body, Weights) else body.facts.context_length or 8192
    context = min(model.context or 8192, trained)
    slots = model.slots or 4
    model = _roomy(replace(model, context=context, slots=slots))
    estimate = _estimate(variant, model, cards, room)
    takes = estimate.least()
    layers = len(body.layer_bytes) + 1 if isinstance(body, Anatomy) else 0

    def fits(other: Model) -> bool:
        return not _short(_estimate(variant, _roomy(other), cards, room).least(), room.most)

    contexts = sorted({trained, *(size for size in _CONTEXTS if size < trained)}, reverse=True)
    missing = _short(takes, room.most)
    return Verdict(
        variant=variant,
        model=model,
        context=context,
        slots=slots,
        cards=cards,
        layers=None,
        all_layers=layers,
        estimate=estimate,
        missing=missing,
        busy={} if missing else _short(takes, room.free),
        most_context=next((size for size in contexts if fits(replace(model, context=size))), 0),
        most_slots=next((count for count in _SLOTS if fits(replace(model, slots=count))), 0),
    )


def _roomy(model: Model) -> Model:
    """With cells for all answers at once, which the worker by itself makes fewer of where they would be many."""
    if model.engine != "llamacpp":
        return model
    cells = (model.context or 0) * (model.slots or 1)
    return replace(model, options={**model.options, "kv": cells})


def _partly(whole: Verdict, room: Room) -> Verdict | None:
    """The same with as many layers on its card as fit there."""
    for layers in range(whole.all_layers - 1, 0, -1):
        model = replace(whole.model, gpu_layers=layers)
        takes = _estimate(whole.variant, model, whole.cards, room).least()
        if takes.get(whole.cards[0], 0) <= room.most[whole.cards[0]]:
            return replace(_judge(whole.variant, model, whole.cards, room), layers=layers)
    return None


def _estimate(variant: Variant, model: Model, cards: Sequence[str], room: Room) -> Estimate:
    totals = {card: room.devices[card].total for card in cards}
    found = needs(variant.body, model, cards, totals, variant.draft, variant.adapters)
    return found if found is not None else Estimate(())


def _short(takes: Mapping[str, int], has: Mapping[str, int]) -> dict[str, int]:
    short = {device: size - has.get(device, 0) for device, size in takes.items()}
    return {device: size for device, size in short.items() if size > 0}


def reason(one: Verdict, room: Room) -> str:
    """In words, why it fits or what is in the way."""
    if one.missing:
        device = max(one.missing, key=lambda name: one.missing[name])
        parts = [item for item in one.estimate.items if item.device == device and item.what != "prefixes"]
        largest = max(parts, key=lambda item: item.size)
        said = f"{_size(one.missing[device])} too much for {_name(device, room)}; most of it {largest.what}"
        return f"{said}, {_size(largest.size)}"
    extra = []
    if one.most_context > one.context:
        extra.append(f"up to {one.most_context:,} tokens")
    if one.most_slots > one.slots:
        extra.append(f"up to {one.most_slots} at once")
    if one.busy:
        device = next(iter(one.busy))
        extra.append(f"but others hold {_size(one.busy[device])} of it on {_name(device, room)} now")
    return "; ".join(["fits", *extra])


def _name(device: str, room: Room) -> str:
    return "the machine's memory" if device == RAM else f"{room.devices[device].name} ({device})"


def _size(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 100 * 1024**2 else f"{size / 1024**2:.0f} MiB"

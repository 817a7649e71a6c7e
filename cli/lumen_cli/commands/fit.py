"""`lumen fit`: which quantisation, context and number of parallel answers of a model fit where on this machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli.errors import FAILED, CliError
from lumen_cli.output import JSON, command, print_json, say, size, table
from lumen_cli.settings import CONFIG, config_file

if TYPE_CHECKING:
    from lumen.config.schema import Config, Model
    from lumen.hub.fit import Room, Variant, Verdict

app = command()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be fitted. `reference`: how it would be pulled or configured; `configured`: it has that name there;
    `absent`: what it is served with and cannot be looked at, because it is not on this disk."""

    name: str
    reference: str
    model: Model
    variants: list[Variant]
    configured: bool
    absent: tuple[str, ...] = ()


@app.command()
def fit(
    model: str = typer.Argument(help="A model's name, the path of its file or folder, or a reference such as hf://…"),
    context: int | None = typer.Option(None, min=1, help="Tokens of a conversation; default: as configured."),
    slots: int | None = typer.Option(None, min=1, max=1024, help="Conversations at once; default: as configured."),
    kv_type: str | None = typer.Option(None, help="f16, q8_0 or q4_0: smaller holds more context, a little less well."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Tell what a model would take of this machine's memory, where it fits, and what is in the way."""
    from lumen.hardware.readings import Monitor
    from lumen.hub.fit import Room, best, verdicts
    from lumen.hub.needs import offloads

    paths = find_paths()
    asked = _asked(model, paths, config)
    wanted = _wanted(asked.model, context, slots, kv_type)
    monitor = Monitor()
    room = Room.of((reading.device, reading.free) for reading in monitor.read())
    monitor.close()
    for_cards = wanted.engine != "llamacpp" or offloads()
    found = verdicts(asked.variants, wanted, room, offloads=for_cards)
    take = best(found)
    if json_output:
        told = {"model": asked.name, "reference": asked.reference, "absent": list(asked.absent)}
        print_json({**told, "verdicts": [_plain(v, room, take) for v in found]})
    else:
        _draw(asked, found, take, room)
        if not for_cards and any(device.kind in ("cuda", "rocm") for device in room.devices.values()):
            say("The llama.cpp that is installed is built for the CPU; with `./install.sh` it would use the cards.")
    if take is None:
        raise typer.Exit(FAILED)


def _asked(text: str, paths: Paths, given: Path | None) -> _Asked:
    from lumen.config.checks import BUILTIN_MODEL
    from lumen.config.load import load, locate
    from lumen.config.schema import Model
    from lumen.hub import Store, resolve
    from lumen.hub.reference import HubModel, parse

    path = config_file(given, paths)
    config = load(locate(given, path))
    configured = text in config.models
    kept = None if configured else Store(paths.models_dir).get(text)
    known = "builtin:tiny" if text == BUILTIN_MODEL else text
    source = config.models[text].source if configured else kept.reference if kept is not None else known
    base = path.parent if configured else None
    files = resolve(source, paths, base=base)
    model = config.models[text] if configured else Model(source=source)
    name = text if configured or files is None else files.name
    if files is not None:
        variants = [_local(files.path)]
    else:
        reference = parse(source)
        if not isinstance(reference, HubModel):
            raise CliError(f"{text} is not on this disk", f"fetch it with `lumen pull {source}`, or check the path")
        from lumen.hub.peek import peek

        variants = asyncio.run(peek(reference, config.hub))
    variants, absent = _with_the_rest(variants, model, config, paths, base)
    return _Asked(name, source, *_for_engine(_profiled(model, config), variants), configured, absent)


def _with_the_rest(
    variants: list[Variant], model: Model, config: Config, paths: Paths, base: Path | None
) -> tuple[list[Variant], tuple[str, ...]]:
    """The variants with the model's draft and adapters, and what of these is not on this disk."""
    from lumen.hub import resolve
    from lumen.hub.needs import adapter_bytes, examine
    from lumen.hub.store import adapter

    named = config.models.get(model.draft or "")
    draft = named.source if named is not None else model.draft
    second = resolve(draft, paths, base=base) if draft is not None else None
    worn = {name: adapter(source, paths, base) for name, source in model.adapters.items()}
    absent = [f"draft {draft}"] if draft is not None and second is None else []
    absent += [f"adapter {name} ({model.adapters[name]})" for name, path in worn.items() if path is None]
    body = examine(second.path) if second is not None else None
    size = adapter_bytes(path for path in worn.values() if path is not None)
    return [replace(variant, draft=body, adapters=size) for variant in variants], tuple(absent)


def _for_engine(model: Model, variants: list[Variant]) -> tuple[Model, list[Variant]]:
    """The model with the engine that serves such files, where the configuration leaves it at the usual one."""
    from lumen.hub.estimate_hf import Weights

    folder = any(isinstance(variant.body, Weights) for variant in variants)
    return (replace(model, engine="vllm") if folder and model.engine == "llamacpp" else model), variants


def _local(path: Path) -> Variant:
    from lumen.hub.anatomy import Anatomy
    from lumen.hub.fit import Variant
    from lumen.hub.needs import examine

    body = examine(path)
    if body is None:
        raise CliError(f"{path} is no model that can be read", "it must be a GGUF file or a folder with safetensors")
    if isinstance(body, Anatomy):
        return Variant(body.facts.quantisation, body.weights, body)
    return Variant("safetensors", body.size, body)


def _profiled(model: Model, config: Config) -> Model:
    """With what the profile of this machine says where the configuration leaves it open."""
    from lumen.hardware import detect, load_profiles, match, pick

    machine, profiles = detect(), load_profiles()
    profile, _ = pick(config.profile, machine, profiles) if config.profile else match(machine, profiles)
    return profile.apply(model)


def _wanted(model: Model, context: int | None, slots: int | None, kv_type: str | None) -> Model:
    kinds = ("f16", "q8_0", "q4_0")
    if kv_type is not None and kv_type not in kinds:
        raise CliError(f"--kv-type {kv_type} is not known", f"it is one of {', '.join(kinds)}")
    change: dict[str, Any] = {"context": context, "slots": slots, "kv_type": kv_type}
    return replace(model, **{name: value for name, value in change.items() if value is not None})


def _draw(asked: _Asked, found: list[Verdict], take: Verdict | None, room: Room) -> None:
    from lumen.hub.fit import reason

    first = found[0]
    at_once = "one conversation" if first.slots == 1 else f"{first.slots} conversations"
    say(f"{asked.name}: {at_once} of {first.context:,} tokens at once")
    rows = [
        (
            "→" if one is take else "",
            one.variant.quant,
            size(one.variant.size),
            _place(one, room),
            _takes(one, room),
            reason(one, room),
        )
        for one in found
    ]
    table(("", "form", "weights", "where", "takes", "verdict"), rows)
    say()
    if asked.absent:
        say(f"Not counted, because not on this disk: {', '.join(f'its {one}' for one in asked.absent)}.")
    if take is None:
        say("Nothing of it fits here. Try less: `--context`, `--slots`, `--kv-type q8_0`, or a smaller model.")
    else:
        parts = {item.what: take.estimate.of(item.what) for item in take.estimate.items}
        say(f"{take.variant.quant} takes " + ", ".join(f"{what} {size(count)}" for what, count in parts.items()) + ".")
        say(_advice(asked, take))


def _settings(asked: _Asked, take: Verdict) -> list[str]:
    """What it takes in the configuration to have it as it was reckoned."""
    from lumen.hub.estimate import CELLS

    settings, model = [f"context: {take.context}", f"slots: {take.slots}"], take.model
    if model.engine != "llamacpp":
        return settings
    if model.kv_type != "f16":
        settings.append(f"kv_type: {model.kv_type}")
    if take.cards:
        settings.append(f"gpu_layers: {take.layers if take.layers is not None else -1}")
    cells = take.context * take.slots
    if cells > max(take.context, CELLS) and not model.embedding and asked.model.options.get("kv") != cells:
        settings.append(f"options: {{kv: {cells}}}")
    return settings


def _advice(asked: _Asked, take: Verdict) -> str:
    numbers = ",".join(card.partition(":")[2] for card in take.cards)
    settings = _settings(asked, take)
    if asked.configured:
        gpus = f"`lumen gpu assign {asked.name} --gpus {numbers}`, and " if numbers else ""
        return f"To have it so: {gpus}{', '.join(settings)} in the configuration."
    from lumen.hub.reference import Builtin, HubModel, parse

    reference = parse(asked.reference)
    if isinstance(reference, Builtin):
        return f"To serve it: source: {reference}, {', '.join(settings)} in the configuration."
    if len(asked.variants) > 1 and isinstance(reference, HubModel):
        reference = replace(reference, quant=take.variant.quant)
    return f"To serve it: `lumen pull {reference} --add`, then {', '.join(settings)} in the configuration."


def _place(one: Verdict, room: Room) -> str:
    if not one.cards:
        return "memory"
    cards = room.devices[one.cards[0]].name if len(one.cards) == 1 else f"{len(one.cards)} cards"
    return cards if one.layers is None else f"{cards}, {one.layers} of {one.all_layers} layers"


def _takes(one: Verdict, room: Room) -> str:
    parts = [
        (device, count) for device, count in one.takes.items() if device in one.cards or not one.cards or one.layers
    ]
    return ", ".join(f"{size(count)} of {size(room.most.get(device, 0))}" for device, count in sorted(parts))


def _plain(one: Verdict, room: Room, take: Verdict | None) -> dict[str, Any]:
    from lumen.hub.fit import reason

    return {
        "form": one.variant.quant,
        "weights": one.variant.size,
        "engine": one.model.engine,
        "context": one.context,
        "slots": one.slots,
        "kv_type": one.model.kv_type,
        "cards": list(one.cards),
        "layers": one.layers,
        "takes": one.takes,
        "parts": [{"what": item.what, "device": item.device, "bytes": item.size} for item in one.estimate.items],
        "fits": one.fits,
        "missing": dict(one.missing),
        "busy": dict(one.busy),
        "most_context": one.most_context,
        "most_slots": one.most_slots,
        "why": reason(one, room),
        "best": one is take,
    }

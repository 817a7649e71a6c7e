"""How much memory a draft model takes beside the model that it guesses for. Pure; bytes everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lumen.config.schema import Model
from lumen.hardware.devices import RAM
from lumen.hub.anatomy import Anatomy
from lumen.hub.estimate import BATCH, FOR_TOKEN, SCORES_BATCH, Estimate, Item, Plan, flash, llamacpp, padded

WEIGHTS, REST = "draft weights", "draft cache"


def draft_plan(model: Model, main: Plan, draft: Anatomy) -> Plan:
    """How the worker of a `model` planned as `main` starts its draft: a lane for each answer, nothing parked."""
    options = model.options
    reach = min(main.context, draft.facts.context_length or main.context)
    lanes = reach * main.slots <= main.cells
    wanted = int(options.get("ubatch") or 0)
    scores = (reach if lanes else main.cells) * (wanted or SCORES_BATCH) * draft.heads * 4
    flashes = flash(str(options.get("flash_attn", "auto")), scores, model.gpu_layers or 0, model.kv_type)
    return replace(
        main,
        context=reach,
        cells=padded(reach) * main.slots if lanes else main.cells,
        sequences=main.slots,
        ubatch=min(wanted or (BATCH if flashes else SCORES_BATCH), int(options.get("batch") or BATCH)),
        flash=flashes,
        shelf=0,
        lanes=lanes,
        guesses=0,
    )


def with_draft(
    found: Estimate, model: Model, main: Plan, draft: Anatomy, cards: Sequence[str], shares: Sequence[float]
) -> Estimate:
    """`found` (of a `model` planned as `main`) and its draft model, whose layers lie where the model's do."""
    own = llamacpp(draft, draft_plan(model, main, draft), cards, shares)
    parts = [(item, WEIGHTS if item.what == "weights" else REST) for item in own.items]
    sums: dict[tuple[str, str], int] = {(REST, RAM): FOR_TOKEN * (draft.facts.vocabulary or 0)}
    for item, what in parts:
        if item.what not in ("engine", "copies", "prefixes"):  # one process has these once
            sums[what, item.device] = sums.get((what, item.device), 0) + item.size
    return Estimate((*found.items, *(Item(what, device, size) for (what, device), size in sums.items() if size)))

"""What vLLM writes into its log, as of versions 0.19 to 0.32. Pure.

Source: its own messages; the tests hold lines that it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from lumen.config.schema import Model
from lumen.engines.base import Phase, Remedy

# What a line holds → the phase it begins or moves on; a group in it is the percentage done. The first that fits counts.
_PHASES: tuple[tuple[re.Pattern[str], str, float | None], ...] = tuple(
    (re.compile(pattern), name, pct)
    for pattern, name, pct in (
        (r"checkpoint shards:\s+(\d+)% Completed", "load", None),
        (r"Starting to load model ", "load", 0.0),
        (r"Loading weights took ", "load", 100.0),
        (r"Capturing CUDA graphs.*?:\s+(\d+)%", "graphs", None),
        (r"Graph capturing finished", "graphs", 100.0),
        (r"for vLLM's torch\.compile|Dynamo bytecode transform|Compiling a graph for ", "compile", None),
        (r"Directly load the compiled graph|Warming up model for the compilation", "compile", None),
        (r"Initializing a V1 LLM engine", "start", None),
        (r"Available KV cache memory|KV cache size: ", "memory", None),
        (r"Starting vLLM (?:API )?server", "warm", None),
    )
)
# The memory did not suffice, whatever of it: on a card or, for a model on the CPU, the machine's own.
_FULL = re.compile(
    r"OutOfMemoryError|CUDA out of memory|No available memory for the cache blocks"
    r"|larger than the available KV cache memory|is less than requested memory for kv"
    r"|less than desired GPU memory utilization|std::bad_alloc|DefaultCPUAllocator: (?:can't|not enough)|MemoryError"
)
_LENGTH_THAT_FITS = re.compile(r"estimated maximum model length is (\d+)")
_LENGTH_IT_HAS = re.compile(r"max_model_len \(\d+\) is greater than the derived max_model_len \([a-z_]+=(\d+)")
_UNKNOWN_FLAG = re.compile(r"unrecognized arguments: (--[a-z0-9-]+)")
# "(EngineCore pid=7) ERROR 11-22 17:24:38 [core.py:1100] ValueError: ..."
_PREFIX = re.compile(r"^(?:\([^)]*\) )?(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] )?")
_ERROR = re.compile(r"^(?:[a-zA-Z_]+\.)*[A-Z]\w*(?:Error|Exception)\b.*")
# Below this a context is not worth having.
_LEAST = 512
_BLOCK = 16
_LONGEST = 300
# Lines shown before the one that names the cause.
_AROUND = 12


def said(line: str) -> Phase | None:
    """The phase that a line of its log tells."""
    for pattern, name, pct in _PHASES:
        if found := pattern.search(line):
            return Phase(name, min(float(found[1]), 100.0) if pattern.groups else pct)
    return None


def remedy(lines: Sequence[str], model: Model) -> Remedy | None:
    """Why a start failed. Where the memory did not suffice: with how much less context it may."""
    bare = [_PREFIX.sub("", line) for line in lines]
    text = "\n".join(bare)
    if flag := _UNKNOWN_FLAG.search(text):
        return Remedy(f"its engine does not know an option: {flag[1]} is no flag of this version of vLLM")
    if has := _LENGTH_IT_HAS.search(text):
        return Remedy(f"its context is longer than the model's: {has[1]} tokens", shorter(model, int(has[1])))
    # Each process that fails adds an error of its own below; the first is the cause.
    full = next((at for at, line in enumerate(bare) if _FULL.search(line)), None)
    at = full if full is not None else next((at for at, line in enumerate(bare) if _ERROR.match(line)), None)
    if at is None:
        return None
    what, around = bare[at][:_LONGEST], tuple(lines[max(at - _AROUND, 0) : at + 1])
    if full is None:
        return Remedy(f"its engine failed while starting: {what}", lines=around)
    tried = f" with a context of {model.context} tokens" if model.context is not None else ""
    why = f"its engine ran out of memory while starting{tried}: {what}"
    return Remedy(why, _less(model, bare[at], text), around)


def _less(model: Model, full: str, text: str) -> Model | None:
    if fits := _LENGTH_THAT_FITS.search(text):
        # Computed by vLLM for the KV cache that there is, so that may stay as it is.
        return shorter(model, int(fits[1]))
    if "less than desired GPU memory utilization" in full:
        # Others hold the card; a shorter context asks for no less of it.
        return None
    less = shorter(model, (model.context or 0) // 2)
    size = model.options.get("kv_cache_memory_bytes")
    if less is None or less.context is None or not model.context or not isinstance(size, int):
        return less
    return replace(less, options={**less.options, "kv_cache_memory_bytes": size * less.context // model.context})


def shorter(model: Model, context: int) -> Model | None:
    """`model` with at most `context` tokens; `None` where that is too few or no fewer."""
    context = context // _BLOCK * _BLOCK
    if context < _LEAST or (model.context is not None and context >= model.context):
        return None
    return replace(model, context=context)

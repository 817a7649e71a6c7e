"""What models take of memory beside what was estimated of it.

    python -m bench.fit [--quick] [--write]

Two comparisons. First llama.cpp's own buffers, as it logs them, over the shapes of real models (GGUF files without
weights, and contexts without memory behind them, so that any size can be asked for). Then the resident memory of the
real worker at the most that one load could make it take: prompts that fill the whole context, in full batches.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import report
from bench.shapes import Q4_K, Shape, write
from lumen.config.schema import Model
from lumen.hub.anatomy import Anatomy
from lumen.hub.estimate import MIB, Plan, compute, llamacpp, output, plan
from lumen.hub.needs import examine

ROOT = Path(__file__).parent.parent
TINY = ROOT / "lumen" / "tiny" / "lumen-tiny.gguf"
# Of real models: what they are called says whose shape it is. Not those by which the formulas were found.
SHAPES = {
    "Llama 3.2 3B": Shape(
        layers=28, embedding=3072, heads=24, heads_kv=8, head=128, feed_forward=8192, vocabulary=128_256
    ),
    "Qwen3 14B": Shape("qwen3", 40, 5120, 40, 8, 128, 17_408, 151_936, kind=Q4_K),
    "Qwen3 1.7B": Shape("qwen3", 28, 2048, 16, 8, 128, 6144, 151_936),
    "Mistral Small 24B": Shape("llama", 40, 5120, 32, 8, 128, 32_768, 131_072, kind=Q4_K),
    "Gemma 3 12B": Shape("gemma3", 48, 3840, 16, 8, 256, 15_360, 262_208, window=1024, kind=Q4_K),
    "Gemma 2 2B": Shape("gemma2", 26, 2304, 8, 4, 256, 9216, 256_000, window=4096),
    "Mixtral 8x7B": Shape("llama", 32, 4096, 32, 8, 128, 14_336, 32_000, 8, 2, kind=Q4_K),
    "Qwen3 30B-A3B": Shape("qwen3moe", 48, 2048, 32, 4, 128, 768, 151_936, 128, 8, kind=Q4_K),
}
# (cells, sequences, rows of a batch, flash attention, KV type, each sequence with cells of its own)
CONTEXTS = [
    (4096, 1, 512, True, "f16", False),
    (32_768, 40, 512, True, "f16", False),
    (32_768, 40, 512, True, "q8_0", False),
    (32_768, 40, 512, True, "q4_0", False),
    (8192, 4, 256, False, "f16", False),
    (4096, 4, 128, False, "f16", True),
    (32_768, 16, 128, False, "f16", True),
    (32_768, 8, 512, True, "f16", True),
]


@dataclass(frozen=True, slots=True)
class Load:
    """How a worker is started. `shared`: cells that all slots share, as many as the context; 0: each has its own."""

    slots: int
    context: int
    kv_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    flash: str = "auto"
    shared: int = 0

    @property
    def answers(self) -> int:
        """How many fill the whole cache: one where it is shared, which then meets the largest batch, else everybody."""
        return 1 if self.shared else self.slots


LOADS = [
    Load(1, 2560),
    Load(1, 2560, flash="on"),
    Load(1, 2560, "q8_0"),
    Load(1, 2560, "q4_0"),
    Load(4, 1024),
    Load(4, 3072, shared=3072),
    Load(4, 3072, flash="on", shared=3072),
]
HALF = [Load(1, 1536), Load(1, 1536, "q8_0")]
LONG = [Load(1, 8704), Load(1, 8704, flash="on"), Load(1, 16_896, "q8_0")]


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison, in bytes."""

    what: str
    settings: str
    estimated: float
    measured: float

    @property
    def off(self) -> float:
        """By how much the estimate is off, as a share of what was measured."""
        return self.estimated / self.measured - 1

    def row(self) -> str:
        sizes = f"{self.estimated / MIB:,.1f} | {self.measured / MIB:,.1f}"
        return f"| {self.what} | {self.settings} | {sizes} | {100 * self.off:+.1f} % |"


# -- llama.cpp's own word ----------------------------------------------------------------------------------------------


def own_words(path: Path, made: Plan) -> dict[str, float]:
    """Bytes of each buffer that llama.cpp says it allocates, without weights or cells behind them."""
    from lumen.workers.llamacpp.binding import lib, start_backend

    start_backend()
    lines: list[str] = []
    listen = lib.llama_log_callback(lambda _level, text, _user: lines.append(text.decode("utf-8", "replace")))
    lib.llama_log_set(listen, ctypes.c_void_p(0))
    bare = lib.llama_model_default_params()
    bare.no_alloc, bare.load_mode, bare.n_gpu_layers = True, lib.LLAMA_LOAD_MODE_NONE, 0
    model = lib.llama_model_load_from_file(str(path).encode(), bare)
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = made.cells, 512, made.ubatch
    params.n_seq_max = params.n_outputs_max = made.sequences
    params.flash_attn_type = 1 if made.flash else 0
    params.type_k = params.type_v = {"f16": 1, "q8_0": 8, "q4_0": 2}[made.kv_type]
    params.kv_unified, params.swa_full = not made.lanes, False
    context = lib.llama_init_from_model(model, params)
    lib.llama_free(context)
    lib.llama_model_free(model)
    log = "".join(lines)
    patterns = {
        "KV cache": r"llama_kv_cache: size =\s*([\d.]+) MiB",
        "compute": r"compute buffer size =\s*([\d.]+) MiB",
        "output": r"output buffer size =\s*([\d.]+) MiB",
    }
    return {name: MIB * sum(map(float, re.findall(pattern, log))) for name, pattern in patterns.items()}


def buffers(folder: Path) -> Iterator[Compared]:
    """Estimates beside llama.cpp's own words, over shapes and contexts."""
    for name, shape in SHAPES.items():
        path = folder / "shape.gguf"
        write(path, shape, weights=False)
        body = examine(path)
        assert isinstance(body, Anatomy)
        for cells, sequences, ubatch, flash, kv_type, lanes in CONTEXTS:
            made = Plan(cells, cells, sequences, sequences, ubatch, kv_type, flash, 0, 0, lanes=lanes)
            said = own_words(path, made)
            guessed = {
                "KV cache": llamacpp(body, made).of("KV cache"),
                "compute": compute(body, made),
                "output": output(body, made),
            }
            settings = f"{cells:,} cells, {sequences} {'lanes' if lanes else 'sequences'}, batch {ubatch}, "
            settings += f"{'flash, ' if flash else ''}{kv_type}"
            weights = body.weights
            yield Compared(name, settings, weights + sum(guessed.values()), weights + sum(said.values()))
            yield Compared(f"{name}, compute", settings, guessed["compute"], said["compute"])
        path.unlink()


# -- the worker itself -------------------------------------------------------------------------------------------------


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def loaded(path: Path, load: Load) -> int:
    """The most that a worker is resident with while prompts fill its whole context."""
    flags = ["--slots", load.slots, "--ctx", load.context, "--kv", load.shared, "--kv-type", load.kv_type,
             "--flash-attn", load.flash, "--shelf-mb", 0]  # fmt: skip
    argv = [sys.executable, "-P", "-m", "lumen.workers.llamacpp", "--model", path, "--name", "m", "--port", 0, *flags]
    process = subprocess.Popen(
        [str(word) for word in argv],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        ready = next(said for line in process.stdout if (said := json.loads(line))["phase"] in ("ready", "failed"))
        asking = [
            threading.Thread(target=_fill, args=(ready["port"], load.context, seed)) for seed in range(load.answers)
        ]
        for thread in asking:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in asking):
            most = max(most, resident(process.pid))
            asking[0].join(0.02)
        return max(most, resident(process.pid))
    finally:
        process.terminate()
        process.wait(20)


def _fill(port: int, context: int, seed: int) -> None:
    tokens = [random.Random(seed).randrange(100, 2000) for _ in range(context - 8)]
    body = {"model": "m", "prompt": tokens, "max_tokens": 8, "ignore_eos": True, "seed": seed}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=900) as answer:
        assert json.loads(answer.read())["usage"]["prompt_tokens"] == context - 8


def processes(folder: Path, quick: bool) -> Iterator[Compared]:
    """Estimates beside the worker's resident memory."""
    small, half = folder / "0.1B.gguf", folder / "0.5B.gguf"
    models = [("lumen-tiny", TINY, LOADS + LONG)]
    if not quick:
        write(small, Shape(layers=12, embedding=768, heads=12, heads_kv=4, feed_forward=2048, vocabulary=32_000))
        write(half, Shape("llama", 24, 1024, 16, 8, 64, 4096, 100_000))
        models += [("random 0.1B", small, LOADS), ("random 0.5B", half, HALF)]
    for name, path, loads in models:
        body = examine(path)
        assert isinstance(body, Anatomy)
        for load in loads:
            options: dict[str, Any] = {"flash_attn": load.flash, "shelf_mb": 0, "kv": load.shared}
            model = Model(source="x", slots=load.slots, context=load.context, kv_type=load.kv_type, options=options)
            made = plan(model, body)
            settings = f"{load.slots} × {load.context:,} tokens, {load.kv_type}{', flash' if made.flash else ''}"
            settings += f", {load.shared:,} cells shared" if load.shared else ""
            yield Compared(name, settings, llamacpp(body, made).total, loaded(path, load))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fit", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the built-in model alone, of the processes")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    given = parser.parse_args()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    with tempfile.TemporaryDirectory() as name:
        own = list(buffers(Path(name)))
        real = []
        for one in processes(Path(name), given.quick):
            print(one.row(), flush=True)
            real.append(one)
    text = _text(own, real)
    print(text)
    if given.write:
        report.write("Memory estimates", text)


def _text(own: list[Compared], real: list[Compared]) -> str:
    whole = [one for one in own if not one.what.endswith(", compute")]
    scratch = [one for one in own if one.what.endswith(", compute")]
    largest = [max((one for one in whole if one.what == name), key=lambda one: one.measured) for name in SHAPES]
    lines = [
        "`python -m bench.fit`. Sizes in MiB; off = estimate ÷ measured − 1.",
        "",
        f"**llama.cpp's own buffers** over the shapes of {len(SHAPES)} models, {len(whole)} contexts: off by at most "
        f"{_worst(whole):.1f} % in all, by at most {_worst(scratch):.1f} % in the compute buffer alone. "
        "The largest each:",
        "",
        "| model | context | estimated | llama.cpp says | off |",
        "| --- | --- | --- | --- | --- |",
        *(one.row() for one in largest),
        "",
        f"**The worker's resident memory** at its most: off by at most {_worst(real):.1f} %. Each answer fills its "
        "own cells, or one fills those that all share, in full batches up to the last.",
        "",
        "| model | settings | estimated | resident | off |",
        "| --- | --- | --- | --- | --- |",
        *(one.row() for one in real),
    ]
    return "\n".join(lines)


def _worst(found: list[Compared]) -> float:
    return max(100 * abs(one.off) for one in found)


if __name__ == "__main__":
    main()

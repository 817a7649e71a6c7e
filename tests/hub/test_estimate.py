"""Estimates against what llama.cpp itself said it allocates (recorded), and against the worker at hand (live)."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.schema import Model
from lumen.hardware.devices import RAM
from lumen.hub import estimate, gguf
from lumen.hub.anatomy import Anatomy, anatomy
from lumen.hub.estimate import MIB, Plan, compute, llamacpp, output, plan
from lumen.hub.estimate_draft import REST, WEIGHTS, draft_plan
from lumen.hub.needs import adapter_bytes, asleep, needs
from tests.hub.ggufs import gguf as encode

DRAFT = Path(estimate.__file__).parent.parent / "tiny" / "lumen-tiny-draft.gguf"
TINY = Path(estimate.__file__).parent.parent / "tiny" / "lumen-tiny.gguf"


@cache
def body(
    arch: str = "llama",
    *,
    layers: int = 16,
    wide: int = 2048,
    heads: int = 32,
    heads_kv: int = 8,
    head: int = 64,
    ff: int = 8192,
    vocabulary: int = 128_256,
    tied: bool = True,
    experts: int = 0,
    window: int = 0,
) -> Anatomy:
    """The anatomy of a real shape: a header is enough for it."""
    metadata: dict[str, Any] = {
        "general.architecture": arch,
        f"{arch}.block_count": layers,
        f"{arch}.context_length": 32_768,
        f"{arch}.embedding_length": wide,
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": heads_kv,
        f"{arch}.attention.key_length": head,
        f"{arch}.attention.value_length": head,
        f"{arch}.feed_forward_length": ff,
        f"{arch}.vocab_size": vocabulary,
    }
    if experts:
        metadata |= {f"{arch}.expert_used_count": experts, f"{arch}.expert_feed_forward_length": ff}
    if window:
        metadata[f"{arch}.attention.sliding_window"] = window
    tensors = [("token_embd.weight", (wide, 8), 8), ("output_norm.weight", (wide,), 0)]
    tensors += [(f"blk.{layer}.ffn_up.weight", (wide, 4), 8) for layer in range(layers)]
    if not tied:
        tensors.append(("output.weight", (wide, 8), 8))
    data = encode(metadata, tensors)
    return anatomy((gguf.parse(BytesIO(data), len(data)),))


LLAMA_1B = body()
LLAMA_8B = body(layers=32, wide=4096, head=128, ff=14_336)
QWEN3_06B = body("qwen3", layers=28, wide=1024, heads=16, head=128, ff=3072, vocabulary=151_936)
QWEN3_32B = body("qwen3", layers=64, wide=5120, heads=64, head=128, ff=25_600, vocabulary=151_936)
QWEN3_MOE = body("qwen3moe", layers=48, heads_kv=4, head=128, ff=768, vocabulary=151_936, experts=8)
GEMMA3_4B = body(
    "gemma3", layers=34, wide=2560, heads=8, heads_kv=4, head=256, ff=10_240, vocabulary=262_144, window=1024
)


@pytest.mark.parametrize(
    ("shape", "cells", "sequences", "ubatch", "flash", "mib"),
    [
        (LLAMA_1B, 4096, 1, 512, True, 68.01),
        (LLAMA_1B, 32_768, 40, 512, True, 97.51),
        (LLAMA_1B, 32_768, 40, 128, True, 30.0),
        (LLAMA_1B, 4096, 40, 512, False, 290.48),
        (LLAMA_1B, 32_768, 40, 512, False, 2167.35),
        (LLAMA_1B, 8192, 4, 256, False, 275.0),
        (LLAMA_8B, 32_768, 40, 512, True, 150.32),
        (LLAMA_8B, 4096, 1, 512, False, 308.01),
        (QWEN3_06B, 4096, 8, 512, True, 30.01),
        (QWEN3_06B, 32_768, 40, 128, True, 23.97),
        (QWEN3_06B, 32_768, 40, 512, False, 1123.29),
        (QWEN3_32B, 4096, 1, 512, True, 200.01),
        (QWEN3_32B, 32_768, 40, 512, False, 4292.04),
        (QWEN3_MOE, 4096, 40, 512, True, 93.45),
        (QWEN3_MOE, 8192, 4, 256, False, 279.0),
        (GEMMA3_4B, 4096, 1, 512, True, 84.52),
        (GEMMA3_4B, 32_768, 40, 512, True, 145.25),
        (GEMMA3_4B, 32_768, 40, 512, False, 681.5),
    ],
)
def test_compute_buffers_as_llama_cpp_allocates_them(
    shape: Anatomy, cells: int, sequences: int, ubatch: int, flash: bool, mib: float
) -> None:
    made = Plan(cells, cells, sequences, sequences, ubatch, "f16", flash, 0, 0)
    assert compute(shape, made) / MIB == pytest.approx(mib, rel=0.001)


@pytest.mark.parametrize(
    ("shape", "cells", "sequences", "ubatch", "flash", "cache", "mib"),
    [
        (LLAMA_1B, 1024, 4, 128, False, 128.0, 22.0),
        (LLAMA_1B, 2048, 16, 128, False, 1024.0, 38.5),
        (LLAMA_1B, 4096, 8, 512, True, 1024.0, 68.01),
        (QWEN3_06B, 1024, 4, 128, False, 448.0, 13.0),
        (QWEN3_06B, 2048, 16, 128, False, 3584.0, 21.5),
        (QWEN3_06B, 4096, 8, 512, True, 3584.0, 30.01),
        (GEMMA3_4B, 4096, 8, 512, True, 2032.0, 84.52),
    ],
)
def test_lanes_as_llama_cpp_allocates_them(
    shape: Anatomy, cells: int, sequences: int, ubatch: int, flash: bool, cache: float, mib: float
) -> None:
    made = Plan(cells, cells * sequences, sequences, sequences, ubatch, "f16", flash, 0, 0, lanes=True)
    assert llamacpp(shape, made).of("KV cache") / MIB == pytest.approx(cache, abs=0.01)
    assert compute(shape, made) / MIB == pytest.approx(mib, rel=0.001)


def test_output_buffers_as_llama_cpp_allocates_them() -> None:
    for shape, sequences, mib in ((LLAMA_1B, 40, 19.57), (QWEN3_06B, 8, 4.64), (GEMMA3_4B, 40, 40.0)):
        made = Plan(4096, 4096, sequences, sequences, 512, "f16", True, 0, 0)
        assert output(shape, made) / MIB == pytest.approx(mib, abs=0.01)


def test_caches_with_and_without_windows() -> None:
    made = Plan(8192, 8192, 1, 1, 512, "f16", True, 0, 0)
    assert llamacpp(LLAMA_1B, made).of("KV cache") == 256 * MIB
    assert llamacpp(GEMMA3_4B, made).of("KV cache") == (160 + 174) * MIB
    made = replace(made, cells=16_384, sequences=4, slots=4, kv_type="q8_0")
    assert llamacpp(GEMMA3_4B, made).of("KV cache") / MIB == pytest.approx(447.31, abs=0.01)


def test_where_the_layers_lie() -> None:
    made = Plan(4096, 4096, 1, 1, 512, "f16", True, 0, -1)
    here = llamacpp(LLAMA_8B, made)
    assert set(here.by_device()) == {"ram"}
    there = llamacpp(LLAMA_8B, made, ["cuda:0"])
    assert there.of("KV cache") == here.of("KV cache")
    # The embeddings are the head too: it goes to the card, and they stay where tokens are looked up.
    assert here.of("weights") == LLAMA_8B.weights == _of(there, "weights", "cuda:0")
    assert _of(there, "weights", "ram") == LLAMA_8B.input_bytes
    untied = body(tied=False)
    assert _of(llamacpp(untied, made, ["cuda:0"]), "weights", "ram") == untied.input_bytes
    assert llamacpp(untied, made, ["cuda:0"]).of("weights") == untied.weights
    half = llamacpp(LLAMA_8B, replace(made, gpu_layers=17), ["cuda:0"])
    assert _of(half, "KV cache", "cuda:0") == _of(half, "KV cache", "ram") == here.of("KV cache") // 2
    two = llamacpp(LLAMA_8B, made, ["cuda:0", "cuda:1"], [3.0, 1.0])
    assert _of(two, "KV cache", "cuda:0") == 25 * here.of("KV cache") // 32
    assert two.of("KV cache") == here.of("KV cache")
    assert llamacpp(LLAMA_8B, replace(made, gpu_layers=0), ["cuda:0"]) == here


@given(st.integers(-1, 40), st.lists(st.floats(0.1, 9), min_size=1, max_size=4))
def test_every_layer_lies_somewhere_once(layers: int, shares: list[float]) -> None:
    cards = [f"cuda:{number}" for number in range(len(shares))]
    made = Plan(4096, 4096, 1, 1, 512, "f16", True, 0, layers)
    untied = body(tied=False)
    found = llamacpp(untied, made, cards, shares)
    assert found.of("KV cache") == llamacpp(untied, made).of("KV cache")
    assert found.of("weights") == untied.weights
    assert set(found.by_device()) <= {"ram", *cards} and sum(found.by_device().values()) == found.total


def _of(found: estimate.Estimate, what: str, device: str) -> int:
    return sum(item.size for item in found.items if (item.what, item.device) == (what, device))


def test_what_is_chosen_where_the_configuration_leaves_it_open() -> None:
    made = plan(Model(source="x"), LLAMA_1B)
    assert (made.context, made.cells, made.slots, made.sequences) == (8192, 32_768, 8, 40)
    assert made.flash and made.ubatch == 512 and not made.lanes
    small = plan(Model(source="x", context=1000, slots=3), LLAMA_1B)
    assert (small.lanes, small.cells, small.reach, small.sequences) == (True, 3072, 1024, 3)
    assert not small.flash and small.ubatch == 128
    assert plan(Model(source="x", gpu_layers=-1, context=512), LLAMA_1B, cards=1).flash
    assert plan(Model(source="x", gpu_layers=-1), LLAMA_1B).gpu_layers == 0
    # Windows forget: nothing is parked where cells are shared.
    assert plan(Model(source="x", slots=8), GEMMA3_4B).sequences == 8
    given_ = plan(Model(source="x", options={"kv": 5000, "ubatch": 64, "flash_attn": "off"}), LLAMA_1B)
    assert (given_.cells, given_.context, given_.ubatch, given_.flash) == (5120, 5000, 64, False)
    embedding = plan(Model(source="x", embedding=True, context=2048), LLAMA_1B)
    assert (embedding.sequences, embedding.cells, embedding.shelf) == (1, 2048, 0)


# -- live ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What llama.cpp logs while the test runs."""
    binding = pytest.importorskip("lumen.workers.llamacpp.binding")
    binding.start_backend()
    lines: list[str] = []
    listen = binding.lib.llama_log_callback(lambda _level, text, _user: lines.append(text.decode("utf-8", "replace")))
    binding.lib.llama_log_set(listen, ctypes.c_void_p(0))
    yield lines
    binding.lib.llama_log_set(binding._log_callback, ctypes.c_void_p(0))


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        (Model(source="x"), {}),
        (
            Model(source="x", slots=2, context=1024, options={"speculate": "off"}),
            {"slots": 2, "ctx": 1024, "speculate": "off"},
        ),
        (Model(source="x", slots=3, kv_type="q8_0"), {"slots": 3, "kv_type": "q8_0"}),
        (Model(source="x", slots=4, context=1024, options={"kv": 2048}), {"slots": 4, "ctx": 1024, "kv": 2048}),
        (
            Model(source="x", slots=1, context=600, options={"kv": 2000, "ubatch": 64, "flash_attn": "on"}),
            {"slots": 1, "ctx": 600, "kv": 2000, "ubatch": 64, "flash_attn": "on"},
        ),
    ],
)
def test_the_worker_starts_as_estimated(said: list[str], model: Model, flags: dict[str, Any]) -> None:
    from lumen.workers.llamacpp.settings import Settings
    from lumen.workers.llamacpp.worker import load

    tiny = anatomy((gguf.read(TINY),))
    made = plan(model, tiny)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(model=TINY, name="tiny", socket=Path(folder) / "s", **flags)
        worker = load(settings, lambda *_args, **_values: None)
    try:
        context = worker._context
        assert context is not None
        assert (context.n_cells, context.shape.n_seq, worker.n_ctx) == (made.cells, made.sequences, made.context)
        assert settings.shelf_mb * MIB == made.shelf
        assert context.shape.outputs == made.sequences + made.guesses
    finally:
        worker.close()
    log = "".join(said)
    found = llamacpp(tiny, made)
    assert _said(log, "KV buffer") == pytest.approx(found.of("KV cache") / MIB, abs=0.02)
    assert _said(log, "model buffer") == pytest.approx(found.of("weights") / MIB, rel=0.01)
    # Rows for guesses are taken when the first are made.
    assert _said(log, "output buffer") == pytest.approx(output(tiny, replace(made, guesses=0)) / MIB, abs=0.02)
    assert _said(log, "compute buffer") == pytest.approx(compute(tiny, made) / MIB, rel=0.05)


def _said(log: str, what: str) -> float:
    return sum(float(size) for size in re.findall(rf"{what} size =\s*([\d.]+) MiB", log))


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        (Model(source="x", slots=3, context=1024), {"slots": 3, "ctx": 1024}),
        (Model(source="x", slots=4, context=1024, options={"kv": 2048}), {"slots": 4, "ctx": 1024, "kv": 2048}),
    ],
)
def test_a_draft_model_starts_as_estimated(said: list[str], model: Model, flags: dict[str, Any]) -> None:
    from lumen.workers.llamacpp.settings import Settings
    from lumen.workers.llamacpp.worker import load

    tiny, small = (anatomy((gguf.read(path),)) for path in (TINY, DRAFT))
    alone, both = needs(tiny, model), needs(tiny, model, draft=small)
    assert alone is not None and both is not None
    assert needs(tiny, replace(model, options={"speculate": "off"}), draft=small) == needs(
        tiny, replace(model, options={"speculate": "off"})
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(model=TINY, name="tiny", socket=Path(folder) / "s", draft=DRAFT, **flags)
        worker = load(settings, lambda *_args, **_values: None)
    try:
        drafter, made = worker._drafter, draft_plan(model, plan(model, tiny), small)
        assert drafter is not None
        context = drafter.context
        assert (context.n_cells, context.shape.n_seq, context.shape.lanes) == (made.cells, made.sequences, made.lanes)
        assert (context.shape.n_ubatch, context.shape.flash_attn != "off") == (made.ubatch, made.flash)
    finally:
        worker.close()
    log = "".join(said)
    assert _said(log, "model buffer") == pytest.approx((both.of("weights") + both.of(WEIGHTS)) / MIB, rel=0.01)
    caches = both.of("KV cache") + llamacpp(small, made).of("KV cache")
    assert _said(log, "KV buffer") == pytest.approx(caches / MIB, abs=0.04)
    assert llamacpp(small, made).of("KV cache") < both.total - alone.total - both.of(WEIGHTS) == both.of(REST)
    asleep_alone, asleep_both = asleep(model, alone), asleep(model, both)
    assert asleep_alone is not None and asleep_both is not None
    assert asleep_both.total - asleep_alone.total == both.of(WEIGHTS) == small.weights


def test_adapters_lie_beside_the_weights_that_they_change() -> None:
    found = needs(body(), Model("x", gpu_layers=8), ["gpu0"], {"gpu0": 1})
    worn = needs(body(), Model("x", gpu_layers=8), ["gpu0"], {"gpu0": 1}, adapters=100 * MIB)
    assert found is not None and worn is not None
    more = {item.device: item.size for item in worn.items if item.what == "adapters"}
    assert more.keys() == {RAM, "gpu0"}
    assert abs(sum(more.values()) - 100 * MIB) < 10
    assert worn.total - found.total == sum(more.values())
    on_cpu = needs(body(), Model("x"), adapters=7)
    assert on_cpu is not None
    sleeping = asleep(Model("x"), on_cpu)
    assert sleeping is not None and sleeping.of("adapters") == on_cpu.of("adapters") == 7


def test_the_bytes_of_adapters(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(bytes(100))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(bytes(30))
    (tmp_path / "b" / "README.md").write_bytes(bytes(1000))
    assert adapter_bytes([tmp_path / "a.gguf", tmp_path / "b", tmp_path / "absent"]) == 130

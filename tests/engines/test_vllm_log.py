"""What vLLM's log tells. The CPU's lines and the failure were written by vLLM 0.32; the GPU's lines are put together
from the formats of its messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.schema import Model
from lumen.engines._vllm_log import remedy, said, shorter
from lumen.workers.phases import PhaseReader

RECORDED = Path(__file__).with_name("recorded")
MODEL = Model(source="x", engine="vllm", context=4096, options={"kv_cache_memory_bytes": 8_000_000})


def phases(name: str) -> list[tuple[str, float | None]]:
    """Each phase once, with how far it is when that changes."""
    found: list[tuple[str, float | None]] = []
    for phase in PhaseReader(said).feed((RECORDED / name).read_bytes()):
        if not found or found[-1] != (phase.name, phase.pct):
            found.append((phase.name, phase.pct))
    return found


def test_a_start_on_the_cpu() -> None:
    assert phases("vllm-start-cpu.log") == [
        ("start", None), ("load", 0), ("load", 100), ("compile", None), ("memory", None), ("warm", None),
    ]  # fmt: skip


def test_a_start_on_a_gpu() -> None:
    assert phases("vllm-start-gpu.log") == [
        ("start", None), ("load", 0), ("load", 50), ("load", 100), ("compile", None), ("memory", None),
        ("graphs", 0), ("graphs", 40), ("graphs", 100), ("warm", None),
    ]  # fmt: skip


def test_bars_redrawn_on_one_line_are_read_as_they_move() -> None:
    bar = b"".join(b"\rCapturing CUDA graphs (decode, FULL):  %d%%|##| 1/7" % pct for pct in (14, 57, 100)) + b"\n"
    assert [phase.pct for phase in PhaseReader(said).feed(bar)] == [14, 57, 100]


def failure() -> list[str]:
    return (RECORDED / "vllm-no-memory.log").read_text("utf-8").splitlines()


def test_the_length_that_fits_is_taken_from_vllm_itself() -> None:
    found = remedy(failure(), MODEL)
    assert found is not None and found.model is not None
    client, _, rest = found.why.partition(":")
    assert client == "its engine ran out of memory while starting with a context of 4096 tokens"
    assert "larger than the available KV cache memory" in rest
    # The KV cache is as large as was asked for; only the context is too long for it.
    assert found.model.context == 768
    assert found.model.options == MODEL.options
    # The cause, not the last words of whoever waited for it.
    assert "ValueError: To serve" in found.lines[-1] and len(found.lines) <= 13


@pytest.mark.parametrize(
    "line",
    [
        "(EngineCore pid=1) ERROR 11-22 18:37:38 [core.py:9] torch.OutOfMemoryError: CUDA out of memory. Tried to "
        "allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.2 GiB is free.",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "ValueError: Available memory on node 0 (3/11 GiB) on kv cache allocation is less than requested memory for kv",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_where_the_memory_is_full_half_the_context_is_tried(line: str) -> None:
    found = remedy(["INFO before", line, "RuntimeError: Engine core initialization failed."], MODEL)
    assert found is not None and found.model is not None and "ran out of memory" in found.why
    assert (found.model.context, found.model.options["kv_cache_memory_bytes"]) == (2048, 4_000_000)


def test_a_card_that_others_hold_is_not_helped_by_a_shorter_context() -> None:
    line = (
        "ValueError: Free memory on device cuda:0 (3.9/79.1 GiB) on startup is less than desired GPU memory utilization"
    )
    found = remedy([line], MODEL)
    assert found is not None and found.model is None and "Free memory on device" in found.why


def test_other_failures_are_told_in_their_own_words() -> None:
    lines = [
        "INFO x",
        "Traceback (most recent call last):",
        "ValueError: unknown architecture Foo",
        "RuntimeError: above",
    ]
    found = remedy(lines, MODEL)
    assert found is not None
    assert (found.why, found.model) == ("its engine failed while starting: ValueError: unknown architecture Foo", None)
    found = remedy(["api_server.py: error: unrecognized arguments: --max-nun-seqs=3"], MODEL)
    assert found is not None and "--max-nun-seqs is no flag" in found.why
    found = remedy(
        ["User-specified max_model_len (8192) is greater than the derived max_model_len (x_y=2048 or"], MODEL
    )
    assert found is not None and found.model is not None and found.model.context == 2048
    assert remedy(["INFO all is well"], MODEL) is None
    assert remedy([], MODEL) is None


def test_a_context_is_shortened_only_so_far() -> None:
    assert shorter(MODEL, 4096) is None
    assert shorter(MODEL, 511) is None
    cut = shorter(MODEL, 1000)
    assert cut is not None and cut.context == 992
    full = "MemoryError"
    found = remedy([full], Model(source="x", engine="vllm", context=900))
    assert found is not None and found.model is None
    found = remedy([full], Model(source="x", engine="vllm"))
    assert found is not None and found.model is None


@given(st.lists(st.text(max_size=80), max_size=30))
def test_whatever_it_writes(lines: list[str]) -> None:
    for line in lines:
        phase = said(line)
        assert phase is None or phase.pct is None or 0 <= phase.pct <= 100
    found = remedy(lines, MODEL)
    assert found is None or found.why

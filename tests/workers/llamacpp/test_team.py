"""Threads that stay between decodes: they change no number, and go when their context goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.shapes import Q4_0, write
from bench.shapes import Shape as Sizes
from lumen import tiny
from lumen.workers.llamacpp import team
from lumen.workers.llamacpp.context import Context, Floats, Shape
from lumen.workers.llamacpp.model import Model
from lumen.workers.llamacpp.scheduler import Chunk
from lumen.workers.llamacpp.worker import _One

TOKENS = list(range(5, 85))
TEAM = 2


def tasks() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def threads() -> int:
    return len(tasks())


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    made = Model(tiny.MODEL, gpu_layers=0, repack="auto", progress=lambda _pct: None)
    yield made
    made.close()


def context(model: Model) -> Context:
    return Context(model, Shape(512, 128, 128, 1, TEAM, 1, flash_attn="off"))


def answer(made: Context) -> Floats:
    """Logits behind a prompt and one more token."""
    made.clear()
    sequence = _One(TOKENS)
    made.decode([Chunk(sequence, 0, len(TOKENS) - 1, False)])
    (row,) = made.decode([Chunk(sequence, len(TOKENS) - 1, 1, True)])
    return made.logits(row).copy()


@pytest.mark.skipif("libgomp" in Path("/proc/self/maps").read_text(), reason="this llama.cpp has OpenMP's threads")
def test_they_stay_between_decodes_and_go_with_the_context(model: Model) -> None:
    before = threads()
    made = context(model)
    for _ in range(2):
        answer(made)
        assert threads() == before + TEAM - 1  # one is the one that asks
        made.close()
        assert threads() == before
        made.reopen()
    made.close()
    made.close()
    assert threads() == before


def test_the_answer_is_the_same_with_them_and_without(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = context(model)
    with_team = answer(made)
    made._set_threads(1)
    alone = answer(made)
    made._set_threads(TEAM)
    again = answer(made)
    made.close()
    monkeypatch.setattr(team, "_pool", lambda _threads: None)  # as where this ggml knows no such thing
    made = context(model)
    without = answer(made)
    made.close()
    for other in (alone, again, without):
        assert np.array_equal(with_team, other)


def test_they_know_weights_that_were_rearranged_for_this_processor(tmp_path: Path) -> None:
    write(tmp_path / "packed.gguf", Sizes(layers=2, embedding=256, heads=4, heads_kv=4, vocabulary=2048, kind=Q4_0))
    made = Model(tmp_path / "packed.gguf", gpu_layers=0, repack="on")
    some = context(made)
    with_team = answer(some)
    some._set_threads(1)
    alone = answer(some)
    some.close()
    made.close()
    assert np.isfinite(alone).all() and np.array_equal(with_team, alone)


def test_there_is_one_copy_of_each_library(model: Model) -> None:
    context(model).close()
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "ggml" in line}
    known = {name for path in mapped if (name := Path(path).name.split(".")[0])}
    assert len(mapped) == len(known)


@pytest.mark.skipif("libgomp" in Path("/proc/self/maps").read_text(), reason="this llama.cpp has OpenMP's threads")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_where_there_are_processors_for_all_they_leave_one_to_the_caller(model: Model) -> None:
    allowed, before = os.sched_getaffinity(0), tasks()
    made = Context(model, Shape(512, 128, 128, 1, len(allowed), 1, flash_attn="off"))
    begun = [os.sched_getaffinity(int(task.name)) for task in tasks() - before]
    answer(made)  # which called them
    made.close()
    assert [len(processors) for processors in begun] == [len(allowed) - 1] * (len(allowed) - 1)
    assert os.sched_getaffinity(0) == allowed


def test_threads_are_as_many_as_before_after_a_sleep(model: Model) -> None:
    made = context(model)
    made._set_threads(1)
    made.close()
    made.reopen()
    assert made._threads == TEAM
    made.close()

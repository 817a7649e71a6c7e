"""Which builds of llama.cpp may rearrange weights, and what becomes of a model that computes no numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.shapes import F16, Shape, write
from lumen.workers.llamacpp import binding
from lumen.workers.llamacpp.model import LoadError
from lumen.workers.llamacpp.settings import Settings
from lumen.workers.llamacpp.worker import load


@pytest.mark.parametrize(
    ("said", "broken"), [(b"AVX2 = 1 | AMX_INT8 = 1 | REPACK = 1 | ", True), (b"REPACK = 1 | ", False)]
)
def test_a_build_with_amx_tiles_leaves_weights_as_they_are(
    monkeypatch: pytest.MonkeyPatch, said: bytes, broken: bool
) -> None:
    monkeypatch.setattr(binding.lib, "llama_print_system_info", lambda: said)
    assert binding.has_broken_amx() is broken


def test_a_model_that_computes_no_numbers_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, Shape("llama", 1, 64, 2, 2, 32, 64, 2048, spread=float("nan"), kind=F16, context=256))
    with pytest.raises(LoadError, match=r"no numbers.*repack: off"):
        load(Settings(path, "x", port=0), lambda _phase, **_told: None)

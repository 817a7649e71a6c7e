"""Which builds of llama.cpp may rearrange weights."""

from __future__ import annotations

import pytest

from lumen.workers.llamacpp import binding


@pytest.mark.parametrize(
    ("said", "broken"), [(b"AVX2 = 1 | AMX_INT8 = 1 | REPACK = 1 | ", True), (b"REPACK = 1 | ", False)]
)
def test_a_build_with_amx_tiles_leaves_weights_as_they_are(
    monkeypatch: pytest.MonkeyPatch, said: bytes, broken: bool
) -> None:
    monkeypatch.setattr(binding.lib, "llama_print_system_info", lambda: said)
    assert binding.has_broken_amx() is broken

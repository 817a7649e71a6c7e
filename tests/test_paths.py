from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from lumen.paths import paths


@pytest.mark.parametrize(("home", "temporary"), [("h", "t"), ("h" * 90, "t"), ("h" * 90, "t" * 90), ("h", "t" * 90)])
def test_sockets_have_short_names_wherever_a_box_and_its_temporary_files_lie(
    home: str, temporary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / temporary
    folder.mkdir()
    monkeypatch.setenv("LUMEN_HOME", str(tmp_path / home))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    run = paths().run_dir
    assert len(os.fsencode(run)) <= 64
    assert run == paths().run_dir

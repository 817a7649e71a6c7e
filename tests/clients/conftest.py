"""Real clients, each in an environment of its own, so that what they pin cannot clash with what Lumen pins.

They run where `LUMEN_CLIENTS` is set; where an environment cannot be made (no registry in reach) they are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
Run = Callable[[str, str, str, str], str]


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs `tests/clients/SCRIPT.py URL KEY` with a package installed; returns what it printed."""
    if not os.environ.get("LUMEN_CLIENTS"):
        pytest.skip("set LUMEN_CLIENTS=1 to run real clients of other makers")
    folder = tmp_path_factory.mktemp("clients")

    def run(package: str, script: str, url: str, key: str) -> str:
        home = folder / package.partition("=")[0]
        python = home / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
            installing = [str(python), "-m", "pip", "install", "--quiet", package]
            if subprocess.run(installing, timeout=300, check=False).returncode:
                pytest.skip(f"{package} cannot be installed here")
        asked = subprocess.run(
            [str(python), str(HERE / f"{script}.py"), url, key],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout

    return run

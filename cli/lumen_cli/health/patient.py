"""What the checks of `lumen doctor` look at and what they find."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lumen.core.errors import LumenError
from lumen.paths import Paths
from lumen_cli.client import Admin
from lumen_cli.errors import CliError

if TYPE_CHECKING:
    from lumen.config.schema import Config
    from lumen.hardware import Hardware

Level = Literal["ok", "warn", "bad"]

_ENGINE_TIMEOUT = 30.0
_TRY_ENGINE = (
    "import json, llama_cpp; "
    "print(json.dumps({'version': llama_cpp.__version__, 'gpu': bool(llama_cpp.llama_supports_gpu_offload())}))"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend`: what to do, where something is to be done."""

    check: str
    level: Level
    what: str
    mend: str | None = None


class Patient:
    """What the checks look at; everything costly is looked up once, when it is first needed."""

    def __init__(self, paths: Paths, config_file: Path) -> None:
        self.paths = paths
        self.config_file = config_file

    @cached_property
    def status(self) -> dict[str, Any] | None:
        """The running gateway's status, or `None`."""
        try:
            return Admin(self.paths.admin_socket, timeout=3.0).status_or_none()
        except (CliError, OSError):
            return None

    @cached_property
    def config(self) -> Config:
        """The configuration, or the defaults where it is broken: `config` tells that."""
        from lumen.config.load import load
        from lumen.config.schema import Config

        try:
            return load(self.config_file if self.config_file.exists() else None)
        except LumenError:
            return Config()

    @cached_property
    def hardware(self) -> Hardware:
        from lumen.hardware import detect

        return detect(self.paths.models_dir)

    @cached_property
    def engine(self) -> dict[str, Any]:
        """`{version, gpu}` of llama-cpp-python, or `{error}`."""
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _TRY_ENGINE],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_ENGINE_TIMEOUT,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode == 0:
                return dict(json.loads(done.stdout.splitlines()[-1]))
        except subprocess.TimeoutExpired:
            return {"error": f"it does not load within {_ENGINE_TIMEOUT:.0f} s"}
        except (OSError, ValueError, IndexError):
            return {"error": "it answers nonsense"}
        if done.returncode < 0:
            return {"error": f"it ends with signal {-done.returncode}"}
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": lines[-1][:200] if lines else f"it ends with status {done.returncode}"}

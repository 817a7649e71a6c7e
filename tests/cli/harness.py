"""What tests of the command line share: what a run gave, and scripted gateways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lumen_cli import gateway

from lumen.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).parent / "fake_gateway.py"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Fake:
    """Scripted gateways of one test: `play` writes the script, `start` runs one directly."""

    home: Paths
    script: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def play(self, **script: Any) -> None:
        self.script.write_text(json.dumps(script))

    def argv(self, options: gateway.Options) -> list[str]:
        return [sys.executable, str(FAKE), "-m", "lumen", *options.arguments()]

    def start(self, *args: str, **script: Any) -> subprocess.Popen[bytes]:
        self.play(**script)
        process = subprocess.Popen([*self.argv(gateway.Options()), *args])
        self.running.append(process)
        deadline = time.monotonic() + 100
        while not self.home.gateway_file.exists():
            assert process.poll() is None, "the scripted gateway died"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    def calls(self, path: str | None = None) -> list[dict[str, Any]]:
        file = self.script.with_name(self.script.name + ".calls")
        made = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [call for call in made if path is None or call["path"] == path]


def environment() -> dict[str, str]:
    """For a `lumen` in a process of its own."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT), str(ROOT / "cli")]),
    }


def model(state: str, *, phase: str | None = None, pct: float | None = None, restarts: int = 0, why: str | None = None,
          name: str = "m") -> dict[str, Any]:  # fmt: skip
    replica = {"model": name, "index": 0, "engine": "llamacpp", "state": state, "since": 0.0, "why": why, "pid": 4,
               "phase": phase, "pct": pct, "restarts": restarts, "in_flight": 0}  # fmt: skip
    return {"name": name, "ready": state == "ready", "tiny": False, "source": "x.gguf", "replicas": [replica]}


READY = {"ready": True, "models": [model("ready")]}

# One model as a gateway tells of it, and a configuration with one of each kind.
REPLICA = {"model": "m", "index": 0, "engine": "llamacpp", "state": "ready", "since": 0.0, "why": None, "pid": 42,
           "phase": None, "pct": None, "restarts": 1, "in_flight": 2}  # fmt: skip
MODEL = {"name": "m", "ready": True, "tiny": False, "source": "x", "replicas": [REPLICA]}
CONFIG = """\
# mine
models:
  small: {source: small.gguf}  # the small one
providers:
  acme: {base_url: "https://api.example.com/v1"}
"""

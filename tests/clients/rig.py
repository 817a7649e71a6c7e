"""A real box with the built-in model, emulated providers of three dialects behind it, and clients driven against it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients import environments
from tests.clients.matrix import Client
from tests.e2e.emulated import Emulated, emulated

DRIVERS = Path(__file__).parent / "drivers"
CONFIG = """
responses: {store: true}
models:
  lumen-tiny: {source: "builtin:tiny", slots: 2}
providers:
  openai-like:
    base_url: http://127.0.0.1:PORT/v1
    dialect: openai
    capabilities: {rerank: true, moderations: true, image_generation: true, transcription: true, speech: true}
  anthropic-like: {base_url: "http://127.0.0.1:PORT/v1", dialect: anthropic}
  gemini-like: {base_url: "http://127.0.0.1:PORT/v1beta", dialect: gemini}
"""
LOCAL = "lumen-tiny"
SAYS = "It is sunny in Paris."
_STOP = 100.0
_LIMIT = 480.0


@dataclass
class Rig:
    """`limited`: a key that may ask once a minute."""

    both: Emulated
    url: str
    key: str
    limited: str

    def targets(self) -> list[dict[str, Any]]:
        """What drivers get: see `Target` in `drivers/common.py`."""
        here = {"url": self.url, "key": self.key}
        made = [
            {**here, "name": "local", "model": LOCAL, "says": "", "slow": LOCAL, "context": LOCAL, "broken": "",
             "limited": [self.limited, LOCAL], "embedder": LOCAL, "media": "", "sees": "", "completer": LOCAL},
        ]  # fmt: skip
        for name in ("openai", "anthropic", "gemini"):
            of = f"{name}-like"
            made.append(
                {**here, "name": name, "model": f"{of}/agent", "says": SAYS, "slow": f"{of}/slow-500-20",
                 "context": f"{of}/context", "broken": f"{of}/cut-3", "limited": [self.key, f"{of}/limit-0"],
                 "embedder": "" if name == "anthropic" else f"{of}/vectors",
                 "media": f"{of}/media" if name == "openai" else "", "sees": f"{of}/sentence",
                 "completer": f"{of}/agent" if name == "openai" else ""},
            )  # fmt: skip
        return made

    def drive(self, client: Client) -> tuple[str, dict[str, dict[str, str | None]]]:
        """The version that the client says it has, and what came of each feature on each target."""
        with _started(client) as child:
            assert child.stdin is not None and child.stdout is not None
            targets = self.targets()
            slow = {one["name"]: one["slow"] for one in targets}
            child.stdin.write(json.dumps(targets) + "\n")
            child.stdin.flush()
            version, results = "", dict[str, dict[str, str | None]]()
            cancelled = {name: self._cancelled(model) for name, model in slow.items()}
            # Some clients print words of their own.
            for told in (json.loads(line) for line in child.stdout if line.startswith("{")):
                if "stopped" in told:
                    name = told["stopped"]
                    word, cancelled[name] = self._stopped(slow[name], cancelled[name])
                    child.stdin.write(f"{word}\n")
                    child.stdin.flush()
                elif "feature" in told:
                    results.setdefault(told["feature"], {})[told["target"]] = told["failed"]
                else:
                    version = told["version"]
        assert child.returncode == 0, f"{client.driver} ended with {child.returncode}"
        return version, results

    def _stopped(self, model: str, before: float) -> tuple[str, float]:
        """Whether the request that was left has ended at its target, long before its answer would have."""
        end = time.monotonic() + _STOP
        while time.monotonic() < end:
            now = self._cancelled(model)
            if now > before and not self._metric(f'lumen_target_in_flight{{target="{model}"}}'):
                break
            time.sleep(0.02)
        else:
            return f"{model} was not cancelled within {_STOP:g} s", self._cancelled(model)
        name = model.partition("/")[2]
        last = [one for one in self.both.served() if one["model"].endswith(name)][-1:] if name else []
        return ("it was answered to the end" if any(one["complete"] for one in last) else "ok"), now

    def _cancelled(self, model: str) -> float:
        return self._metric(f'lumen_attempts_total{{outcome="cancelled",target="{model}"}}')

    def _metric(self, name: str) -> float:
        headers = {"Authorization": f"Bearer {self.key}"}
        asked = urllib.request.Request(f"{self.url.removesuffix('/v1')}/metrics", headers=headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextmanager
def rigged(home: Path) -> Iterator[Rig]:
    with emulated(home, CONFIG) as both:
        limited = json.loads(both.box.lumen("key", "add", "limited", "--rpm", "1", "--json").stdout)["key"]
        yield Rig(both, both.box.url, both.box.key, limited)


@contextmanager
def _started(client: Client) -> Iterator[subprocess.Popen[str]]:
    """Its driver, in its environment; ended where it takes too long."""
    if client.javascript:
        # Node looks for packages beside the script.
        folder = environments.node(client.locked)
        for script in DRIVERS.glob("*.mjs"):
            shutil.copy(script, folder)
        command = ["node", str(folder / client.driver)]
    else:
        command = [str(environments.python(client.locked)), "-W", "ignore", str(DRIVERS / client.driver)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    late = threading.Timer(_LIMIT, child.kill)
    late.start()
    try:
        with child:
            yield child
    finally:
        late.cancel()

"""Models that come when they are asked for, sleep and end when nobody asks, covered meanwhile: as a user sees it."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Box, until
from tests.e2e.emulated import emulated

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-warm")]
HI: list[Any] = [{"role": "user", "content": "What is Lumen?"}]
CONFIG = """
server: {keepalive: 200ms}
models:
  tiny: {source: builtin:tiny, slots: 4, threads: 1, LIFE, min_residency: 0s}
providers:
  emu: {base_url: "http://127.0.0.1:PORT/v1", dialect: openai}
routes:
  covered: {targets: [tiny, emu/words-5], policy: ordered, cover: true}
  alone: {targets: [tiny, emu/status-503], policy: ordered, cover: true}
"""


@contextmanager
def living(folder: Path, life: str) -> Iterator[Box]:
    with emulated(folder / "box", CONFIG.replace("LIFE", life)) as made:
        yield made.box


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Box]:
    with living(tmp_path, "keep_alive: 2s, idle_after: 6s") as made:
        yield made


@pytest.fixture
def sleepless(tmp_path: Path) -> Iterator[Box]:
    """A model that ends when nobody asks, and never sleeps before."""
    with living(tmp_path, "idle_after: 5s") as made:
        yield made


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Box]:
    """A model that does nothing by itself for as long as a test takes."""
    with living(tmp_path, "keep_alive: 10m, idle_after: 20m") as made:
        yield made


def standing(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = next(model["standing"] for model in box.status()["models"] if model["name"] == "tiny")
    return found


def is_(box: Box, residency: str) -> bool:
    return bool(standing(box)["residency"] == residency)


@dataclass
class Said:
    body: bytes
    headers: Any

    @property
    def target(self) -> str:
        return str(self.headers["x-lumen-target"])

    @property
    def timing(self) -> dict[str, float]:
        """Milliseconds by part."""
        return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", self.headers["server-timing"])}


def ask(box: Box, model: str = "tiny", **more: Any) -> Said:
    """One answer, with its headers."""
    request = urllib.request.Request(
        f"{box.url}/chat/completions",
        data=json.dumps({"model": model, "messages": HI, "max_tokens": 8, **more}).encode(),
        headers={"Authorization": f"Bearer {box.key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return Said(answer.read(), answer.headers)


def test_off_asleep_resident_and_back_to_nothing(warm: Box) -> None:
    assert warm.status()["ready"] and is_(warm, "off") and warm.workers() == []
    lines = [line for line in ask(warm, stream=True).body.decode().split("\n") if line]
    # The stream is kept alive while the model loads, and then answers as any other.
    first = next(place for place, line in enumerate(lines) if line.startswith("data: "))
    assert first > 0 and all(line.startswith(":") for line in lines[:first])
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] in ("stop", "length")
    until(lambda: is_(warm, "asleep"), "sleep")
    assert warm.status()["ready"] and len(warm.workers()) == 1
    assert ask(warm).timing["wake"] > 0
    until(lambda: is_(warm, "off"), "nothing")
    until(lambda: warm.workers() == [], "no process")
    until(lambda: standing(warm)["holds"] == {}, "its memory, seen to be back")
    assert standing(warm)["wakes"].keys() == {"off", "asleep"}
    assert ask(warm).timing["wake"] > ask(warm).timing["wake"] == 0


def test_the_next_target_covers_until_the_model_is_there(sleepless: Box) -> None:
    assert ask(sleepless, "covered").target == "emu/words-5"
    until(lambda: is_(sleepless, "resident"), "the model, loaded meanwhile")
    assert ask(sleepless, "covered").target == "tiny"
    until(lambda: is_(sleepless, "off"), "idleness")
    # Where nothing can cover, the model is waited for after all.
    assert ask(sleepless, "alone").target == "tiny"
    # That it was not there has told nothing about its health.
    (tiny,) = [target for target in sleepless.status()["targets"] if target["name"] == "tiny"]
    assert tiny["state"] == "closed" and tiny["error_rate"] == 0


def test_by_hand_and_in_words(patient: Box) -> None:
    assert "off" in patient.lumen("status").stdout and "until it is asked for" in patient.lumen("status").stdout
    patient.lumen("wake", "tiny")
    assert is_(patient, "resident")
    patient.lumen("sleep", "tiny")
    until(lambda: is_(patient, "asleep"), "sleep")
    assert "asleep" in patient.lumen("status").stdout
    assert "no local model" in patient.lumen("sleep", "nobody", check=False).stderr


@pytest.mark.parametrize("when", ["starting", "asleep"])
def test_kill_9_of_the_gateway_whatever_its_models_do_leaves_no_orphan(patient: Box, when: str) -> None:
    patient.lumen("wake", "tiny", *(["--no-wait"] if when == "starting" else []))
    if when != "starting":
        patient.lumen("sleep", "tiny")
        until(lambda: is_(patient, "asleep"), "sleep")
    os.kill(patient.status()["pid"], signal.SIGKILL)
    # The worker ends by itself when its gateway is gone.
    until(lambda: not patient.engines(), "the worker's end")
    patient.up()
    assert json.loads(ask(patient).body)["choices"]
    assert len(patient.workers()) == 1

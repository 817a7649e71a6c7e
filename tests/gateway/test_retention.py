from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lumen.config.schema import Config, Route, Target
from lumen.gateway.retention import Retention
from lumen.keys import KeyRing, load, mint, save

USUAL, _ = mint("usual")
NONE, _ = mint("none", retains=False)


def configured(box: str = "usual", route: str = "usual") -> Config:
    return Config(routes={"r": Route((Target("m"),), retention=route)}, retention=box)  # type: ignore[arg-type]


def test_any_of_box_route_and_key_keeps_nothing() -> None:
    for box in ("usual", "none"):
        for route in ("usual", "none"):
            for key in (None, USUAL, NONE):
                keeps = Retention(configured(box, route), KeyRing([USUAL, NONE])).retains("r", key)
                assert keeps is (box == route == "usual" and key is not NONE)
    assert Retention(configured(route="none")).retains("other", USUAL)


@pytest.mark.parametrize(
    ("config", "keys", "some"),
    [
        (configured(), [USUAL], False),
        (configured(), [USUAL, NONE], True),
        (configured(route="none"), [], True),
        (configured("none"), [], True),
    ],
)
def test_it_is_known_whether_crashes_may_dump_memory(config: Config, keys: list[object], some: bool) -> None:
    assert Retention(config, KeyRing(keys)).any is some  # type: ignore[arg-type]


def test_a_key_without_retention_survives_its_file(tmp_path: Path) -> None:
    save(tmp_path / "keys.json", KeyRing([USUAL, NONE]))
    assert [key.retains for key in load(tmp_path / "keys.json").keys] == [True, False]


def test_no_process_started_later_can_dump_its_memory() -> None:
    if not Path("/proc/self/coredump_filter").exists():
        pytest.skip("not Linux")
    child = "import resource, pathlib; print(resource.getrlimit(resource.RLIMIT_CORE), end=' ');"
    child += "print(int(pathlib.Path('/proc/self/coredump_filter').read_text(), 16))"
    parent = (
        "import subprocess, sys; from lumen.gateway.retention import no_dumps; assert no_dumps();"
        "import ctypes; assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0;"
        f"sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.stdout.strip() == "(0, 0) 0", done.stderr

"""Environments of other makers' programs: made once from locked, hash-checked lists, then kept in the user's cache.

One that is there is used. One that is not is made where `LUMEN_CLIENTS` is set, else the test is skipped; so it is
where no registry can be reached. A package that is not the locked one is a failure.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import platformdirs
import pytest

from lumen.core.errors import ConfigError
from lumen.engines.install.settings import for_uv
from lumen.engines.install.uv import find_uv

LOCKED = Path(__file__).parent / "locked"
_CACHE = platformdirs.user_cache_path("lumen") / "test-clients"
_COMPLETE = ".complete"
_LIMIT = 240.0
# What installers say of a package that is not the one that was locked.
_WRONG = ("hash", "integrity")
# What this run could not get from the registry of an installer, so that the others do not wait for it too.
_unreachable: dict[str, str] = {}


def python(name: str) -> Path:
    """The interpreter of the environment that `locked/NAME.txt` describes."""
    listed = LOCKED / f"{name}.txt"
    home = _home(name, listed.read_bytes() + sys.version.encode())
    inside = home / "bin" / "python"

    def make() -> None:
        for command in _python_commands(home, inside, listed):
            _install("Python", name, command, home.parent)

    _make_once("Python", home, make)
    return inside


def node(name: str) -> Path:
    """The folder of the npm project that `locked/NAME` describes."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed here")
    files = [LOCKED / name / "package.json", LOCKED / name / "package-lock.json"]
    home = _home(name, b"".join(file.read_bytes() for file in files) + _node_version().encode())

    def make() -> None:
        home.mkdir()
        for file in files:
            shutil.copy(file, home)
        _install("npm", name, ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"], home)

    _make_once("npm", home, make)
    return home


@cache
def _node_version() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=100, check=True).stdout


def _home(name: str, contents: bytes) -> Path:
    known = hashlib.sha256(contents + platform.machine().encode()).hexdigest()[:16]
    return _CACHE / f"{name}-{known}"


def _make_once(kind: str, home: Path, make: Callable[[], None]) -> None:
    """Alone, from nothing, and marked as complete at the end."""
    if (home / _COMPLETE).exists():
        return
    if not os.environ.get("LUMEN_CLIENTS"):
        pytest.skip("set LUMEN_CLIENTS=1 to install and run real clients of other makers")
    if kind in _unreachable:
        pytest.skip(_unreachable[kind])
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (home / _COMPLETE).exists():
            return
        shutil.rmtree(home, ignore_errors=True)
        make()
        (home / _COMPLETE).touch()


def _python_commands(home: Path, inside: Path, listed: Path) -> list[list[str]]:
    """uv where there is one, as it is some ten times as quick; pip does the same."""
    wanted = ["--only-binary", ":all:", "--require-hashes", "-r", str(listed)]
    try:
        uv = find_uv()
    except ConfigError:
        quick = ["--quiet", "--no-compile", "--disable-pip-version-check", "--retries", "1"]
        return [
            [sys.executable, "-m", "venv", str(home)],
            [str(inside), "-m", "pip", "install", *quick, *wanted],
        ]
    return [
        [uv, "venv", "--quiet", "--python", sys.executable, str(home)],
        [uv, "pip", "install", "--quiet", "--python", str(inside), *wanted],
    ]


def _install(kind: str, name: str, command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env=_settings(), capture_output=True, text=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(command, 1, "", f"not done in {_LIMIT:g} s")
    if done.returncode == 0:
        return
    said = (done.stderr or done.stdout).strip()
    assert not any(word in said.lower() for word in _WRONG), f"{name} is not what was locked:\n{said[-2000:]}"
    last = said.splitlines()[-1] if said else f"exit status {done.returncode}"
    _unreachable[kind] = f"{name} cannot be installed here (is the {kind} registry in reach?): {last[:200]}"
    pytest.skip(_unreachable[kind])


def _settings() -> Mapping[str, str]:
    """pip's own settings, for uv too."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return {**kept, **_for_uv()}


@cache
def _for_uv() -> dict[str, str]:
    return for_uv()

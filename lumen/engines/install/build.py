"""Making an environment: a virtualenv, packages by digest, a check that the engine loads, and only then its manifest.

Interrupted anywhere, the next run goes on: packages that are installed and wheels that were fetched are kept, and
without its manifest nobody takes the folder for an environment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from lumen.core.errors import ConfigError
from lumen.engines.install.environment import MANIFEST, Environment, read, size_of, write
from lumen.engines.install.recipes import Recipe, fits_python
from lumen.engines.install.settings import for_uv
from lumen.engines.install.uv import InstallError, find_uv, run
from lumen.files import locked

Told = Callable[[str], None]

_CACHE = ".cache"
_CHECK_LIMIT = 600.0
_FLAGS = Path(__file__).with_name("flags.py")
_GIB = 1024**3


def install(recipe: Recipe, root: Path, told: Told, *, python: str = sys.executable) -> Environment:
    """Have the environment of `recipe` under `root`: found whole, completed, or made. Blocking, minutes.

    Raises:
        ConfigError: Python, disk or uv do not allow it. `InstallError`: packages could not be had or do not load.
        TimeoutError: another process is making it. OSError: the disk cannot be written.
    """
    folder = root / recipe.name
    with locked(folder, wait=1.0):
        found = read(folder)
        if found is not None and found.trouble() is None:
            return found
        if not fits_python(sys.version_info[:2]):
            raise ConfigError("vLLM has packages for Python 3.11 to 3.14 only; install Lumen with one of these")
        # From here on it is not whole, until `write`.
        (folder / MANIFEST).unlink(missing_ok=True)
        _require_space(recipe, root)
        uv, env = find_uv(), _environment(root)
        told("making a virtualenv")
        if not (folder / "bin" / "python").exists():
            run([uv, "venv", "--quiet", "--clear", "--python", python, str(folder)], env, told)
        into = [uv, "pip", "install", "--python", str(folder / "bin" / "python"), "--no-deps"]
        if recipe.torch is not None:
            told("installing torch for the CPU")
            _install_torch(into, recipe.torch, env, told)
        told("installing packages")
        run([*into, "--require-hashes", "--requirements", str(recipe.lock)], env, told)
        told("checking that it loads")
        flags = flags_of(folder)
        shutil.rmtree(root / _CACHE, ignore_errors=True)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        whole = Environment(
            recipe.engine, recipe.version, recipe.variant == "cpu", folder, False, recipe.variant, made, size_of(folder)
        )
        write(whole, flags)
        return whole


def flags_of(folder: Path) -> dict[str, str]:
    """Load the engine in its environment and ask it for the flags of its server: name → what it takes.

    Raises:
        InstallError: it does not load.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VLLM_"))}
    # Without cards to look at: loading must work, whatever is running on them.
    env |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            [str(folder / "bin" / "python"), "-P", str(_FLAGS)],
            capture_output=True, text=True, errors="replace", env=env, timeout=_CHECK_LIMIT, check=False,
        )  # fmt: skip
        flags = json.loads("{" + done.stdout.rpartition("\n{")[2]) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        raise InstallError(f"it did not load within {_CHECK_LIMIT:g} s") from None
    except ValueError:
        flags = None
    if not isinstance(flags, dict):
        raise InstallError("it is installed but does not load", done.stderr.splitlines()[-20:])
    return flags


def _install_torch(into: list[str], version: str, env: Mapping[str, str], told: Told) -> None:
    """The build for the CPU: from the machine's own index where it has that, else from PyTorch's, which uv knows."""
    try:
        run([*into, f"torch=={version}+cpu"], env, told)
        return
    except InstallError as error:
        first = error.lines
    try:
        run([*into, "--torch-backend", "cpu", f"torch=={version}"], env, told)
    except InstallError as error:
        raise InstallError(
            f"the CPU build of torch {version} is not in this machine's package index, nor is PyTorch's own in reach",
            (*first, *error.lines),
        ) from None


def _environment(root: Path) -> dict[str, str]:
    env = dict(os.environ) | for_uv()
    # Beside the environment, so that wheels are linked into it rather than copied, and gone once it is whole.
    env.setdefault("UV_CACHE_DIR", str(root / _CACHE))
    env["UV_NO_PROGRESS"] = "1"
    return env


def _require_space(recipe: Recipe, root: Path) -> None:
    free = shutil.disk_usage(root).free
    begun = size_of(root / recipe.name) + size_of(root / _CACHE)
    if free + begun < recipe.space:
        raise ConfigError(
            f"{recipe.name} needs about {recipe.space / _GIB:.0f} GiB of disk while it is made, and "
            f"{free / _GIB:.1f} GiB are free; make room or set LUMEN_HOME to a larger disk"
        )

"""A copy of what install.sh needs, in a folder of its own, with a PATH that holds exactly what a test puts there.

The package installer is a double that keeps a log and lays down what the real one would: its name, a `bin/lumen` and
`*.dist-info` folders. Everything else is the real script under the system's own shell, without a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_COPIED = (
    "install.sh",
    "pyproject.toml",
    "lumen/__init__.py",
    "requirements",
    "tools/install",
    "tools/llama_build.cmake",
)
_TOOLS = [
    "awk",
    "basename",
    "cat",
    "cksum",
    "cp",
    "cut",
    "df",
    "dirname",
    "du",
    "env",
    "flock",
    "getconf",
    "grep",
    "kill",
    "ls",
    "mkdir",
    "mv",
    "nproc",
    "rm",
    "sed",
    "sh",
    "timeout",
    "uname",
]

_UV = """\
#!{sh}
# The double: `uv --version`, `uv venv`, `uv pip install`. KILL_AT=n: the n-th call ends the script that called.
set -eu
printf '%s\\n' "$*" >>"{log}"
[ "$(grep -c '^venv\\|^pip' "{log}")" != "${{KILL_AT:-none}}" ] || case $1 in venv|pip) kill -9 $PPID; exit 1;; esac
case $1 in --version) echo "uv ${{UV_DOUBLE_VERSION:-0.13.9}}"; exit 0;; esac
for last in "$@"; do :; done
case $1 in venv) exec "{python}" -m venv --without-pip "$last";; esac
while [ "$1" != --python ]; do shift; done
venv=$(dirname "$(dirname "$2")")
for site in "$venv"/lib/python3*/site-packages; do :; done
case "$*" in
    *--editable*)
        mkdir -p "$site/lumen_serve-0.1.0.dist-info"
        printf '#!{sh}\\necho "lumen $*"\\n' >"$venv/bin/lumen"
        "{python}" -c 'import os, sys; os.chmod(sys.argv[1], 0o755)' "$venv/bin/lumen"
        ;;
    *.whl)
        mkdir -p "$site/llama_cpp_python-{version}.dist-info"
        cat "$last" >"$site/llama_cpp.py"
        ;;
    *requirements/test.txt) mkdir -p "$site/typer-1.dist-info" "$site/pytest-1.dist-info" ;;
    *requirements/runtime.txt) mkdir -p "$site/typer-1.dist-info" ;;
esac
"""


@dataclass
class Box:
    """One machine as far as install.sh can see: a checkout, a home, a PATH."""

    checkout: Path
    home: Path
    bin: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        env = {"HOME": str(self.home), "PATH": str(self.bin), "LC_ALL": "C"} | self.env | extra
        return subprocess.run(
            [str(self.bin / "sh"), str(self.checkout / "install.sh"), *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{self.bin}/sh\n{script}\n")
        path.chmod(0o755)

    def keep_engine(self, python: str = "") -> Path:
        """Lay a wheel into the cache, so that nothing has to be built; `python` is what importing it runs."""
        script = (
            '. "$ROOT/tools/install/engine.sh"; CACHE=$1; PY=; engine_settle; engine_folder cpu; echo "$ENGINE_VERSION"'
        )
        done = subprocess.run(
            ["sh", "-c", f"ROOT='{self.checkout}'; problem() {{ :; }}; {script}", "sh", str(self.cache)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        folder, version = done.stdout.split("\n")[:2]
        wheel = Path(folder) / f"llama_cpp_python-{version}-py3-none-any.whl"
        wheel.parent.mkdir(parents=True)
        wheel.write_text(python)
        return wheel

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "lumen"

    @property
    def venv(self) -> Path:
        return self.checkout / ".venv"

    def calls(self) -> list[str]:
        """What the package installer was asked to do since the last look, without version questions."""
        log = self.home / "uv.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("--version")]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A machine with Python, uv and the usual tools, without a compiler, whose checkout path holds a space."""
    checkout, home, tools = tmp_path / "a check out", tmp_path / "home", tmp_path / "bin"
    for folder in (checkout, home, tools):
        folder.mkdir()
    for name in _COPIED:
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    for name in _TOOLS:
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    # Source only: the default would look for prebuilt wheels on the network.
    machine = Box(checkout, home, tools, {"LUMEN_LLAMA": "source", "PYTHONDONTWRITEBYTECODE": "1"})
    machine.command("python3", f'exec "{sys.executable}" "$@"')
    version = (ROOT / "requirements/llama.in").read_text().split("==")[1].strip()
    machine.command("uv", "")
    (tools / "uv").write_text(_UV.format(sh=tools / "sh", log=home / "uv.log", python=sys.executable, version=version))
    return machine

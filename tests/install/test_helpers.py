"""The installer's helpers: pip's settings for uv, which prebuilt wheel fits, build progress."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[2] / "tools" / "install"
SMI = "| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: {} |"


@cache
def load(name: str) -> ModuleType:
    """One of the installer's helpers, which are scripts and no package."""
    spec = importlib.util.spec_from_file_location(f"install_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- pip's settings ---------------------------------------------------------------------------------------------


def test_pip_sections_override_each_other_as_in_pip() -> None:
    listing = "\n".join(
        [
            ":env:.index-url='https://c.example/simple'",
            "global.index-url='https://a.example/simple'",
            "global.extra-index-url='https://x.example/simple\\nhttps://y.example/simple'",
            "install.index-url='https://b.example/simple'",
            "install.no_index='true'",
            "download.index-url='https://d.example/simple'",
            "nonsense",
            "global.broken='",
        ]
    )
    settings = load("settings")
    out = settings.translate(settings.parse(listing), {})
    assert out == {
        "UV_DEFAULT_INDEX": "https://c.example/simple",
        "UV_INDEX": "https://x.example/simple https://y.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "LUMEN_NO_INDEX": "1",
    }


def test_what_the_user_set_for_uv_wins() -> None:
    pip = {"index-url": "a", "extra-index-url": "b", "find-links": "c d", "cert": "e", "trusted-host": "f\ng"}
    translate = load("settings").translate
    assert translate(pip, {"UV_INDEX_URL": "mine", "UV_INDEX": "mine", "SSL_CERT_FILE": "mine"}) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "c,d",
        "UV_INSECURE_HOST": "f g",
    }


def test_environment_serves_a_python_without_pip() -> None:
    settings = load("settings")
    found = settings.from_environment({"PIP_INDEX_URL": "a", "PIP_DEFAULT_TIMEOUT": "180", "HOME": "h"})
    assert settings.translate(found, {}) == {"UV_DEFAULT_INDEX": "a", "UV_HTTP_TIMEOUT": "180"}


def test_exports_survive_the_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load("settings")
    address = "https://user:p'a$s \"s@example/simple"
    monkeypatch.setattr(settings, "_listing", lambda: f"global.index-url={address!r}")
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    settings.main()
    script = capsys.readouterr().out + 'printf %s "$UV_DEFAULT_INDEX"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == address


# --- prebuilt wheels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "capabilities", "best", "worst"),
    [
        ("13.0", ["9.0"], "cu130", "cu118"),
        ("14.1", ["12.0"], "cu132", "cu118"),
        ("13.2", ["6.1"], "cu125", "cu118"),
        ("13.0", ["9.0", "7.0"], "cu125", "cu118"),
        ("12.4", ["8.9"], "cu124", "cu118"),
        ("12.8", [], "cu125", "cu118"),
        ("11.8", ["8.6"], "cu118", "cu118"),
    ],
)
def test_cuda_wheels_that_a_driver_runs(driver: str, capabilities: list[str], best: str, worst: str) -> None:
    tags = load("prebuilt").cuda_tags(SMI.format(driver), capabilities)
    assert (tags[0], tags[-1]) == (best, worst)


def test_no_driver_no_tags() -> None:
    prebuilt = load("prebuilt")
    assert prebuilt.cuda_tags("", []) == []
    assert prebuilt.cuda_tags("NVIDIA-SMI has failed because it couldn't communicate", []) == []
    assert prebuilt.cuda_tags(SMI.format("11.4"), ["7.0"]) == []


def test_an_index_page_is_read_for_this_machine() -> None:
    lists = load("prebuilt").lists
    page = """
      <a href="r/llama_cpp_python-0.3.36-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl">a</a>
      <a href="r/llama_cpp_python-0.3.36-py3-none-musllinux_1_2_x86_64.whl">b</a>
      <a href="r/llama_cpp_python-0.3.36-py3-none-win_amd64.whl">c</a>
      <a href="r/llama_cpp_python-0.3.34-py3-none-linux_riscv64.whl">d</a>
    """
    assert lists(page, "0.3.36", "x86_64", "glibc") and lists(page, "0.3.36", "x86_64", "musl")
    assert not lists(page, "0.3.36", "aarch64", "glibc")
    assert not lists(page, "0.3.3", "x86_64", "glibc")
    assert not lists(page, "0.3.36", "riscv64", "glibc") and lists(page, "0.3.34", "riscv64", "glibc")
    assert not lists(page.replace("manylinux", "win"), "0.3.36", "x86_64", "glibc")
    local = page.replace("0.3.36-", "0.3.36%2Bcu130-")
    assert lists(local, "0.3.36", "x86_64", "glibc")


# --- build progress ---------------------------------------------------------------------------------------------


def test_progress_tells_percent_and_time_left() -> None:
    progress = load("build").Progress(live=True)
    assert progress.feed("  Downloading llama_cpp_python-0.3.36.tar.gz (76.6 MB)", 0.0) == "fetching the source"
    assert progress.feed("  Downloading again", 0.0) is None
    assert progress.feed("  [1/2] Building a small check", 1.0) is None
    assert progress.feed("  [1/100] Building C object a.c.o", 10.0) == "compiling   1 % (1 of 100 files)"
    assert progress.feed("  [2/100] Building C object b.c.o", 11.0) == "compiling   2 % (2 of 100 files)"
    # 50 files in 50 s: the other 49 take as long.
    assert progress.feed("[51/100] Building", 60.0) == "compiling  51 % (51 of 100 files), about 49 s left"


def test_progress_is_sparse_where_lines_stay() -> None:
    progress = load("build").Progress(live=False)
    shown = [m for i in range(1, 201) if (m := progress.feed(f"[{i}/200] Building x", float(i)))]
    assert 10 <= len(shown) <= 12 and shown[-1].startswith("compiling 100 %")


@given(st.lists(st.text(), max_size=30), st.booleans())
def test_progress_survives_any_output(lines: list[str], live: bool) -> None:
    progress = load("build").Progress(live)
    for line in [*lines, "[9999999/1] x", "[0/0] x", "[5/30] x", "[1/30] x"]:
        progress.feed(line, 1.0)


def test_build_keeps_the_log_and_the_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    program = "import sys; print('[1/30] x'); print('it broke', file=sys.stderr); sys.exit(7)"
    status = load("build").main([str(log), sys.executable, "-c", program])
    assert status == 7
    assert "it broke" in log.read_text() and "it broke" in capfd.readouterr().err


def test_a_build_that_nobody_waits_for_is_ended(tmp_path: Path) -> None:
    # The shell that asked for it dies; the build says nothing more for a minute.
    loop = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    log = tmp_path / "log"
    command = [sys.executable, str(FOLDER / "build.py"), str(log), sys.executable, "-c", loop]
    shell = subprocess.Popen(["sh", "-c", '"$@" & echo $!; wait', "sh", *command], stdout=subprocess.PIPE, text=True)
    assert shell.stdout is not None
    follower = int(shell.stdout.readline())
    _until(lambda: log.exists() and log.read_text() != "")
    shell.kill()
    shell.wait()
    build = int(log.read_text().split()[0])
    _until(lambda: not _runs(follower) and not _runs(build))
    shell.stdout.close()


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie that its parent has not collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 100
    while not holds():
        assert time.monotonic() < ends, "it did not happen within 100 s"
        time.sleep(0.02)


def test_build_killed_by_a_signal_is_a_failure(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert load("build").main([str(tmp_path / "log"), sys.executable, "-c", program]) == 137


@pytest.mark.parametrize(("seconds", "words"), [(-1, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (135, "2 min 15 s")])
def test_clock(seconds: float, words: str) -> None:
    assert load("build").clock(seconds) == words

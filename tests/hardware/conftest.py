from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lumen.hardware.nvml import Nvml

SOURCE = Path(__file__).with_name("fake_nvml.c")


class Fake:
    """The fake library and what a test tells it to say. It is one per process, so it is cleared for each test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library: Any = ctypes.CDLL(str(path))
        self.clear()

    def clear(self, code: int = 0) -> None:
        """Forget all cards; `code`: what starting the library answers."""
        self._library.fake_reset(code)

    def card(
        self,
        name: str = "NVIDIA H100 80GB HBM3",
        uuid: str = "GPU-aaaa",
        *,
        total: int = 85_520_809_984,
        free: int = 84_930_527_232,
        compute: tuple[int, int] = (9, 0),
        busy: int = 0,
        celsius: int = 31,
    ) -> None:
        sizes = ctypes.c_ulonglong(total), ctypes.c_ulonglong(free)
        self._library.fake_card(name.encode(), uuid.encode(), *sizes, *compute, busy, celsius)

    def process(self, index: int, pid: int, size: int) -> None:
        self._library.fake_process(index, pid, ctypes.c_ulonglong(size))

    def codes(self, index: int, *, handle: int = 0, memory: int = 0, process: int = 0) -> None:
        self._library.fake_codes(index, handle, memory, process)

    def split(self, index: int, how: int = 1) -> None:
        """It is split into smaller cards (1, 2 after the next restart too), is whole (0), or cannot be split (-1)."""
        self._library.fake_split(index, how)

    def free(self, index: int, free: int) -> None:
        """So much of it is free from now on, and no process is listed."""
        self._library.fake_free(index, ctypes.c_ulonglong(free))

    @property
    def opened(self) -> int:
        """How often the library was started and not yet given back."""
        return int(self._library.fake_opened())

    def open(self) -> Nvml | None:
        return Nvml.open((str(self.path),))


@pytest.fixture(scope="session")
def _fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("nvml") / f"libnvidia-ml-{os.getpid()}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True, timeout=100)
    return Fake(library)


@pytest.fixture
def fake(_fake: Fake) -> Iterator[Fake]:
    """NVIDIA's library with no cards yet."""
    _fake.clear()
    yield _fake
    _fake.clear()


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write small files below a folder of their own, which stands for `/`."""

    def write(contents: dict[str, str]) -> Path:
        for name, content in contents.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path / "root"

    return write

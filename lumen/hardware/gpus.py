"""GPUs on Linux: NVIDIA's by their own tool, AMD's by the kernel's files."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lumen.hardware.limits import text
from lumen.hardware.machine import Gpu

_TIMEOUT = 3.0
_FIELDS = "index,uuid,name,memory.total,memory.free,driver_version,compute_cap"
_AMD = "0x1002"
_MIB = 1024 * 1024


def on_linux(root: Path, env: Mapping[str, str]) -> tuple[list[Gpu], list[str]]:
    """Usable GPUs, and what could not be found out about them."""
    nvidia, notes = _nvidia(env)
    return nvidia or _amd(root), notes


def _nvidia(env: Mapping[str, str]) -> tuple[list[Gpu], list[str]]:
    tool = shutil.which("nvidia-smi", path=env.get("PATH"))
    if tool is None:
        return [], []
    try:
        done = subprocess.run(
            [tool, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"],
            capture_output=True,
            timeout=_TIMEOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], [f"nvidia-smi did not answer within {_TIMEOUT:.0f} s; is the driver stuck?"]
    except OSError as error:
        return [], [f"nvidia-smi cannot be run: {error.strerror}"]
    if done.returncode != 0:
        reason = " ".join((done.stdout or done.stderr).split())[:160]
        return [], [f"nvidia-smi failed: {reason or done.returncode}"]
    return parse_nvidia(done.stdout, env.get("CUDA_VISIBLE_DEVICES")), []


def parse_nvidia(output: str, visible: str | None) -> list[Gpu]:
    """GPUs in `nvidia-smi`'s CSV, only those that `CUDA_VISIBLE_DEVICES` shows, in its order. Pure."""
    found: list[tuple[str, Gpu]] = []
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        # Memory that a tool cannot tell ("[N/A]", on machines that share it with the CPU) makes no profile.
        if len(cells) != 7 or not all(cells[i].isdigit() for i in (0, 3, 4)):
            continue
        index, uuid, name, total, free, driver, compute = cells
        gpu = Gpu(int(index), "nvidia", name, int(total) * _MIB, int(free) * _MIB, driver, compute)
        found.append((uuid, gpu))
    if visible is None:
        return [gpu for _, gpu in found]
    shown: list[Gpu] = []
    for wish in (part.strip() for part in visible.split(",")):
        fits = [gpu for uuid, gpu in found if wish == str(gpu.index) or (wish and uuid.startswith(wish))]
        if not fits:
            break  # CUDA stops at the first device it does not know
        shown.append(fits[0])
    return shown


def _amd(root: Path) -> list[Gpu]:
    found: list[Gpu] = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        device = card / "device"
        total, used = text(device / "mem_info_vram_total") or "", text(device / "mem_info_vram_used") or ""
        if not card.name[4:].isdigit() or text(device / "vendor") != _AMD or not total.isdigit():
            continue
        name = text(device / "product_name") or "AMD GPU"
        free = int(total) - (int(used) if used.isdigit() else 0)
        found.append(Gpu(len(found), "amd", name, int(total), free))
    return found

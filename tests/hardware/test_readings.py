from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lumen.hardware import processes, readings
from lumen.hardware.nvml import Nvml, Use
from lumen.hardware.readings import Monitor
from lumen.workers import sweep
from tests.hardware.conftest import Fake

GIB = 1024**3
Files = Callable[[dict[str, str]], Path]


def none() -> None:
    return None


def test_cards_of_nvidia_and_the_machine_s_memory(fake: Fake, tmp_path: Path) -> None:
    fake.card(free=60 * GIB, total=80 * GIB, busy=12, celsius=40)
    fake.card(uuid="GPU-bbbb", total=24 * GIB, free=24 * GIB)
    fake.process(0, 4711, 19 * GIB)
    monitor = Monitor(tmp_path, {}, fake.open)
    assert [device.id for device in monitor.devices] == ["cuda:0", "cuda:1", "ram"] and monitor.driver == "570.86.15"
    first, second, memory = monitor.read()
    assert (first.used, first.busy, first.celsius) == (20 * GIB, 12, 40) and first.processes == ((4711, 19 * GIB),)
    assert second.used == 0 and second.device.total == 24 * GIB
    assert 0 < memory.free <= memory.device.total and memory.processes is None
    monitor.close()
    assert fake.opened == 0 and [one.device.id for one in monitor.read()] == ["ram"]


def test_hidden_cards_keep_their_numbers(fake: Fake, tmp_path: Path) -> None:
    fake.card()
    fake.card("NVIDIA A100-PCIE-40GB", "GPU-bbbb")
    monitor = Monitor(tmp_path, {"CUDA_VISIBLE_DEVICES": "1"}, fake.open)
    assert [device.id for device in monitor.devices] == ["cuda:1", "ram"]
    assert monitor.read()[0].device.name == "NVIDIA A100-PCIE-40GB"


def test_a_card_that_is_lost_while_running(fake: Fake, tmp_path: Path) -> None:
    fake.card()
    monitor = Monitor(tmp_path, {}, fake.open)
    fake.codes(0, memory=15)
    assert [one.device.id for one in monitor.read()] == ["ram"]
    assert "GPU is lost" in monitor.notes[0].what and monitor.notes[0].mend
    fake.codes(0)
    assert [one.device.id for one in monitor.read()] == ["cuda:0", "ram"] and monitor.notes == ()


def test_a_driver_that_is_silent_is_asked_again_once_it_has_answered(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "_ANSWER", 0.05)
    fake.card()
    monitor, speaks, asked = Monitor(tmp_path, {}, fake.open), threading.Event(), []
    really = Nvml.use

    def slowly(library: Nvml, index: int) -> Use:
        asked.append(index)
        assert speaks.wait(60)
        return really(library, index)

    monkeypatch.setattr(Nvml, "use", slowly)
    for _ in range(3):
        assert [one.device.id for one in monitor.read()] == ["ram"]
        # What cannot be seen is not given away, and nobody else is sent to wait in there.
        assert monitor.lost == ("cuda:0",) and "did not answer" in monitor.notes[0].what and asked == [0]
    speaks.set()
    monkeypatch.setattr(readings, "_ANSWER", 60.0)
    end = time.monotonic() + 60
    while monitor.lost:
        assert time.monotonic() < end
        found = [one.device.id for one in monitor.read()]
    assert found == ["cuda:0", "ram"] and monitor.notes == ()
    monitor.close()
    assert fake.opened == 0


def test_of_several_cards_one_that_is_lost_hides_no_other(fake: Fake, tmp_path: Path) -> None:
    for name in "abcd":
        fake.card(uuid=f"GPU-{name}")
    fake.split(3)
    monitor = Monitor(tmp_path, {}, fake.open)
    assert [note.what for note in monitor.notes] == ["card 3 is split by MIG, which is not supported, and left out"]
    fake.codes(1, memory=15)
    assert [one.device.id for one in monitor.read()] == ["cuda:0", "cuda:2", "ram"]
    assert monitor.lost == ("cuda:1",)
    assert [note.what.partition(":")[0] for note in monitor.notes[1:]] == ["cuda"]
    assert "cuda:1: NVIDIA's driver answers: GPU is lost" in monitor.notes[-1].what
    fake.codes(1)
    assert [one.device.id for one in monitor.read()] == ["cuda:0", "cuda:1", "cuda:2", "ram"]
    assert not monitor.lost and len(monitor.notes) == 1, "what lasts is told as long"


def test_no_driver(fake: Fake, tmp_path: Path) -> None:
    fake.clear(9)
    monitor = Monitor(tmp_path, {}, fake.open)
    assert [device.id for device in monitor.devices] == ["ram"] and "Driver Not Loaded" in monitor.notes[0].what
    assert Monitor(tmp_path, {}, none).notes == ()


CARD = "sys/class/drm/card1/device"


def test_cards_of_amd(files: Files, tmp_path: Path) -> None:
    pci = tmp_path / "root/sys/devices/pci/0000:03:00.0"
    pci.mkdir(parents=True)
    (tmp_path / "root/sys/class/drm/card1").mkdir(parents=True)
    (tmp_path / "root" / CARD).symlink_to(pci)
    root = files(
        {
            f"{CARD}/vendor": "0x1002\n",
            f"{CARD}/product_name": "AMD Instinct MI210\n",
            f"{CARD}/mem_info_vram_total": str(64 * GIB),
            f"{CARD}/mem_info_vram_used": str(10 * GIB),
            f"{CARD}/gpu_busy_percent": "55\n",
            f"{CARD}/hwmon/hwmon3/temp1_input": "47000\n",
            "sys/class/drm/card1-DP-1/status": "connected",
            "sys/class/drm/card0/device/vendor": "0x8086\n",
            "sys/class/kfd/kfd/topology/nodes/0/gpu_id": "0\n",
            "sys/class/kfd/kfd/topology/nodes/1/gpu_id": "51000\n",
            "sys/class/kfd/kfd/topology/nodes/1/properties": "simd_count 416\nlocation_id 768\ndomain 0\n",
            "sys/class/kfd/kfd/proc/4711/vram_51000": str(8 * GIB),
            "sys/class/kfd/kfd/proc/4711/pasid": "32769",
            "sys/class/kfd/kfd/proc/99/vram_51000": "0",
        }
    )
    monitor = Monitor(root, {}, none)
    card, memory = monitor.read()
    assert (card.device.id, card.device.name, card.device.total) == ("rocm:0", "AMD Instinct MI210", 64 * GIB)
    assert (card.used, card.busy, card.celsius) == (10 * GIB, 55, 47)
    assert card.processes == ((4711, 8 * GIB),) and memory.device.id == "ram"


def test_what_is_read_of_files_is_no_memory_in_use(files: Files) -> None:
    root = files(
        {
            "sys/fs/cgroup/memory.max": str(8 * GIB),
            "sys/fs/cgroup/memory.current": str(6 * GIB),
            "sys/fs/cgroup/memory.stat": f"anon {GIB}\ninactive_file {3 * GIB}\nactive_file {GIB}\nslab 5\n",
        }
    )
    assert Monitor(root, {}, none).read()[-1].used == 2 * GIB
    root = files(
        {"sys/fs/cgroup/memory.stat": f"inactive_file 1\ntotal_inactive_file {5 * GIB}\ntotal_active_file 0\n"}
    )
    assert Monitor(root, {}, none).read()[-1].used == GIB


# -- processes ---------------------------------------------------------------------------------------------------------


def test_marks_are_those_of_the_supervisor(files: Files) -> None:
    assert (processes.MARK, processes.HOME_MARK) == (sweep.REPLICA, sweep.RUN_DIR)
    marks = sweep.Marks("home", "run1", "meta:llama-3:2:17")
    lines = "\0".join(f"{name}={value}" for name, value in marks.environment().items())
    root = files(
        {"proc/7/environ": f"PATH=/bin\0{lines}\0", "proc/8/environ": "PATH=/bin\0", "proc/7/comm": "python\n"}
    )
    assert processes.replica_of(7, root) == "meta:llama-3:2"
    assert processes.replica_of(8, root) is None and processes.replica_of(9, root) is None
    assert processes.replicas(None, root) == processes.replicas("home", root) == {"meta:llama-3:2": {7}}
    assert processes.replicas("another", root) == {}
    assert (processes.name_of(7, root), processes.name_of(8, root)) == ("python", "?")


ROLLUP = """55d0-7ffc ---p 00000000 00:00 0 [rollup]
Rss:               9000 kB
Pss:               5000 kB
Pss_Anon:          3000 kB
Pss_File:          1500 kB
Pss_Shmem:          500 kB
Swap:               100 kB
SwapPss:             50 kB
"""


def test_memory_of_processes(files: Files) -> None:
    root = files({"proc/7/smaps_rollup": ROLLUP, "proc/8/statm": "1000 500 200 1 0 300 0"})
    assert processes.memory([7], root) == processes.Memory(5050 * 1024, 3550 * 1024)
    assert processes.memory([8], root) == processes.Memory(500 * 4096, 300 * 4096)
    assert processes.memory([9], root) == processes.Memory(0, 0)
    both = processes.memory([7, 8], root)
    assert both.held == 5050 * 1024 + 500 * 4096


def stat(pid: int, name: str, parent: int, session: int) -> dict[str, str]:
    return {f"proc/{pid}/stat": f"{pid} ({name}) S {parent} {pid} {session} 0 -1 4194304"}


def test_families(files: Files) -> None:
    root = files(
        {
            **stat(1, "init", 0, 1),
            **stat(10, "python", 1, 10),
            **stat(11, "a) b (c", 10, 10),
            **stat(12, "grandchild", 11, 99),
            **stat(13, "left behind", 1, 10),
            **stat(20, "python", 10, 20),
            **stat(30, "stranger", 1, 30),
        }
    )
    assert processes.families([10], root) == {10: {10, 11, 12, 13, 20}}
    assert processes.families([10, 20], root) == {10: {10, 11, 12, 13}, 20: {20}}
    assert processes.families([77], root) == {77: set()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_real_process_and_its_child() -> None:
    size = 64 * 1024 * 1024
    script = (
        "import subprocess, sys\n"
        f"held = bytearray({size})\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import sys; print(1, flush=True); sys.stdin.read()'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        child = int(parent.stdout.readline())
        found = processes.families([parent.pid, os.getpid()])
        assert found[parent.pid] == {parent.pid, child}
        held = processes.memory(found[parent.pid])
        assert size < held.kept <= held.held < 4 * size
        parent.stdin.close()

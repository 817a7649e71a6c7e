from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.hardware import Gpu, Hardware, Profile, detect, load_profiles, match, pick
from lumen.hardware.limits import cpu_limit, memory_limit
from lumen.hardware.machine import GIB
from lumen.hardware.nvml import Nvml
from lumen.hardware.profiles import fits, parse
from lumen.hub.reference import HubModel
from lumen.hub.reference import parse as parse_reference

SHIPPED = load_profiles()
BOX = Hardware("linux", "x86_64", "A CPU", cores=8, threads=16, memory=32 * GIB, memory_free=30 * GIB)


def gpu(gib: float, vendor: str = "nvidia", index: int = 0) -> Gpu:
    return Gpu(index, vendor, "Device", int(gib * GIB), int(gib * GIB))


def box(*gpus: Gpu, **change: object) -> Hardware:
    return replace(BOX, gpus=gpus, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (box(memory=2 * GIB, cores=1, threads=2), "cpu-small"),
        (box(memory=32 * GIB, threads=2, cores=2), "cpu-small"),
        (box(), "cpu"),
        (box(gpu(4)), "cpu"),
        (box(gpu(24, "amd")), "cpu"),
        (box(gpu(7.6)), "gpu-8g"),
        (box(gpu(11.99)), "gpu-12g"),
        (box(gpu(15.9)), "gpu-12g"),
        (box(gpu(22.5)), "gpu-24g"),
        (box(gpu(23.99), gpu(23.99, index=1)), "multi-gpu"),
        (box(gpu(11.99), gpu(11.99, index=1)), "gpu-12g"),
        (box(gpu(47.98)), "gpu-80g"),
        (box(gpu(79.6), gpu(79.6, index=1)), "gpu-80g"),
        (box(gpu(24, "apple"), system="darwin", arch="arm64"), "apple"),
        (box(system="darwin", arch="arm64", memory=8 * GIB), "cpu-small"),
        (box(system="darwin", arch="x86_64"), "cpu"),
    ],
)
def test_which_profile_suits_which_machine(machine: Hardware, name: str) -> None:
    found, why = match(machine, SHIPPED)
    assert found.name == name
    assert found.title in why and machine.cpu in why


machines = st.builds(
    Hardware,
    system=st.sampled_from(["linux", "darwin", "windows"]),
    arch=st.sampled_from(["x86_64", "arm64", "riscv64"]),
    cpu=st.just("c"),
    cores=st.integers(1, 128),
    threads=st.integers(1, 256),
    memory=st.integers(1, 1 << 42),
    memory_free=st.just(1),
    gpus=st.lists(st.builds(gpu, st.floats(0.5, 200), st.sampled_from(["nvidia", "amd", "apple"])), max_size=9).map(
        tuple
    ),
)


@given(machines)
def test_every_machine_has_a_profile_that_fits_it(machine: Hardware) -> None:
    found, _ = match(machine, SHIPPED)
    assert fits(found.match, machine)
    assert found.threads is not None and 1 <= found.threads <= max(machine.cores, machine.threads)
    assert not any(fits(other.match, machine) and other.priority > found.priority for other in SHIPPED)


def test_the_shipped_profiles_are_sound() -> None:
    names = {profile.name for profile in SHIPPED}
    assert {"cpu-small", "cpu", "gpu-8g", "gpu-24g", "gpu-80g", "multi-gpu", "apple"} <= names
    for profile in SHIPPED:
        assert isinstance(parse_reference(profile.default_model), HubModel), profile.name
        assert profile.context and profile.slots and profile.engine == "llamacpp"


def test_a_profile_fills_in_what_is_open() -> None:
    profile, _ = match(BOX, SHIPPED)
    filled = profile.apply(Model(source="hf://o/r", slots=1))
    assert (filled.context, filled.slots, filled.threads) == (profile.context, 1, 8)
    assert profile.apply(Model(source="builtin:tiny")).context is None
    assert profile.apply(Model(source="builtin:tiny", context=512)).context == 512
    made = profile.model()
    assert made.source == profile.default_model and made.kv_type == profile.kv_type
    assert profile.apply(made) == made


def test_thread_rules() -> None:
    text = "title: T\npriority: 1\nmatch: {}\ndefault_model: hf://o/r\nthreads: "
    for rule, threads in [("cores", 8), ("cores-1", 7), ("threads", 16), ("3", 3)]:
        assert match(BOX, [parse(text + rule, "x")])[0].threads == threads
    assert match(replace(BOX, cores=1), [parse(text + "cores-1", "x")])[0].threads == 1


def test_a_profile_by_name() -> None:
    assert pick("gpu-24g", BOX, SHIPPED)[0].threads == 7
    with pytest.raises(ConfigError, match="did you mean gpu-24g"):
        pick("gpu24g", BOX, SHIPPED)
    with pytest.raises(ConfigError, match="no hardware profile fits"):
        match(BOX, [])


GOOD = {"title": "T", "priority": 1, "match": {}, "default_model": "hf://o/r"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("contxt: 5", "did you mean context?"),
        ("match: {gpu_mem: {min: 1}}", "did you mean gpu_memory?"),
        ("match: {memory: {minimum: 1}}", "did you mean min?"),
        ("match: {memory: 5}", "must be keys with values"),
        ("match: {memory: {min: x}}", "needs numbers"),
        ("match: {memory: {}}", "needs numbers"),
        ("match: {system: [1]}", "list of words"),
        ("match: 1", "keys with values"),
        ("priority: high", "whole number"),
        ("priority: true", "whole number"),
        ("context: 0", "above zero"),
        ("slots: 1.5", "above zero"),
        ("threads: many", "cores, cores-1, threads"),
        ("gpu_layers: -2", "-1 for all"),
        ("kv_type: q5", "f16, q8_0, q4_0"),
        ("title: ''", "must be text"),
        ("name: x", "is not a key"),
        ("threads_rule: cores", "is not a key"),
        ("x: [", "not YAML"),
    ],
)
def test_profiles_are_read_strictly(change: str, says: str) -> None:
    key = change.partition(":")[0]
    lines = [f"{name}: {value}" for name, value in GOOD.items() if name != key]
    with pytest.raises(ConfigError) as caught:
        parse("\n".join([*lines, change]), "mine")
    assert caught.value.message.startswith("mine.yaml: ") and says in caught.value.message


@pytest.mark.parametrize("key", GOOD)
def test_what_a_profile_must_have(key: str) -> None:
    text = "\n".join(f"{name}: {value}" for name, value in GOOD.items() if name != key)
    with pytest.raises(ConfigError, match=f"{key} is missing"):
        parse(text, "mine")


def test_profiles_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("\n".join(f"{name}: {value}" for name, value in GOOD.items()))
    (found,) = load_profiles(tmp_path)
    assert isinstance(found, Profile) and found.name == "mine"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "200000 100000",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "0::/../../etc\n", "sys/fs/cgroup/cpu.max": "100000 0"}, None),
        ({"sys/fs/cgroup/cpu.max": "garbage"}, None),
    ],
)
def test_cpu_limits_of_a_container(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    assert cpu_limit(write(tmp_path, files)) == limit


def test_memory_limits_of_a_container(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
    write(
        tmp_path, {"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)}
    )
    assert memory_limit(tmp_path) is None
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/memory.max": "1000",
            "sys/fs/cgroup/a/memory.current": "400",
        },
    )
    assert memory_limit(tmp_path) == (1000, 400)


def test_a_machine_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(Nvml, "open", lambda: None)
    files = {
        "proc/cpuinfo": "processor : 0\nmodel name\t: Some  CPU @ 3GHz\nflags\t: fpu avx avx2 fma\n",
        "sys/fs/cgroup/memory.max": str(GIB),
        "sys/fs/cgroup/memory.current": str(GIB // 4),
        "sys/class/drm/card0/device/vendor": "0x1002\n",
        "sys/class/drm/card0/device/mem_info_vram_total": str(16 * GIB),
        "sys/class/drm/card0/device/mem_info_vram_used": str(GIB),
        "sys/class/drm/card1/device/vendor": "0x8086\n",
    }
    for cpu in range(4):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_id"] = str(cpu // 2)
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = "0"
    found = detect(tmp_path / "not" / "there", write(tmp_path, files))
    assert (found.cpu, found.features) == ("Some CPU @ 3GHz", ("avx", "avx2", "fma"))
    assert (found.cores, found.threads) == (2, 4)
    assert found.memory == GIB and 0 < found.memory_free <= GIB * 3 // 4
    assert found.gpus == (Gpu(0, "amd", "AMD GPU", 16 * GIB, 15 * GIB),)
    assert found.disk_free and found.disk_free > 0
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "120000 100000"})
    limited = detect(None, tmp_path)
    assert (limited.cores, limited.threads, limited.disk_free) == (2, 2, None)


def test_this_machine_can_be_looked_at() -> None:
    found = detect(Path.cwd())
    assert 1 <= found.cores <= found.threads <= (os.cpu_count() or 1)
    assert 0 < found.memory_free <= found.memory
    assert match(found, SHIPPED)[0].threads

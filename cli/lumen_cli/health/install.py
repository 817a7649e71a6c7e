"""Checks of what is installed: Python, packages, engines, compiler, drivers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lumen.core.errors import LumenError
from lumen_cli.health.patient import Finding, Patient

NVIDIA = "0x10de"  # its number on the PCI bus
KFD = Path("/dev/kfd")  # through which programs compute on AMD's cards

_LEAST_AIOHTTP = (3, 14, 4)


def python(patient: Patient) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.prefix == sys.base_prefix:
        yield Finding("python", "warn", f"Python {found}, not in a virtual environment", "install with ./install.sh")
    else:
        yield Finding("python", "ok", f"Python {found} in {sys.prefix}")


def packages(patient: Patient) -> Iterator[Finding]:
    try:
        found = version("aiohttp")
    except PackageNotFoundError:
        yield Finding("packages", "bad", "aiohttp is not installed", "run ./install.sh")
        return
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < _LEAST_AIOHTTP:
        yield Finding("packages", "bad", f"aiohttp {found} has known flaws", "run ./install.sh to update it")
    else:
        yield Finding("packages", "ok", f"aiohttp {found}")


def engine(patient: Patient) -> Iterator[Finding]:
    from lumen.engines.registry import engine as by_name

    wanted = {model.engine for model in patient.config.models.values()} or {"llamacpp"}
    for name in sorted(wanted):
        try:
            missing = by_name(name).missing()
        except LumenError as error:
            missing = error.message
        if missing is not None:
            yield Finding("engine", "bad", f"{name}: {missing}")
        elif name == "llamacpp":
            yield _llamacpp(patient)
        else:
            yield Finding("engine", "ok", f"{name} is installed")


def _llamacpp(patient: Patient) -> Finding:
    found = patient.engine
    if "error" in found:
        mend = "reinstall it with ./install.sh"
        return Finding("engine", "bad", f"llama-cpp-python does not load: {found['error']}", mend)
    kind = "with GPU support" if found["gpu"] else "for CPU"
    if patient.hardware.gpus and not found["gpu"]:
        name = patient.hardware.gpus[0].name
        what = f"llama-cpp-python {found['version']} is built for CPU and {name} stands idle"
        return Finding("engine", "warn", what, "run ./install.sh again: it takes the build that matches the driver")
    return Finding("engine", "ok", f"llama-cpp-python {found['version']} {kind}")


def compiler(patient: Patient) -> Iterator[Finding]:
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found:
        yield Finding("compiler", "ok", f"{found} is there")
    elif "error" in patient.engine:
        mend = "install one (Debian, Ubuntu: apt install build-essential), then ./install.sh"
        yield Finding("compiler", "bad", "no C compiler, and the engine has to be built", mend)
    else:
        yield Finding("compiler", "ok", "no C compiler; the engine is built already")


def hardware(patient: Patient) -> Iterator[Finding]:
    from lumen.hardware import load_profiles, match, pick

    machine, name = patient.hardware, patient.config.profile
    profiles = load_profiles()
    try:
        profile, _ = pick(name, machine, profiles) if name else match(machine, profiles)
        yield Finding("hardware", "ok", f"{machine.summary()}: profile {profile.name}")
    except LumenError as error:
        yield Finding("hardware", "bad", error.message, "name one of profiles/hardware in the configuration")
    for note in machine.notes:
        yield Finding("gpu", "warn", note.what, note.mend or "check the driver with `nvidia-smi`")
    vendors = {gpu.vendor for gpu in machine.gpus}
    if not machine.notes and "nvidia" not in vendors and on_bus(NVIDIA):
        what = "an NVIDIA GPU is built in, but its driver does not show it"
        yield Finding("gpu", "warn", what, "install NVIDIA's driver; CUDA_VISIBLE_DEVICES may hide it too")
    if "amd" in vendors and KFD.exists() and not os.access(KFD, os.R_OK | os.W_OK):
        what = f"an AMD GPU is built in, but this user may not open {KFD}"
        yield Finding("gpu", "warn", what, "add the user to the groups render and video, and log in again")
    here = {gpu.index for gpu in machine.gpus}
    for name, model in patient.config.models.items():
        if missing := [str(number) for number in model.gpus if number not in here]:
            what = f"{name} is assigned to card {', '.join(missing)}, which this machine does not have"
            yield Finding("gpu", "bad", what, f"run `lumen gpu assign {name} --gpus any`, or name others")


def on_bus(vendor: str, root: Path = Path("/")) -> bool:
    """Whether a display device of that vendor hangs on the PCI bus, driver or not."""
    from lumen.hardware.limits import text

    devices = (root / "sys/bus/pci/devices").glob("*")
    return any(
        text(device / "vendor") == vendor and (text(device / "class") or "").startswith("0x03") for device in devices
    )

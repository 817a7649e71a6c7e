"""The checks of `lumen doctor`: each looks at one thing and says what is wrong and how to mend it.

Nothing is changed, nothing is imported that could break: the engine is tried in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from lumen.core.errors import LumenError
from lumen.paths import Paths
from lumen_cli import gateway
from lumen_cli.client import Admin
from lumen_cli.errors import CliError
from lumen_cli.output import size

if TYPE_CHECKING:
    from lumen.config.schema import Config
    from lumen.hardware import Hardware

Level = Literal["ok", "warn", "bad"]

_ENGINE_TIMEOUT = 30.0
_LITTLE_DISK = 5 * 1024**3
_NO_DISK = 256 * 1024**2
_LEAST_AIOHTTP = (3, 14, 4)
_TRY_ENGINE = (
    "import json, llama_cpp; "
    "print(json.dumps({'version': llama_cpp.__version__, 'gpu': bool(llama_cpp.llama_supports_gpu_offload())}))"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend`: what to do, where something is to be done."""

    check: str
    level: Level
    what: str
    mend: str | None = None


class Patient:
    """What the checks look at; everything costly is looked up once, when it is first needed."""

    def __init__(self, paths: Paths, config_file: Path) -> None:
        self.paths = paths
        self.config_file = config_file

    @cached_property
    def status(self) -> dict[str, Any] | None:
        """The running gateway's status, or `None`."""
        try:
            return Admin(self.paths.admin_socket, timeout=3.0).status_or_none()
        except (CliError, OSError):
            return None

    @cached_property
    def config(self) -> Config:
        """The configuration, or the defaults where it is broken: `config` tells that."""
        from lumen.config.load import load
        from lumen.config.schema import Config

        try:
            return load(self.config_file if self.config_file.exists() else None)
        except LumenError:
            return Config()

    @cached_property
    def hardware(self) -> Hardware:
        from lumen.hardware import detect

        return detect(self.paths.models_dir)

    @cached_property
    def engine(self) -> dict[str, Any]:
        """`{version, gpu}` of llama-cpp-python, or `{error}`."""
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _TRY_ENGINE],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_ENGINE_TIMEOUT,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if done.returncode == 0:
                return dict(json.loads(done.stdout.splitlines()[-1]))
        except subprocess.TimeoutExpired:
            return {"error": f"it does not load within {_ENGINE_TIMEOUT:.0f} s"}
        except (OSError, ValueError, IndexError):
            return {"error": "it answers nonsense"}
        if done.returncode < 0:
            return {"error": f"it ends with signal {-done.returncode}"}
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": lines[-1][:200] if lines else f"it ends with status {done.returncode}"}


def python(patient: Patient) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):
        yield Finding("python", "bad", f"Python {found} is too old", "install Python 3.11 or newer, then ./install.sh")
    elif sys.prefix == sys.base_prefix:
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
    for problem in machine.notes:
        yield Finding("gpu", "warn", problem, "check the driver with `nvidia-smi`; a reboot often helps")
    if not machine.notes and not any(gpu.vendor == "nvidia" for gpu in machine.gpus) and nvidia_on_bus():
        what = "an NVIDIA GPU is built in, but its driver does not show it"
        yield Finding("gpu", "warn", what, "install NVIDIA's driver; CUDA_VISIBLE_DEVICES may hide it too")


def nvidia_on_bus(root: Path = Path("/")) -> bool:
    """Whether a display device of NVIDIA's hangs on the PCI bus, driver or not."""
    from lumen.hardware.limits import text

    devices = (root / "sys/bus/pci/devices").glob("*")
    return any(
        text(device / "vendor") == "0x10de" and (text(device / "class") or "").startswith("0x03") for device in devices
    )


def disk(patient: Patient) -> Iterator[Finding]:
    free = patient.hardware.disk_free
    if free is None:
        yield Finding("disk", "warn", f"the free space for {patient.paths.models_dir} cannot be read")
    elif free < _NO_DISK:
        yield Finding("disk", "bad", f"only {size(free)} are free", "make room: `lumen ls`, `lumen rm`")
    elif free < _LITTLE_DISK:
        yield Finding("disk", "warn", f"{size(free)} are free; most models need more", "make room, or set LUMEN_HOME")
    else:
        yield Finding("disk", "ok", f"{size(free)} free for models in {patient.paths.models_dir}")


def config(patient: Patient) -> Iterator[Finding]:
    from lumen.config.load import load
    from lumen_cli.commands.config import missing

    if not patient.config_file.exists():
        yield Finding("config", "ok", f"no file at {patient.config_file}: the defaults are in force")
        return
    try:
        found = load(patient.config_file)
    except LumenError as error:
        yield Finding("config", "bad", error.message, "mend that line; `lumen config check` tests it")
        return
    warnings = missing(found, os.environ)
    for warning in warnings:
        yield Finding("config", "warn", warning, f"set it, or change {patient.config_file}")
    if not warnings:
        yield Finding("config", "ok", f"{patient.config_file} is good")


def models(patient: Patient) -> Iterator[Finding]:
    from lumen.hub import Store, resolve

    for name, model in patient.config.models.items():
        try:
            found = resolve(model.source, patient.paths, draft=model.draft)
        except LumenError as error:
            yield Finding("models", "bad", f"{name}: {error.message}", "mend its source in the configuration")
            continue
        if found is None:
            yield Finding("models", "warn", f"{name} is not on this disk", f"run `lumen pull {model.source}`")
        else:
            yield from _fits(patient, name, found.path)
    store = Store(patient.paths.models_dir)
    for manifest in store.all():
        if not store.whole(manifest):
            mend = f"run `lumen pull {manifest.reference}`, or `lumen rm {manifest.name}`"
            yield Finding("models", "warn", f"files of {manifest.name} are missing", mend)


def _fits(patient: Patient, name: str, path: Path) -> Iterator[Finding]:
    from lumen.hub.pull import describe, split_parts

    try:
        needs = describe(split_parts(path)).tensor_bytes
    except LumenError as error:
        yield Finding("models", "bad", f"{name}: {error.message}", "pull it again")
        return
    has = patient.hardware.memory + sum(gpu.memory for gpu in patient.hardware.gpus if gpu.vendor != "apple")
    if needs > has:
        what = f"{name} has {size(needs)} of weights and this machine {size(has)} of memory"
        yield Finding("models", "warn", what, "take a smaller quantisation or model")
    else:
        yield Finding("models", "ok", f"{name} is here and fits")


def run_folder(patient: Patient) -> Iterator[Finding]:
    folder = patient.paths.run_dir
    try:
        found = folder.lstat()
    except FileNotFoundError:
        yield Finding("run folder", "ok", f"{folder} is made by `lumen up`")
        return
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        what = f"{folder} is not a folder of yours; somebody else could answer in Lumen's place"
        yield Finding("run folder", "bad", what, "remove it, or set LUMEN_HOME")
    elif found.st_mode & 0o077:
        yield Finding("run folder", "bad", f"others may enter {folder}", f"run `chmod 700 {folder}`")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("run folder", "bad", f"{folder} cannot be written", f"run `chmod 700 {folder}`")
    else:
        yield Finding("run folder", "ok", f"{folder} is yours alone")


def port(patient: Patient) -> Iterator[Finding]:
    host, number = patient.config.server.host, patient.config.server.port
    if patient.status is not None:
        url = str(patient.status.get("url", ""))
        if urlsplit(url).port == number:
            yield Finding("port", "ok", f"our own gateway answers at {url}")
            return
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        what = f"{host}:{number} cannot be used: {error.strerror or error}"
        yield Finding("port", "bad", what, "end what uses it, or take another: `lumen up --port 5867`")
    else:
        yield Finding("port", "ok", f"{host}:{number} is free")


def leftovers(patient: Patient) -> Iterator[Finding]:
    if patient.status is not None:
        yield Finding("gateway", "ok", f"it runs (process {patient.status.get('pid')})")
        return
    record = gateway.record(patient.paths)
    if record is not None and gateway.Process(record.pid, record.started).alive():
        what = f"process {record.pid} holds the gateway's place but does not answer"
        yield Finding("gateway", "bad", what, "end it with `lumen down`, then `lumen up`")
        return
    if record is not None:
        yield Finding("gateway", "warn", "the last gateway was killed", "`lumen up` clears up after it")
    else:
        yield Finding("gateway", "ok", "none runs")
    orphans = engine_processes(patient.paths.run_dir)
    if orphans:
        numbers = ", ".join(map(str, orphans))
        yield Finding("engines", "warn", f"left over from a killed gateway: {numbers}", "`lumen up` ends them")


def engine_processes(run_dir: Path) -> list[int]:
    """Processes that a gateway of this installation started, known by the mark in their environment."""
    import psutil

    mark = hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:16]
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.environ().get("LUMEN_RUN_DIR") == mark:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return sorted(found)


def keys(patient: Patient) -> Iterator[Finding]:
    from lumen.keys import load

    fine = True
    for path in (patient.paths.keys_file, patient.paths.local_key_file):
        if path.exists() and path.stat().st_mode & 0o077:
            fine = False
            yield Finding("keys", "bad", f"others may read {path}", f"run `chmod 600 {path}`")
    try:
        count = sum(1 for key in load(patient.paths.keys_file).keys if key.revoked is None)
    except (LumenError, OSError) as error:
        yield Finding("keys", "bad", str(error), "restore the file, or remove it and add the keys again")
        return
    if fine:
        yield Finding("keys", "ok", f"{count} in force")


CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    python,
    packages,
    engine,
    compiler,
    hardware,
    disk,
    config,
    models,
    run_folder,
    port,
    leftovers,
    keys,
)


def examine(patient: Patient) -> list[Finding]:
    """Everything that was found, in the order of `CHECKS`; a check that cannot look says so."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(patient)
        except (OSError, LumenError, CliError) as error:
            name = check.__name__.replace("_", " ")
            found.append(Finding(name, "bad", f"cannot be looked at: {error}", "see the permissions of that file"))
    return found
